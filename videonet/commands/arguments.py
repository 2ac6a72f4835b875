"""Command-line arguments that several verbs share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from videonet.choices import LIST_SUFFIXES
from videonet.config.command_line import OVERRIDES_HELP, parse_with_overrides
from videonet.errors import ConfigError
from videonet.fork_server import start_fork_server

if TYPE_CHECKING:
    from videonet.inference.predictor import Predictor

DECODING = "videonet.inference.decoding"  # what the workers of bulk runs import
Words = Sequence[str] | None  # of a command line behind its verb; None for those of the process


def new_parser(
    description: str | None, prog: str | None, *, overrides: bool = False, add_help: bool = True
) -> argparse.ArgumentParser:
    """A parser whose help shows a module's docstring as it is.

    Args:
        description: the docstring.
        prog: the command's name in the help; None for the name of the script.
        overrides: the help says how the configuration is overridden (see :func:`parse`).
        add_help: ``--help`` is an option.
    """
    return argparse.ArgumentParser(
        prog=prog,
        description=description,
        epilog=OVERRIDES_HELP if overrides else None,
        add_help=add_help,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def parse(parser: argparse.ArgumentParser, argv: Words) -> argparse.Namespace:
    """Parse a command line with overrides of the configuration, which become ``overrides``.

    Args:
        parser: knows all other words.
        argv: the words; None for those of the process.

    Raises:
        ConfigError: a key has no value.
    """
    args, overrides = parse_with_overrides(parser, argv)
    args.overrides = overrides
    if args.overrides and not getattr(args, "takes_overrides", True):
        parser.error(f"{args.overrides[0]}: this command reads no configuration")
    return args


def add_model_arguments(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Add the arguments that say which model: ``--checkpoint``, ``--cfg``, ``--batch-size``.

    Args:
        parser: gets the arguments.
        required: ``--checkpoint`` has to be given.
    """
    parser.add_argument(
        "--checkpoint",
        required=required,
        help="a checkpoint, the folder of a run or of a saved model, or a name of videonet weights",
    )
    parser.add_argument("--cfg", help="a YAML file; by default the one inside the checkpoint")
    parser.add_argument("--batch-size", type=int, help="clips at a time (TEST.BATCH_SIZE)")


def add_window_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say which clips of a video: views of testing, or a sliding window.

    Args:
        parser: gets the arguments.
    """
    group = parser.add_argument_group("sliding window, instead of the views of testing")
    group.add_argument("--sliding", action="store_true", help="windows over the whole video")
    group.add_argument("--window", type=float, help="seconds (default: what a training clip spans)")
    group.add_argument("--stride", type=float, help="seconds (default: half a window)")
    group.add_argument("--crops", type=int, choices=(1, 3), default=1, help="of each window (1)")


def add_bulk_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say how many files are worked on at once.

    Args:
        parser: gets the arguments.
    """
    group = parser.add_argument_group("many files")
    group.add_argument(
        "--workers",
        type=int,
        help="processes that decode; 0 for none (default: one per core, none for a few files)",
    )
    group.add_argument("--devices", nargs="+", default=(), help="a copy of the model on each")
    group.add_argument("--unordered", action="store_true", help="write files as they are finished")


def start_workers(args: argparse.Namespace, *, sliding: bool) -> None:
    """Begin what worker processes need, where :func:`bulk_options` will probably want some.

    Args:
        args: with the videos and those of :func:`add_bulk_arguments`.
        sliding: whether windows are scored.
    """
    suffix = Path(args.videos[0]).suffix.lower()
    several = len(args.videos) > 1 or not suffix or suffix in LIST_SUFFIXES
    if args.workers or (args.workers is None and (sliding or several)):
        start_fork_server(DECODING)


def bulk_options(args: argparse.Namespace, files: int, *, sliding: bool) -> dict[str, Any]:
    """What :func:`add_bulk_arguments` says, as prediction and extraction take it.

    Args:
        args: parsed.
        files: their number.
        sliding: whether windows are scored.

    Raises:
        ConfigError: the number of processes is below 0.
    """
    from videonet.inference.many import default_workers

    workers = args.workers
    if workers is None:
        workers = default_workers(files, sliding=sliding)
    if workers < 0:
        raise ConfigError(f"--workers is {workers}, expected 0 or more")
    return {"workers": workers, "devices": args.devices, "ordered": not args.unordered}


def is_sliding(args: argparse.Namespace) -> bool:
    """Whether the arguments ask for a sliding window.

    Args:
        args: with those of :func:`add_window_arguments`.
    """
    return bool(args.sliding or args.window is not None or args.stride is not None)


def make_predictor(args: argparse.Namespace) -> Predictor:
    """The predictor of parsed arguments, with the head of ``--head`` where there is one.

    Args:
        args: with those of :func:`add_model_arguments`, parsed by :func:`parse`.

    Raises:
        ConfigError: the configuration cannot be used.
        CheckpointError: the checkpoint cannot be used.
    """
    from videonet.inference.predictor import Predictor
    from videonet.tasks.clip_head import load_video_head

    overrides = list(args.overrides)
    if args.batch_size is not None:
        overrides += ["TEST.BATCH_SIZE", str(args.batch_size)]
    predictor = Predictor.from_checkpoint(args.checkpoint, cfg=args.cfg, overrides=overrides)
    head: Path | None = getattr(args, "head", None)
    if head is not None:
        width = cast(int, predictor.model.num_features)
        predictor.video_head = load_video_head(head, width, predictor.class_names)
    return predictor
