"""Overrides among the words of a command line, and the command line of training."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import videonet.config.pyslowfast as pyslowfast
from videonet.config.keys import GROUPS, KEYS, MAPPINGS
from videonet.config.layers import OLD_NAMES
from videonet.errors import ConfigError

if TYPE_CHECKING:
    from fvcore.common.config import CfgNode

DEFAULT_ADDRESS = "tcp://localhost:9999"  # PySlowFast's
OVERRIDES_HELP = """\
overrides of the configuration: KEY VALUE or KEY=VALUE, anywhere among the words, such as
  SOLVER.BASE_LR 0.01 TEST.BATCH_SIZE=4
videonet config lists the keys."""


def is_key(word: str) -> bool:
    """Whether a word of a command line is the key of an override, known or misspelt.

    A word counts as a key where it is one, or where it is written like one in a group that there
    is (``SOLVER.BASE_LRR``) and no file has that name.

    Args:
        word: the word, without ``=VALUE``.
    """
    if not re.fullmatch(r"[A-Z][\w.]*", word):
        return False
    if word in KEYS or word in OLD_NAMES or pyslowfast.describe(word):
        return True
    group, _, name = word.rpartition(".")
    if group in MAPPINGS:
        return name.isidentifier()
    known = bool(group) and (group in GROUPS or group in pyslowfast.groups())
    return known and re.fullmatch(r"[A-Z]\w*", name) is not None and not os.path.exists(word)


def take_overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The other words of a command line, and its overrides.

    ``--opts``, which stands before the overrides in PySlowFast, may be there and changes nothing.

    Args:
        words: of the command line.

    Returns:
        The words that belong to no override, and ``[KEY, VALUE, …]``.

    Raises:
        ConfigError: a key has no value.
    """
    others: list[str] = []
    overrides: list[str] = []
    remaining = iter(words)
    for word in remaining:
        key, equals, value = word.partition("=")
        if word == "--opts":
            continue
        if not is_key(key):
            others.append(word)
            continue
        if not equals:
            value = next(remaining, "--")
            if value.startswith("--"):
                raise ConfigError(f"overrides come in pairs, KEY VALUE, but {key!r} has no value")
        overrides += [key, value]
    return others, overrides


def parse_with_overrides(
    parser: argparse.ArgumentParser, words: Sequence[str] | None
) -> tuple[argparse.Namespace, list[str]]:
    """Parse a command line among whose words there may be overrides.

    Every command that takes a configuration is parsed by this function.

    Args:
        parser: knows all other words.
        words: of the command line; None for those of the process.

    Returns:
        What the parser found, and ``[KEY, VALUE, …]``.

    Raises:
        ConfigError: a key has no value.
    """
    others, overrides = take_overrides(sys.argv[1:] if words is None else words)
    args, unknown = parser.parse_known_args(others)
    misspelt = [word for word in unknown if word.startswith("--")]
    if misspelt or (unknown and not re.match(r"[A-Z_]+(\.|=|$)", unknown[0])):
        parser.error(f"unrecognized arguments: {' '.join(misspelt or unknown)}")
    return args, [*overrides, *unknown]  # a key that is misspelt altogether is refused later


@dataclass(frozen=True)
class TrainingArguments:
    """A command line of training.

    Attributes:
        files: the configurations.
        overrides: ``[KEY, VALUE, …]``.
        options: ``quiet``, and PySlowFast's options for several machines.
    """

    files: list[str]
    overrides: list[str]
    options: argparse.Namespace


def training_arguments(
    words: Sequence[str] | None, description: str | None = None, prog: str | None = None
) -> TrainingArguments:
    """Parse ``--cfg FILE [FILE …] [KEY VALUE …]``, and PySlowFast's other options.

    Args:
        words: of the command line; None for those of the process.
        description: what the help says.
        prog: the command's name in the help.

    Raises:
        ConfigError: a key has no value.
    """
    parser = argparse.ArgumentParser(
        prog=prog,
        description=description,
        epilog=OVERRIDES_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        *("--cfg", "--cfg_files"),
        required=True,
        nargs="+",
        action="extend",
        metavar="FILE",
        help="a YAML file, on disk or shipped by name; several run one after another",
    )
    parser.add_argument("--num_shards", metavar="N", help="number of machines that train together")
    parser.add_argument("--shard_id", metavar="K", help="number of this machine, from 0")
    parser.add_argument(
        "--init_method", metavar="tcp://HOST:PORT", help="machine 0, and a free port of it"
    )
    parser.add_argument(
        "--quiet", action="store_true", help="no bars, warnings alone; log.txt holds everything"
    )
    args, overrides = parse_with_overrides(parser, words)
    found, count = args.cfg, 1
    while count < len(found) and found[count].lower().endswith((".yaml", ".yml")):
        count += 1
    # Words behind the files that are no key are refused as unknown keys.
    return TrainingArguments(list(found[:count]), [*found[count:], *overrides], args)


def load_configs(args: TrainingArguments) -> list[CfgNode]:
    """The configurations that a command line of training names.

    Args:
        args: the command line.

    Raises:
        ConfigError: one cannot be used, or two share an OUTPUT_DIR.
    """
    from videonet.config.loading import load_config  # --help does without it

    configs = [load_config(file, args.overrides) for file in args.files]
    folders: dict[str, str] = {}
    for file, cfg in zip(args.files, configs, strict=True):
        folder = os.path.realpath(cfg.OUTPUT_DIR)
        if folder in folders:
            raise ConfigError(
                f"{folders[folder]} and {file} have the same OUTPUT_DIR {cfg.OUTPUT_DIR}: give "
                "each its own"
            )
        folders[folder] = file
    return configs


@dataclass(frozen=True)
class Machines:
    """Several machines that train together.

    Attributes:
        count: how many there are.
        index: which of them this one is, from 0.
        host: the address of machine 0.
        port: a free port of machine 0.
    """

    count: int
    index: int
    host: str
    port: int


def machines_of(args: argparse.Namespace) -> Machines | None:
    """What PySlowFast's options say of several machines; None for one machine.

    Args:
        args: ``num_shards``, ``shard_id`` and ``init_method`` as written, or None.

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
