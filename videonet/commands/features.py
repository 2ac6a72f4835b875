"""Write the embeddings of videos' clips, with times, for retrieval, probes and heads.

%(prog)s data/demo/train.csv --checkpoint runs/demo --output features/train
%(prog)s talks/ --checkpoint runs/demo --stride 1 --output features/talks

The same command again goes on where it was stopped; another checkpoint or other options need
another --output, or --overwrite. The exit code is 0 where all videos could be read, 3 where some
could not, 1 where none could.
"""

from __future__ import annotations

from pathlib import Path

from videonet.choices import FEATURE_FORMATS
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
from videonet.errors import ConfigError, exit_code


def main(argv: Words = None, prog: str | None = None) -> int:
    """Write the embeddings of all videos.

    Args:
        argv: the words of the command line; None for those of the process.
        prog: the command's name in the help.

    Returns:
        The exit code, as the help says.
    """
    parser = new_parser(__doc__, prog, overrides=True)
    parser.add_argument(
        "videos", nargs="+", help="files, folders, glob patterns or lists (.txt, .csv)"
    )
    add_model_arguments(parser)
    add_window_arguments(parser)
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    parser.add_argument("--overwrite", action="store_true", help="begin anew what is in --output")
    parser.add_argument("--format", choices=FEATURE_FORMATS, default=FEATURE_FORMATS[0])
    parser.add_argument("--frames", action="store_true", help="also a vector per frame of the grid")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    add_bulk_arguments(parser)
    args = parse(parser, argv)
    sliding = is_sliding(args)
    start_workers(args, sliding=sliding)
    from videonet.data.feature_store import FeatureWriter
    from videonet.inference.extraction import describe_features, extract_features
    from videonet.inference.options import Options
    from videonet.inference.sources import find_videos
    from videonet.terminal import start_logging

    start_logging(main=False)
    sources = find_videos(args.videos)
    if sliding and args.frames:
        raise ConfigError("--frames goes with the views of testing, not with a sliding window")
    predictor = make_predictor(args)
    options = Options(sliding=sliding, window=args.window, stride=args.stride, crops=args.crops)
    about = describe_features(predictor, options, frames=args.frames)
    with FeatureWriter(args.output, about, args.format, overwrite=args.overwrite) as writer:
        failed = extract_features(
            predictor,
            sources,
            writer,
            options,
            frames=args.frames,
            progress=not args.quiet,
            **bulk_options(args, len(sources), sliding=sliding),
        )
    return exit_code(failed, len(sources))
