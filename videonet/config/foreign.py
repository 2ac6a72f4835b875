"""PySlowFast keys that videonet does not read: accepted where nothing depends on them."""

from __future__ import annotations

import functools
import logging
from importlib import resources
from typing import Any

import yaml

from videonet.config.defaults import flatten
from videonet.config.reading import Entry
from videonet.config.values import plain
from videonet.errors import ConfigError

logger = logging.getLogger(__name__)


@functools.cache
def _table() -> tuple[dict[str, Any], dict[str, str]]:
    text = resources.files("videonet.config").joinpath("pyslowfast.yaml").read_text("utf-8")
    table = yaml.safe_load(text)
    return flatten(table["not_implemented"]), table["no_effect"]


def groups() -> set[str]:
    """The dotted names of all groups that hold such keys."""
    not_implemented, no_effect = _table()
    found = {key for key in no_effect if "." not in key}
    for key in not_implemented:
        parts = key.split(".")
        found.update(".".join(parts[:i]) for i in range(1, len(parts)))
    return found


def accept(key: str, entry: Entry) -> bool:
    """Whether `key` is one of PySlowFast's that can be passed over.

    Raises:
        ConfigError: videonet does not implement the key and it is not at PySlowFast's default.
    """
    not_implemented, no_effect = _table()
    reason = no_effect.get(key) or no_effect.get(key.partition(".")[0])
    if reason:
        logger.info("%s in %s has no effect: %s", key, entry.where, reason)
        return True
    if key not in not_implemented:
        return False
    default = not_implemented[key]
    # Text stays text: the default "1d" is not a number.
    same = entry.value == default or plain(entry.value) == plain(default)
    if not same:
        raise ConfigError(
            f"{key} in {entry.where} is {entry.value!r}, but videonet does not implement this key "
            f"of PySlowFast and accepts only its default {default!r}"
        )
    return True
