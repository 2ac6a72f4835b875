"""YAML files and KEY VALUE overrides as entries by dotted key that know where they were written."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from videonet.config.keys import MAPPINGS
from videonet.errors import ConfigError

logger = logging.getLogger(__name__)

BASE_KEY = "_BASE_"  # fvcore's key for the file(s) that a config starts from
# Limits on what a config may be: a file from elsewhere must not occupy the machine.
MAX_FILES = 100  # that a config starts from, one after the other
MAX_DEPTH = 8  # groups within groups
MAX_NESTING = 20  # lists and mappings within each other
MAX_CHARACTERS = 250_000  # YAML is read at about 100 kB a second
MAX_VALUES = 100_000  # with every alias written out
MAX_DIGITS = 100  # of a number
MAX_SHOWN = 80  # characters of a value in a message


@dataclass(frozen=True)
class Entry:
    """One value as written.

    Attributes:
        value: of a file, what its YAML stands for; of the overrides, usually text.
        where: the place of it: ``x.yaml:12`` or ``the overrides``.
    """

    value: Any
    where: str


def with_home(name: str | Path) -> Path:
    """A path with its ``~`` written out; as it is where there is no such user."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        return Path(name)


def read_yaml(path: Path) -> list[dict[str, Entry]]:
    """The entries of a config file and of what it inherits from, by dotted key.

    Python tags are not read. A key given twice with different values is logged; the last one wins.

    Returns:
        One dictionary per file, those of ``_BASE_`` first.

    Raises:
        ConfigError: the file cannot be read, is not a YAML mapping, inherits from itself, or
            starts from more than ``MAX_FILES`` files.
    """
    return _read_file(path, (), [])


def _read_file(path: Path, chain: tuple[Path, ...], read: list[Path]) -> list[dict[str, Entry]]:
    """`chain`: the files that inherit from this one; `read`: all that were read before."""
    read.append(path)
    if len(read) > MAX_FILES:
        raise ConfigError(f"{read[0]}: through {BASE_KEY} it reads more than {MAX_FILES} files")
    if path.resolve() in chain:
        raise ConfigError(f"{path}: the config inherits from itself through {BASE_KEY}")
    try:
        if path.stat().st_size > 4 * MAX_CHARACTERS:
            raise ConfigError(f"{path} is too large for a config ({path.stat().st_size:,} bytes)")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read config {path}: {error}") from error
    own = read_text(text, str(path))
    base = own.pop(BASE_KEY, Entry([], ""))
    layers: list[dict[str, Entry]] = []
    for name in _base_names(base):
        parent = path.parent / with_home(name)
        if not os.path.isfile(parent):  # unlike Path.is_file False for names that are too long
            what = "is a folder" if os.path.isdir(parent) else "does not exist"
            raise ConfigError(f"{base.where}: {BASE_KEY} names {shown(str(parent))}, which {what}")
        layers += _read_file(parent, (*chain, path.resolve()), read)
    return [*layers, own]


def read_text(text: str, name: str) -> dict[str, Entry]:
    """The entries of YAML text by dotted key.

    Args:
        text: YAML.
        name: stands for the text in messages.

    Raises:
        ConfigError: the text is not a YAML mapping.
    """
    entries: dict[str, Entry] = {}
    loader, root = _compose(text, name)
    if isinstance(root, yaml.MappingNode):
        _walk(loader, root, "", name, entries)
    elif root is not None:
        raise ConfigError(f"{name}: a config is a mapping of groups and keys, this is not")
    return entries


def read_value(text: str, where: str) -> Any:
    """The value that YAML text stands for; the text itself where it is no YAML.

    Args:
        text: the value as written.
        where: the place of it, for messages.

    Raises:
        ConfigError: the value goes beyond the limits.
    """
    try:
        loader, node = _compose(text, where)
    except _InvalidYaml:
        return text
    return None if node is None else _construct(loader, node, where, text)


