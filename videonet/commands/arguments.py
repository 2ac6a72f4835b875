"""Command-line arguments that several verbs share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from videonet.inference.predictor import Predictor

Words = Sequence[str] | None  # of a command line behind its verb; None for those of the process


def new_parser(description: str | None, prog: str | None) -> argparse.ArgumentParser:
    """A parser whose help shows a module's docstring as it is."""
    return argparse.ArgumentParser(
        prog=prog, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Which model: ``--checkpoint``, ``--cfg``, ``--batch-size`` and ``--opts KEY VALUE``."""
    parser.add_argument("--checkpoint", required=True, help="a checkpoint, or the folder of a run")
    parser.add_argument("--cfg", help="a YAML file; by default the one inside the checkpoint")
    parser.add_argument("--batch-size", type=int, help="clips at a time (TEST.BATCH_SIZE)")
    parser.add_argument(
        "--opts", nargs="*", default=[], metavar="KEY VALUE", help="overrides of the configuration"
    )


def add_window_arguments(parser: argparse.ArgumentParser) -> None:
    """Which clips of a video: the views of testing, or a sliding window."""
    group = parser.add_argument_group("sliding window, instead of the views of testing")
    group.add_argument("--sliding", action="store_true", help="windows over the whole video")
    group.add_argument("--window", type=float, help="seconds (default: what a training clip spans)")
    group.add_argument("--stride", type=float, help="seconds (default: half a window)")
    group.add_argument("--crops", type=int, choices=(1, 3), default=1, help="of each window (1)")


def is_sliding(args: argparse.Namespace) -> bool:
    """Whether the arguments ask for a sliding window."""
    return bool(args.sliding or args.window is not None or args.stride is not None)


def make_predictor(args: argparse.Namespace) -> Predictor:
    """The predictor of parsed arguments, with the head of ``--head`` where there is one.

    Raises:
        ConfigError, CheckpointError: it cannot be made.
    """
    from videonet.inference.predictor import Predictor
    from videonet.tasks.clip_head import load_video_head

    overrides = list(args.opts)
    if args.batch_size is not None:
        overrides += ["TEST.BATCH_SIZE", str(args.batch_size)]
    predictor = Predictor.from_checkpoint(args.checkpoint, cfg=args.cfg, overrides=overrides)
    head: Path | None = getattr(args, "head", None)
    if head is not None:
        width = predictor.model.num_features
        predictor.video_head = load_video_head(head, width, predictor.class_names)
    return predictor
