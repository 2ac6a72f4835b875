"""Turning what was written into the type that a key has."""

from __future__ import annotations

import ast
import math
from typing import Any

from videonet.config.defaults import OPTIONAL
from videonet.config.reading import Entry, read_value, shown
from videonet.errors import ConfigError

EXPECTED = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    tuple: "a list",
}
# What None stands for at the keys where PySlowFast's configs use it to switch something off.
NONE_MEANS = {"AUG.COLOR_JITTER": 0.0, "AUG.AA_TYPE": "", "MVIT.POOL_KV_STRIDE": []}
LONGEST_LITERAL = 10_000  # characters of text that may be a Python literal


def plain(value: Any) -> Any:
    """Python literals inside strings read, tuples as lists.

    PySlowFast's configs write tuples as ``(3, 7, 7)``, and YAML 1.1 takes both that and ``1e-6``
    for text.
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


def convert(key: str, entry: Entry, default: Any) -> Any:
    """The value of `entry` in the type of `default`.

    Whole numbers are taken where a number is expected, and lists and tuples alike.

    Raises:
        ConfigError: a value of another type.
    """
    kind = OPTIONAL.get(key, type(default))
    value = entry.value
    if kind is not str:
        value = plain(
            read_value(value, f"{key} in {entry.where}") if isinstance(value, str) else value
        )
    elif value == "None":
        value = None
    if value is None:
        if key in OPTIONAL:
            return None
        value = NONE_MEANS.get(key)
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        if math.isfinite(value):
            return float(value)
    elif kind in (list, tuple) and isinstance(value, list):
        return kind(value)
    elif type(value) is kind:
        return value
    raise ConfigError(f"{key} in {entry.where} must be {EXPECTED[kind]}, not {shown(entry.value)}")