def shown(value: Any) -> str:
    """A value for a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


class _InvalidYaml(ConfigError):
    """Text that is not YAML."""


def _compose(text: str, name: str) -> tuple[yaml.SafeLoader, yaml.Node | None]:
    """The nodes of YAML text that keeps to the limits."""
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(
            f"{name}: {len(text):,} characters are too many for a config, {MAX_CHARACTERS:,} are "
            "allowed"
        )
    try:
        _check_nesting(text, name)  # before nodes are made, which is done recursively
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
    except yaml.YAMLError as error:
        raise _InvalidYaml(_yaml_problem(name, error)) from error
    if root is not None:
        _count_values(root, name, {})
    return loader, root


def _check_nesting(text: str, name: str) -> None:
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_NESTING:
            line = event.start_mark.line + 1
            raise ConfigError(
                f"{name}:{line}: more than {MAX_NESTING} lists and groups within each other"
            )


def _count_values(node: yaml.Node, name: str, known: dict[int, int | None]) -> int:
    """Values of a node with its aliases written out; None in `known` while a node is counted."""
    line = node.start_mark.line + 1
    if id(node) in known:
        count = known[id(node)]
        if count is None:
            raise ConfigError(f"{name}:{line}: this value contains itself")
        return count
    known[id(node)], count = None, 1
    if isinstance(node, yaml.SequenceNode):
        count += sum(_count_values(child, name, known) for child in node.value)
    elif isinstance(node, yaml.MappingNode):
        count += sum(_count_values(child, name, known) for pair in node.value for child in pair)
    if count > MAX_VALUES:
        raise ConfigError(
            f"{name}:{line}: with its aliases written out this has more than {MAX_VALUES:,} values"
        )
    known[id(node)] = count
    return count


def _construct(loader: yaml.SafeLoader, node: yaml.Node, where: str, key: str) -> Any:
    """The Python value of a node.

    Raises:
        ConfigError: it is a number or date that cannot be one, or of a type that is not read.
    """
    for scalar in _scalars(node):
        numeric = scalar.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
        if numeric and len(scalar.value) > MAX_DIGITS:
            raise ConfigError(f"{where}: a number of {len(scalar.value):,} digits in {shown(key)}")
    try:
        return loader.construct_object(node, deep=True)
    except yaml.YAMLError as error:
        raise ConfigError(_yaml_problem(where.rpartition(":")[0] or where, error)) from error
    # An explicit tag, !!int or !!bool, before text that is none fails in many ways.
    except (ValueError, OverflowError, TypeError, LookupError, AttributeError) as error:
        raise ConfigError(f"{where}: {shown(key)} has no valid value: {error}") from error


def _scalars(node: yaml.Node) -> Iterator[yaml.ScalarNode]:
    if isinstance(node, yaml.ScalarNode):
        yield node
    elif isinstance(node, yaml.SequenceNode):
        for child in node.value:
            yield from _scalars(child)
    else:
        for pair in node.value:
            for child in pair:
                yield from _scalars(child)


def _base_names(base: Entry) -> list[str]:
    """The files that ``_BASE_`` names; none where it is empty."""
    names = base.value if isinstance(base.value, list) else [base.value]
    if base.value in (None, ""):
        return []
    for name in names:
        if not isinstance(name, str) or not name:
            raise ConfigError(
                f"{base.where}: {BASE_KEY} is {shown(base.value)}, expected the name of a config "
                "or a list of names"
            )
    return names


def read_overrides(items: Sequence[str]) -> dict[str, Entry]:
    """The entries of ``KEY VALUE …`` and ``KEY=VALUE …``, with the values still as text.

    Args:
        items: the words; of a key that comes twice the last value is used.

    Raises:
        ConfigError: a key without a value.
    """
    entries: dict[str, Entry] = {}
    words = iter(items)
    for word in words:
        key, equals, value = str(word).partition("=")
        if not equals:
            try:
                value = next(words)
            except StopIteration:
                raise ConfigError(
                    f"overrides come in pairs, KEY VALUE, but {key!r} has no value"
                ) from None
        if key.rpartition(".")[0] in MAPPINGS and isinstance(value, str):
            value = read_value(value, f"{key} in the overrides")
        entries.pop(key, None)  # so that the order is that of the last values
        entries[key] = Entry(value, "the overrides")
    return entries


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
        is_group = isinstance(value_node, yaml.MappingNode) and value_node.value
        if is_group and prefix.removesuffix(".") not in MAPPINGS:
            if key in groups:
                raise ConfigError(f"{where}: group {key} is here and on line {groups[key]}")
            groups[key] = line
            _walk(loader, value_node, f"{key}.", name, into)
            continue
        value = _construct(loader, value_node, where, key)
        if key in into and into[key].value != value:
            before = into[key]
            logger.warning(
                "%s: %s is %s here and %s at %s; the last one is used",
                *(where, key, shown(value), shown(before.value), before.where),
            )
        into[key] = Entry(value, where)


def _yaml_problem(name: str, error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    place = f"{name}:{mark.line + 1}" if mark else name
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"{place}: not valid YAML: {problem}"
