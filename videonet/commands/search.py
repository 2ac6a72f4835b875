"""Find the moments of a collection that are nearest to a clip, a part of one, or a picture.

%(prog)s clip.mp4 --index index/talks --sheet found.png
%(prog)s match.mp4 --from 3 --to 5 --index index/talks --top 20

The score is the cosine between embeddings, 1 for the same clip. --index is a folder of
"videonet index", or of "videonet features".
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from videonet.commands.arguments import (
    Words,
    add_model_arguments,
    make_predictor,
    new_parser,
    parse,
)
from videonet.errors import ConfigError
from videonet.terminal import printable


def main(argv: Words = None, prog: str | None = None) -> None:
    """Print the nearest moments, and draw them.

    Args:
        argv: the words of the command line; None for those of the process.
        prog: the command's name in the help.
    """
    parser = new_parser(__doc__, prog, overrides=True)
    parser.add_argument("clip", help="a video, a folder of pictures, or a picture")
    parser.add_argument("--index", type=Path, required=True, help="folder of the index")
    parser.add_argument("--from", dest="start", type=float, default=0.0, help="seconds of the clip")
    parser.add_argument("--to", dest="end", type=float, help="seconds of the clip (default: end)")
    parser.add_argument("--top", type=int, default=10, help="moments (default 10)")
    parser.add_argument("--sheet", type=Path, help="draw the moments to this picture")
    parser.add_argument("--json", action="store_true", help="a line of JSON per moment")
    add_model_arguments(parser, required=False)
    args = parse(parser, argv)
    if args.top < 1:
        raise ConfigError(f"--top is {args.top}, expected 1 or more")
    from videonet.inference.search import SearchIndex, write_moments
    from videonet.terminal import start_logging

    start_logging(main=False)
    index = SearchIndex.open(args.index)
    args.checkpoint = args.checkpoint or index.description["checkpoint"]
    predictor = make_predictor(args)
    found = index.nearest(args.clip, predictor, start=args.start, end=args.end, count=args.top)
    for moment in found:
        if args.json:
            print(json.dumps(vars(moment)))
            continue
        times = f"{moment.start:9.2f} {moment.end:9.2f}"
        print(printable(f"{moment.score:.4f} {times}  {moment.video}"))
    if args.sheet:
        name = os.path.basename(args.clip)
        write_moments(args.sheet, args.clip, name, args.start, args.end, found)
        print(printable(str(args.sheet)))
