"""Train and test a model as a configuration says.

%(prog)s --cfg configs/K400/MVITv2_B.yaml DATA.PATH_TO_DATA_DIR /data/k400

On several devices: torchrun --nproc-per-node 8 -m videonet run --cfg configs/K400/MVITv2_B.yaml
"""

from __future__ import annotations

import json
import logging
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videonet.commands.arguments import Words
from videonet.config.command_line import load_configs, training_arguments
from videonet.fork_server import start_fork_server

if TYPE_CHECKING:
    from fvcore.common.config import CfgNode

logger = logging.getLogger("videonet.run_net")


def main(argv: Words = None, prog: str | None = None) -> None:
    """Train, test or both, as ``TRAIN.ENABLE`` and ``TEST.ENABLE`` say.

    Args:
        argv: the words of the command line; None for those of the process.
        prog: the command's name in the help.
    """
    _run(argv, prog, ())


def train(argv: Words = None, prog: str | None = None) -> None:
    """Train alone, whatever ``TEST.ENABLE`` says.

    Args:
        argv: the words of the command line; None for those of the process.
        prog: the command's name in the help.
    """
    _run(argv, prog, ("TRAIN.ENABLE", "True", "TEST.ENABLE", "False"))


def test(argv: Words = None, prog: str | None = None) -> None:
    """Test alone, whatever ``TRAIN.ENABLE`` says.

    Args:
        argv: the words of the command line; None for those of the process.
        prog: the command's name in the help.
    """
    _run(argv, prog, ("TRAIN.ENABLE", "False", "TEST.ENABLE", "True"))


def _run(argv: Words, prog: str | None, overrides: Sequence[str]) -> None:
    args = training_arguments(argv, __doc__, prog)
    args.overrides.extend(overrides)
    from videonet.engine.machines import torchrun_command
    from videonet.engine.parent import end_with_torchrun
    from videonet.terminal import start_logging

    start_logging(main=os.environ.get("RANK", "0") == "0", quiet=args.options.quiet)
    configs = load_configs(args)
    if command := torchrun_command(args, configs):
        logger.info("several machines: %s", shlex.join(command))
        os.execv(command[0], command)
    if any(cfg.DATA_LOADER.NUM_WORKERS for cfg in configs):
        # The second is of training, and imports torchvision once for all workers.
        start_fork_server("videonet.data.loading.build", "videonet.data.transforms.clip")
    with end_with_torchrun():
        for cfg in configs:
            if results := run_config(cfg, quiet=args.options.quiet):
                print(json.dumps(results, indent=2))


def run_config(cfg: CfgNode, *, quiet: bool = False) -> dict[str, Any]:
    """Train and test one configuration.

    Args:
        cfg: a complete configuration.
        quiet: show warnings alone; ``log.txt`` holds everything all the same.

    Returns:
        What ``results.json`` holds; nothing without a test, and on other processes than the first.
    """
    from videonet.engine.distributed import process
    from videonet.engine.lock import only_run_in
    from videonet.engine.multiview import run_multiview_test
    from videonet.engine.train import Trainer
    from videonet.terminal import start_logging

    with (
        process(cfg.DEVICE, cfg.DIST_BACKEND, quiet=quiet) as this,
        only_run_in(cfg.OUTPUT_DIR, this),
    ):
        start_logging(Path(cfg.OUTPUT_DIR), main=this.is_main, quiet=quiet)
        if cfg.TRAIN.ENABLE:
            Trainer(cfg, this).run()
            if this.is_main:
                logger.info("learning curve: %s", Path(cfg.OUTPUT_DIR, "learning_curve.png"))
        return run_multiview_test(cfg, this) if cfg.TEST.ENABLE else {}
