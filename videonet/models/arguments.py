"""Whether the arguments of a model have the types that its constructor names."""

from __future__ import annotations

import math
import types
from collections.abc import Mapping, Sequence
from typing import Any, Union, get_args, get_origin, get_type_hints

from videonet.errors import ConfigError

WORDS: dict[type, str] = {
    bool: "True or False",
    int: "a whole number from 0",
    float: "a number from 0",
    str: "a word",
    type(None): "None",
}
PLURALS: dict[type, str] = {
    bool: "truth values",
    int: "whole numbers",
    float: "numbers",
    str: "words",
}


def checked_arguments(
    model: str, architecture: type, arguments: Mapping[str, Any]
) -> dict[str, Any]:
    """Arguments of a constructor, compared with its annotations; lists become tuples.

    Args:
        model: the name that messages call the model by.
        architecture: its class. Where the constructor passes keyword arguments on, those of the
            classes above it count too.
        arguments: keyword arguments.

    Raises:
        ConfigError: there is no such argument, or its value is of another type or length.
    """
    hints = constructor_hints(architecture)
    checked = {}
    for name, value in arguments.items():
        if name not in hints:
            raise ConfigError(f"model {model} has no argument {name!r}")
        if not matches(value, hints[name]):
            raise ConfigError(f"model {model}: {name} is {value!r}, expected {wanted(hints[name])}")
        checked[name] = as_tuples(value)
    return checked


def constructor_hints(architecture: type) -> dict[str, Any]:
    """The annotation of every keyword argument that a class can be built with."""
    hints: dict[str, Any] = {}
    for kind in architecture.__mro__:
        if "__init__" not in vars(kind):
            continue
        init = vars(kind)["__init__"]
        hints = {**get_type_hints(init), **hints}
        code = init.__code__
        if not code.co_flags & 0x08:  # no **arguments to pass on
            break
        hints.pop(code.co_varnames[code.co_argcount + code.co_kwonlyargcount], None)
    hints.pop("return", None)
    return hints


def matches(value: Any, hint: Any) -> bool:
    """Whether a value has the type of an annotation; a list is as good as a tuple."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(matches(value, part) for part in parts)
    if fields := _fields(hint):
        return _is_row(value, len(fields)) and all(map(matches, value, fields))
    if origin is tuple and parts[-1] is not Ellipsis:
        return _is_row(value, len(parts)) and all(map(matches, value, parts))
    if origin in (tuple, Sequence):
        return isinstance(value, list | tuple) and all(matches(item, parts[0]) for item in value)
    if origin is Mapping:
        return isinstance(value, Mapping) and all(
            matches(key, parts[0]) and matches(item, parts[1]) for key, item in value.items()
        )
    if hint is bool or isinstance(value, bool):
        return hint is bool and isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and value >= 0
    if hint is float:
        return isinstance(value, int | float) and 0 <= value < math.inf
    return isinstance(value, hint)


def wanted(hint: Any, plural: bool = False) -> str:
    """An annotation in words, for messages."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(wanted(part) for part in parts)
    if fields := _fields(hint):
        names = ", ".join(hint._fields)
        return f"rows of {len(fields)} ({names})" if plural else f"a row of {len(fields)} ({names})"
    if origin is tuple and parts[-1] is not Ellipsis:
        axes = {2: " (height, width)", 3: " (t, h, w)"}.get(len(parts), "")
        row = f"{len(parts)} {wanted(parts[0], plural=True)}{axes}"
        return f"tuples of {row}" if plural else row
    if origin in (tuple, Sequence):
        return f"a list of {wanted(parts[0], plural=True)}"
    if origin is Mapping:
        return f"a mapping from {wanted(parts[0], True)} to {wanted(parts[1], True)}"
    return (PLURALS if plural else WORDS).get(hint) or str(getattr(hint, "__name__", hint))


def as_tuples(value: Any) -> Any:
    """The value with every list in it as a tuple."""
    if isinstance(value, list):
        return tuple(map(as_tuples, value))
    if isinstance(value, Mapping):
        return {key: as_tuples(item) for key, item in value.items()}
    return value


def _fields(hint: Any) -> list[Any]:
    """The annotations of a named tuple's fields; none for anything else."""
    return list(get_type_hints(hint).values()) if hasattr(hint, "_fields") else []


def _is_row(value: Any, length: int) -> bool:
    return isinstance(value, list | tuple) and len(value) == length
