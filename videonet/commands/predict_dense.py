"""Objects and label maps of frames: ``videonet predict --task``."""

from __future__ import annotations

import argparse

from videonet.errors import ConfigError, exit_code

TASKS = ("instances", "semantics")


def add_dense_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of predictions of every frame.

    Args:
        parser: gets the arguments.
    """
    group = parser.add_argument_group("objects or label maps of every frame, of videos and images")
    group.add_argument(
        "--task",
        choices=TASKS,
        help="instances: --output is a .json of COCO and YouTube-VIS; semantics: a folder of PNGs",
    )
    group.add_argument("--min-score", type=float, default=0.3, help="of an object (0.3)")


def predict_frames(args: argparse.Namespace) -> int:
    """Find objects or label maps, and write and draw them.

    Args:
        args: of ``videonet predict`` with ``--task``.

    Returns:
        The exit code.

    Raises:
        ConfigError: the model is of another task, or the files do not fit.
    """
    from videonet.inference.dense import DensePredictor
    from videonet.inference.dense_files import predict_dense
    from videonet.inference.sources import find_videos
    from videonet.terminal import start_logging

    start_logging(main=False)
    sources = find_videos(args.videos)
    overrides = list(args.overrides)
    if args.batch_size is not None:
        overrides += ["TEST.BATCH_SIZE", str(args.batch_size)]
    predictor = DensePredictor.from_checkpoint(args.checkpoint, cfg=args.cfg, overrides=overrides)
    if predictor.finds_objects != (args.task == "instances"):
        raise ConfigError(
            f"--task is {args.task}, but {predictor.origin} is a model of "
            f"{predictor.cfg.MODEL.TASK}"
        )
    failed = predict_dense(
        predictor,
        sources,
        output=args.output,
        overlay=args.overlay,
        least_score=args.min_score,
        progress=not args.quiet,
    )
    return exit_code(failed, len(sources))
