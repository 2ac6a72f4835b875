"""The command line of training, with the options that PySlowFast has."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Sequence

from fvcore.common.config import CfgNode

from videonet.config.loading import load_config
from videonet.errors import ConfigError

logger = logging.getLogger(__name__)


def training_parser(description: str) -> argparse.ArgumentParser:
    """``--cfg FILE [FILE …] [KEY VALUE …]``, and PySlowFast's other options."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        *("--cfg", "--cfg_files"),
        required=True,
        nargs="+",
        action="extend",
        metavar="FILE",
        help="a YAML file, on disk or shipped by name; several run one after another",
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="overrides of the file")
    parser.add_argument(
        *("--opts",), nargs=argparse.REMAINDER, default=[], help="the same, as PySlowFast has it"
    )
    for option in ("--init_method", "--num_shards", "--shard_id"):
        parser.add_argument(option, help=argparse.SUPPRESS)
    return parser


def load_configs(args: argparse.Namespace) -> list[CfgNode]:
    """The configurations that a command line of :func:`training_parser` names.

    Raises:
        ConfigError: one cannot be used, two share an OUTPUT_DIR, or an option asks for machines.
    """
    _answer_launcher_options(args)
    files, rest = _split(args.cfg)
    overrides = [*rest, *args.overrides, *args.opts]
    configs = [load_config(file, overrides) for file in files]
    folders: dict[str, str] = {}
    for file, cfg in zip(files, configs, strict=True):
        folder = os.path.realpath(cfg.OUTPUT_DIR)
        if folder in folders:
            raise ConfigError(
                f"{folders[folder]} and {file} have the same OUTPUT_DIR {cfg.OUTPUT_DIR}: give "
                "each its own"
            )
        folders[folder] = file
    return configs


def _split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The files at the beginning of ``FILE [FILE …] [KEY VALUE …]``, and the rest."""
    count = 1
    while count < len(words) and words[count].lower().endswith((".yaml", ".yml")):
        count += 1
    return list(words[:count]), list(words[count:])


def _answer_launcher_options(args: argparse.Namespace) -> None:
    shards = _whole("--num_shards", args.num_shards, 1)
    shard = _whole("--shard_id", args.shard_id, 0)
    if shards != 1 or shard != 0:
        raise ConfigError(
            f"--num_shards {shards} and --shard_id {shard} are PySlowFast's way to use several "
            f"machines; here start on each of them: torchrun --nnodes {max(shards, 2)} --node-rank "
            f"{shard} --nproc-per-node GPUS --rdzv-backend c10d --rdzv-endpoint FIRST:29500 "
            f"tools/run_net.py --cfg FILE"
        )
    if args.init_method:
        logger.warning(
            "--init_method %s has no effect: torchrun connects the processes (--rdzv-endpoint)",
            args.init_method,
        )


def _whole(option: str, text: str | None, default: int) -> int:
    if text is None:
        return default
    if not text.isdecimal():
        raise ConfigError(f"{option} is {text!r}, but must be a whole number")
    return int(text)
