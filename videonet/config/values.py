"""From what was written to a value of the type that a key has."""

from __future__ import annotations

import ast
import math
from typing import Any

from videonet.config.keys import KEYS
from videonet.config.reading import Entry, read_value, shown
from videonet.errors import ConfigError

# How the types of values are called in messages and in help.
TYPE_NAMES: dict[type, str] = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    tuple: "a list",
    dict: "a mapping",
}
# What None stands for at the keys where PySlowFast's configs use it to switch something off.
NONE_MEANS = {"AUG.COLOR_JITTER": 0.0, "AUG.AA_TYPE": "", "MVIT.POOL_KV_STRIDE": []}
LONGEST_LITERAL = 10_000  # characters of text that may be a Python literal


def plain(value: Any) -> Any:
    """A value with the Python literals in its strings read, and with lists for tuples.

    PySlowFast's configs write tuples as ``(3, 7, 7)``, and YAML 1.1 takes both that and ``1e-6``
    for text.

    Args:
        value: what YAML or an override gave.
    """
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if not isinstance(value, str) or len(value) > LONGEST_LITERAL:
        return value
    try:
        parsed = ast.literal_eval(value)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return value
    return value if isinstance(parsed, str) else plain(parsed)


def convert(key: str, entry: Entry) -> Any:
    """The value of `entry` in the type of a key.

    Whole numbers are taken where a number is expected, and lists and tuples alike.

    Args:
        key: dotted name of the key.
        entry: what was written.

    Raises:
        ConfigError: a value of another type.
    """
    kind, value = KEYS[key].kind, entry.value
    if kind is not str:
        value = plain(
            read_value(value, f"{key} in {entry.where}") if isinstance(value, str) else value
        )
    elif value == "None":
        value = None
    if value is None:
        if KEYS[key].optional:
            return None
        value = NONE_MEANS.get(key)
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        if math.isfinite(value):
            return float(value)
    elif kind in (list, tuple) and isinstance(value, list):
        return kind(value)
    elif type(value) is kind:
        return value
    raise ConfigError(
        f"{key} in {entry.where} must be {TYPE_NAMES[kind]}, not {shown(entry.value)}"
    )
