"""What is in a video: labels of files of any length, and over time.

%(prog)s clip.mp4 --checkpoint runs/demo
%(prog)s videos/ 'more/**/*.mkv' list.txt --checkpoint runs/demo --output all.jsonl
%(prog)s match.mp4 --checkpoint runs/demo --stride 0.5 --timeline match.png
%(prog)s match.mp4 --task instances --checkpoint runs/players --overlay out.mp4 --output out.json

The exit code is 0 where all videos could be read, 3 where some could not, 1 where none could. A run
that was stopped goes on when the same command is given again (.jsonl and .csv); another checkpoint
or other options need another --output, or --overwrite.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

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
from videonet.commands.predict_dense import add_dense_arguments, predict_frames
from videonet.errors import exit_code

if TYPE_CHECKING:
    from videonet.inference.pictures import Pictures
    from videonet.inference.predictor import Predictor


def parse_arguments(argv: Words = None, prog: str | None = None) -> argparse.Namespace:
    """The arguments of the command, see :func:`main`."""
    parser = new_parser(__doc__, prog, overrides=True)
    parser.add_argument(
        "videos", nargs="+", help="files, folders, glob patterns or lists (.txt, .csv)"
    )
    add_model_arguments(parser)
    add_window_arguments(parser)
    parser.add_argument("--top-k", type=int, default=5, help="how many classes (default 5)")
    parser.add_argument("--output", type=Path, help="file for the results: .jsonl, .csv or text")
    parser.add_argument("--overwrite", action="store_true", help="begin anew what is in --output")
    parser.add_argument("--format", choices=("text", "jsonl", "csv"), help="by default: by suffix")
    parser.add_argument("--aggregate", choices=("mean", "max", "attention"), default="")
    parser.add_argument("--head", type=Path, help="head of tools/train_head.py, for attention")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    add_bulk_arguments(parser)
    add_dense_arguments(parser)
    group = parser.add_argument_group("segments of a sliding window")
    group.add_argument("--on", type=float, default=0.5, help="score that begins one (0.5)")
    group.add_argument("--off", type=float, default=0.3, help="score that ends one (0.3)")
    group.add_argument("--max-gap", type=float, default=0.0, help="seconds that are bridged (0)")
    group.add_argument("--min-length", type=float, default=0.0, help="shortest, in seconds (0)")
    group.add_argument("--smooth", type=int, default=1, help="windows averaged before (1)")
    group = parser.add_argument_group("pictures (of several videos: a folder)")
    group.add_argument("--picture", type=Path, help="PNG of frames and scores")
    group.add_argument("--timeline", type=Path, help="PNG of scores over time")
    group.add_argument("--overlay", type=Path, help="MP4 of the video with labels and scores")
    group.add_argument("--explain", type=Path, help="PNG or MP4 of where the model looks")
    group.add_argument("--explain-by", choices=("gradcam", "rollout"), default="gradcam")
    return parse(parser, argv)


def main(argv: Words = None, prog: str | None = None) -> int:
    """Label all videos, and draw the pictures that are asked for.

    Args:
        argv: the words of the command line; None for those of the process.
        prog: the command's name in the help.

    Returns:
        The exit code, as the help says.
    """
    args = parse_arguments(argv, prog)
    if args.task:
        return predict_frames(args)
    sliding = is_sliding(args) or bool(args.timeline or args.overlay)
    start_workers(args, sliding=sliding)
    from videonet.inference.description import describe_results
    from videonet.inference.options import Options
    from videonet.inference.result_files import open_results
    from videonet.inference.run import predict_videos
    from videonet.inference.sources import find_videos
    from videonet.tasks.segments import Hysteresis
    from videonet.terminal import start_logging

    start_logging(main=False)
    sources = find_videos(args.videos)
    options = Options(
        top_k=args.top_k,
        sliding=sliding,
        window=args.window,
        stride=args.stride,
        crops=args.crops,
        aggregate=args.aggregate,
        segments=Hysteresis(args.on, args.off, args.max_gap, args.min_length, args.smooth),
    )
    predictor = make_predictor(args)
    pictures = _pictures(args, predictor, several=len(sources) > 1)
    about = describe_results(predictor, options)
    with open_results(
        args.output, args.format, sys.stdout, about, overwrite=args.overwrite
    ) as writer:
        failed = predict_videos(
            predictor,
            sources,
            writer,
            options,
            pictures,
            progress=not args.quiet,
            **bulk_options(args, len(sources), sliding=sliding),
        )
    return exit_code(failed, len(sources))


def _pictures(args: argparse.Namespace, predictor: Predictor, *, several: bool) -> Pictures | None:
    """Draws what the arguments ask for, if they do; matplotlib takes a second to import."""
    if not (args.picture or args.timeline or args.overlay or args.explain):
        return None
    from videonet.inference.pictures import Pictures

    return Pictures(
        predictor,
        several=several,
        picture=args.picture,
        timeline=args.timeline,
        overlay=args.overlay,
        explain=args.explain,
        method=args.explain_by,
    )
