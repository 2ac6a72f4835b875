"""From a folder of your videos to a model and a report of how good it is.

%(prog)s my_videos                        a folder for each class, with its videos
%(prog)s videos.csv                       a list: path,label or with more columns, such as group
%(prog)s my_videos --weights mvit_v2_s.k400 --minutes 120
%(prog)s my_videos SOLVER.BASE_LR 3e-4    every key of the configuration can be given

The videos are read, checked and divided; frames, size, recipe and length are chosen from what they
are, and each choice is said with its reason (choices.txt). Large weights on a small machine are not
trained: classifiers are, on their features (recipe probe). Ctrl-C stops a run, and the same command
goes on. The run's folder holds report.html and model/, which videonet predict and
videonet.Predictor.from_pretrained take.
"""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from videonet.choices import GROUPINGS, RECIPES
from videonet.commands.arguments import Words, new_parser, parse
from videonet.errors import ConfigError

if TYPE_CHECKING:
    from fvcore.common.config import CfgNode

    from videonet.finetuning.state import State

logger = logging.getLogger("videonet.finetune")


def parse_arguments(argv: Words = None, prog: str | None = None) -> argparse.Namespace:
    """The arguments of the command, see :func:`main`."""
    parser = new_parser(__doc__, prog, overrides=True)
    parser.add_argument("videos", metavar="FOLDER", help="a folder per class, or a list")
    parser.add_argument(
        "--output", type=Path, help="folder of the run (default: runs/NAME of the folder)"
    )
    parser.add_argument(
        "--weights",
        default="",
        help="to start from: a name of videonet weights, a run, a saved model, a file of tensors "
        "(with MODEL.NAME at the end), motions (a small model that learns drawn motions first, "
        "once, in minutes), or none (default: what is in the cache and suits the machine, else "
        "motions)",
    )
    parser.add_argument(
        "--minutes", type=_positive, default=0.0, help="that training may take (CPU 45, GPU 60)"
    )
    parser.add_argument(
        "--data-curve",
        action="store_true",
        help="also train on 25 and 50 %% of the videos, to see what more of them would bring",
    )
    parser.add_argument("--quiet", action="store_true", help="show warnings and the result alone")
    group = parser.add_argument_group("choices that are otherwise made from the videos")
    group.add_argument("--recipe", choices=RECIPES, default="", help="what is trained, and how")
    group.add_argument("--epochs", type=_count, default=0, help="length of the training")
    group.add_argument("--frames", type=_count, default=0, help="of a clip")
    group.add_argument("--size", type=_count, default=0, help="side of a frame in pixels")
    group.add_argument(
        "--groups",
        choices=GROUPINGS,
        default="auto",
        help="how videos that belong together (a person, a scene) are found (auto)",
    )
    group.add_argument(
        "--held-out", type=_share, default=0.2, help="share of the videos to measure with (0.2)"
    )
    group.add_argument("--seed", type=int, default=0, help="of all draws (0)")
    group = parser.add_argument_group("columns of a list, where they have other names")
    for what in ("path", "label", "group", "split"):
        group.add_argument(f"--{what}-column", default="", metavar="NAME")
    return parse(parser, argv)


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value


def main(argv: Words = None, prog: str | None = None) -> None:
    """Train a model on a folder of videos, and write its report.

    Args:
        argv: the words of the command line; None for those of the process.
        prog: the command's name in the help.
    """
    args = parse_arguments(argv, prog)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            "videonet finetune runs in one process: start it without torchrun; the configuration "
            "that it leaves (config.yaml) can be given to videonet run on several devices"
        )
    from videonet.finetuning.setup import set_up
    from videonet.finetuning.state import Asked
    from videonet.terminal import start_logging

    place = os.path.abspath(args.videos)
    folder = args.output or Path(
        "runs", Path(place).stem if os.path.isfile(place) else Path(place).name
    )
    start_logging(quiet=args.quiet)
    columns = {
        what: getattr(args, f"{what}_column") for what in ("path", "label", "group", "split")
    }
    asked = Asked(
        place,
        {what: name for what, name in columns.items() if name},
        args.weights,
        args.recipe,
        args.groups,
        args.held_out,
        args.minutes,
        args.epochs,
        args.frames,
        args.size,
        args.seed,
    )
    state, cfg = set_up(asked, folder, args.overrides)
    train(state, cfg, folder, data_curve=args.data_curve, quiet=args.quiet)


def train(
    state: State, cfg: CfgNode, folder: Path, *, data_curve: bool = False, quiet: bool = False
) -> None:
    """Train and test, save the model, and write the report.

    Args:
        state: what was chosen.
        cfg: the configuration.
        folder: of the run.
        data_curve: train on shares of the videos too.
        quiet: show warnings and the result alone.
    """
    from videonet.commands.run import run_config
    from videonet.finetuning.curve import shares_of
    from videonet.finetuning.motions import learn_motions, motion_weights
    from videonet.finetuning.probe_recipe import run_recipe
    from videonet.finetuning.report import REPORT, write_report
    from videonet.finetuning.setup import remove_frames
    from videonet.inference import Predictor
    from videonet.terminal import start_logging

    if motion_weights(given=False).source == cfg.TRAIN.CHECKPOINT_FILE_PATH:
        learn_motions(partial(run_config, quiet=quiet), quiet=quiet)
    model = folder / "model"
    part_of: Callable[[CfgNode], object] = partial(run_config, quiet=quiet)
    if state.recipe == "probe":
        run_recipe(cfg, quiet=quiet)
        start_logging(folder, quiet=quiet)
        part_of = partial(run_recipe, quiet=quiet, model=False)
    else:
        run_config(cfg, quiet=quiet)
        start_logging(folder, quiet=quiet)
        Predictor.from_checkpoint(folder, overrides=["DEVICE", "cpu"]).save_pretrained(model)
    verdict = write_report(folder, state)
    if data_curve:
        logger.info("report: %s; what more videos would bring follows", folder / REPORT)
        for part in shares_of(state, cfg, folder):
            part_of(part)
        start_logging(folder, quiet=quiet)
        verdict = write_report(folder, state)
    remove_frames(folder)
    logger.info("model: %s", model)
    logger.info("report: %s", folder / REPORT)
    print(verdict)
