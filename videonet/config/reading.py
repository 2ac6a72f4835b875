"""YAML files and KEY VALUE overrides as flat entries that know where they were written."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from videonet.errors import ConfigError

logger = logging.getLogger(__name__)

BASE_KEY = "_BASE_"  # fvcore's key for the file(s) that a config starts from
MAX_DEPTH = 8  # groups within groups; stops a YAML alias that contains itself


@dataclass(frozen=True)
class Entry:
    """One value as written, and the place of it: ``x.yaml:12`` or ``the overrides``."""

    value: Any
    where: str


def read_yaml(path: Path, chain: tuple[Path, ...] = ()) -> dict[str, Entry]:
    """The entries of a config file by dotted key, those of its ``_BASE_`` first.

    Python tags are not read. A key given twice with different values is logged; the last one wins.

    Raises:
        ConfigError: the file cannot be read, is not a YAML mapping, or inherits from itself.
    """
    if path.resolve() in chain:
        raise ConfigError(f"{path}: the config inherits from itself through {BASE_KEY}")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read config {path}: {error}") from error
    own = read_text(text, str(path))
    base = own.pop(BASE_KEY, Entry([], ""))
    entries: dict[str, Entry] = {}
    for name in [base.value] if isinstance(base.value, str) else base.value:
        parent = path.parent / Path(name).expanduser()
        if not parent.is_file():
            raise ConfigError(f"{base.where}: {BASE_KEY} names {parent}, which does not exist")
        entries.update(read_yaml(parent, (*chain, path.resolve())))
    return entries | own


def read_text(text: str, name: str) -> dict[str, Entry]:
    """The entries of YAML text by dotted key; `name` stands for the text in messages.

    Raises:
        ConfigError: the text is not a YAML mapping.
    """
    entries: dict[str, Entry] = {}
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if isinstance(root, yaml.MappingNode):
            _walk(loader, root, "", name, entries)
    except yaml.YAMLError as error:
        raise ConfigError(_yaml_problem(name, error)) from error
    if root is not None and not isinstance(root, yaml.MappingNode):
        raise ConfigError(f"{name}: a config is a mapping of groups and keys, this is not")
    return entries


def read_overrides(items: Sequence[str]) -> dict[str, Entry]:
    """The entries of ``KEY VALUE KEY VALUE …``, with the values still as text.

    Raises:
        ConfigError: a key without a value.
    """
    if len(items) % 2:
        raise ConfigError(f"overrides come in pairs, KEY VALUE, but {items[-1]!r} has no value")
    pairs = zip(items[::2], items[1::2], strict=True)
    return {str(key): Entry(value, "the overrides") for key, value in pairs}


def _walk(
    loader: yaml.SafeLoader, node: yaml.MappingNode, prefix: str, name: str, into: dict[str, Entry]
) -> None:
    groups: dict[str, int] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        where = f"{name}:{line}"
        if not isinstance(key_node, yaml.ScalarNode) or prefix.count(".") >= MAX_DEPTH:
            raise ConfigError(f"{where}: this is not a key of a config")
        key = prefix + key_node.value
        if isinstance(value_node, yaml.MappingNode) and value_node.value:
            if key in groups:
                raise ConfigError(f"{where}: group {key} is here and on line {groups[key]}")
            groups[key] = line
            _walk(loader, value_node, f"{key}.", name, into)
            continue
        value = loader.construct_object(value_node, deep=True)
        if key in into and into[key].value != value:
            before = into[key]
            logger.warning(
                "%s: %s is %s here and %s at %s; the last one is used",
                *(where, key, value, before.value, before.where),
            )
        into[key] = Entry(value, where)


def _yaml_problem(name: str, error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    place = f"{name}:{mark.line + 1}" if mark else name
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"{place}: not valid YAML: {problem}"
