"""The command line of training, with the options that PySlowFast has."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from urllib.parse import urlsplit

from fvcore.common.config import CfgNode

from videonet.config.loading import load_config
from videonet.errors import ConfigError

DEFAULT_ADDRESS = "tcp://localhost:9999"  # PySlowFast's


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
    parser.add_argument("--num_shards", metavar="N", help="machines that train together")
    parser.add_argument("--shard_id", metavar="K", help="which of them this is, from 0")
    parser.add_argument(
        "--init_method", metavar="tcp://HOST:PORT", help="machine 0, and a free port of it"
    )
    return parser


def load_configs(args: argparse.Namespace) -> list[CfgNode]:
    """The configurations that a command line of :func:`training_parser` names.

    Raises:
        ConfigError: one cannot be used, or two share an OUTPUT_DIR.
    """
    files, overrides = files_and_overrides(args)
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


def files_and_overrides(args: argparse.Namespace) -> tuple[list[str], list[str]]:
    """``[FILE, …]`` and ``[KEY, VALUE, …]`` of a command line, in whatever order they came."""
    words, count = args.cfg, 1
    while count < len(words) and words[count].lower().endswith((".yaml", ".yml")):
        count += 1
    return list(words[:count]), [*words[count:], *args.overrides, *args.opts]


@dataclass(frozen=True)
class Machines:
    """How many machines train together, which of them this is, and how they meet."""

    count: int
    index: int
    host: str
    port: int


def machines_of(args: argparse.Namespace) -> Machines | None:
    """What PySlowFast's options say of several machines; None for one.

    Raises:
        ConfigError: an option has no such value, or they contradict each other.
    """
    count = _whole("--num_shards", args.num_shards, 1)
    index = _whole("--shard_id", args.shard_id, 0)
    if count < 1 or index >= count:
        raise ConfigError(
            f"--shard_id is {index} of --num_shards {count}, but must count the machines from 0"
        )
    address = args.init_method or DEFAULT_ADDRESS
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port or parts.scheme != "tcp":
        raise ConfigError(f"--init_method is {address!r}, but must be tcp://HOST:PORT")
    return Machines(count, index, host, port) if count > 1 else None


def _whole(option: str, text: str | None, default: int) -> int:
    if text is None:
        return default
    if not text.isdecimal():
        raise ConfigError(f"{option} is {text!r}, but must be a whole number")
    return int(text)
