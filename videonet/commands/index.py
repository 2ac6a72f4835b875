"""Index a collection of videos, so that moments of it can be found by "videonet search".

%(prog)s talks/ --checkpoint runs/demo --stride 1 --output index/talks
%(prog)s --output features/talks

--output is a folder of features, as "videonet features" writes it. The same command again goes on
where it was stopped and takes new videos in; without videos it indexes the features that are there.
The exit code is 0 where all videos could be read, 3 where some could not, 1 where none could.
"""

from __future__ import annotations

from pathlib import Path

from videonet.commands.arguments import (
    Words,
    add_bulk_arguments,
    add_model_arguments,
    add_window_arguments,
    bulk_options,
    is_sliding,
    make_predictor,
    new_parser,
    parse,
    start_workers,
)
from videonet.errors import exit_code
from videonet.terminal import printable


def main(argv: Words = None, prog: str | None = None) -> int:
    """Write the embeddings of videos and what makes them fast to search.

    Args:
        argv: the words of the command line; None for those of the process.
        prog: the command's name in the help.

    Returns:
        The exit code, as the help says.
    """
    parser = new_parser(__doc__, prog, overrides=True)
    parser.add_argument(
        "videos", nargs="*", help="files, folders, glob patterns or lists (.txt, .csv)"
    )
    add_model_arguments(parser, required=False)
    add_window_arguments(parser)
    parser.add_argument("--output", type=Path, required=True, help="folder of the index")
    parser.add_argument("--overwrite", action="store_true", help="begin anew what is in --output")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    add_bulk_arguments(parser)
    args = parse(parser, argv)
    if bool(args.videos) != bool(args.checkpoint):
        parser.error("videos and --checkpoint go together")
    sliding = is_sliding(args)
    if args.videos:
        start_workers(args, sliding=sliding)
    from videonet.data.feature_store import FeatureWriter
    from videonet.inference.extraction import describe_features, extract_features
    from videonet.inference.run import Options
    from videonet.inference.search import build_index
    from videonet.inference.sources import find_videos
    from videonet.terminal import start_logging

    start_logging(main=False)
    failed = total = 0
    if args.videos:
        sources = find_videos(args.videos)
        predictor = make_predictor(args)
        options = Options(sliding=sliding, window=args.window, stride=args.stride, crops=args.crops)
        about = describe_features(predictor, options, frames=False)
        with FeatureWriter(args.output, about, overwrite=args.overwrite) as writer:
            failed = extract_features(
                predictor,
                sources,
                writer,
                options,
                progress=not args.quiet,
                **bulk_options(args, len(sources), sliding=sliding),
            )
        total = len(sources)
    if not total or failed < total:
        index = build_index(args.output)
        print(printable(f"{args.output}: {len(index)} clips of {len(index.videos)} videos"))
    return exit_code(failed, total)
