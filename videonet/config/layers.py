"""From what files and overrides say, in their order, to one value per key.

A layer is what one file, or the overrides together, say; a later layer wins over an earlier one.
Names and forms that keys had before are read here as those that they have.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from videonet.config.keys import MAPPINGS
from videonet.config.reading import Entry, read_text, read_value, shown
from videonet.config.values import plain
from videonet.errors import ConfigError

logger = logging.getLogger(__name__)

OLD_NAMES = {"TRAIN.ACCUMULATE": "TRAIN.GRAD_ACCUM_STEPS"}
MVIT_RATE, RATE = "MVIT.DROPPATH_RATE", "MODEL.DROPPATH_RATE"
MVIT_RATE_DEFAULT = 0.1  # PySlowFast's


def is_mvit(name: str, class_name: str) -> bool:
    """Whether ``MODEL.NAME``, or without it ``MODEL.MODEL_NAME``, stands for an MViT."""
    if name:
        return name == "mvit" or name.startswith("mvit_")
    return class_name in ("MViT", "PTVMViT")


def merge_layers(layers: Sequence[Mapping[str, Entry]]) -> dict[str, Entry]:
    """One entry per key; each argument of a mapping has a key, as ``MODEL.ARGUMENTS.patch_size``.

    Args:
        layers: from the first, whose values the others replace, to the last.

    Raises:
        ConfigError: a layer has both the old and the new name of a key, or a mapping is none.
    """
    mvit = _layers_name_an_mvit(layers)
    merged: dict[str, Entry] = {}
    old: dict[str, str] = {}  # what was read in an old form -> how
    for layer in layers:
        for key, entry in _in_new_names(layer, mvit, old).items():
            if key not in MAPPINGS:
                merged[key] = entry
                continue
            for name in [name for name in merged if name.startswith(f"{key}.")]:
                del merged[name]  # a mapping as a whole replaces the earlier one
            for name, value in _mapping(key, entry, old).items():
                merged[f"{key}.{name}"] = Entry(value, entry.where)
    if old:
        said = ", ".join(f"{what} is read as {how}" for what, how in old.items())
        logger.warning("old names: %s", said)
    return merged


def read_settings(text: str, name: str) -> dict[str, Any]:
    """The values in the text of a saved config, by dotted key.

    Args:
        text: YAML without ``_BASE_``.
        name: stands for the text in messages.

    Raises:
        ConfigError: the text is not a YAML mapping.
    """
    return {key: entry.value for key, entry in merge_layers([read_text(text, name)]).items()}


def _layers_name_an_mvit(layers: Sequence[Mapping[str, Entry]]) -> bool:
    found: dict[str, Any] = {}
    for layer in layers:
        found.update((key, entry.value) for key, entry in layer.items())
    return is_mvit(str(found.get("MODEL.NAME") or ""), str(found.get("MODEL.MODEL_NAME")))


def _in_new_names(layer: Mapping[str, Entry], mvit: bool, old: dict[str, str]) -> dict[str, Entry]:
    """A layer without old names; what was renamed is added to `old`."""
    entries = dict(layer)
    for before, now in OLD_NAMES.items():
        entry = entries.pop(before, None)
        if entry is None:
            continue
        if now in entries:
            raise ConfigError(
                f"{before} in {entry.where} is the old name of {now}, which is given in "
                f"{entries[now].where}: remove one"
            )
        entries[now] = entry
        old[f"{before} in {entry.where}"] = now
    rate = entries.pop(MVIT_RATE, None)
    if rate is not None and mvit:
        entries[RATE] = Entry(rate.value, f"{rate.where} ({MVIT_RATE})")
    elif rate is not None and plain(rate.value) != MVIT_RATE_DEFAULT:
        logger.warning(
            "%s in %s has no effect, as the model is no MViT: the key of every model is %s",
            *(MVIT_RATE, rate.where, RATE),
        )
    return entries


def _mapping(key: str, entry: Entry, old: dict[str, str]) -> dict[str, Any]:
    """The values of a mapping by name, from a mapping or from the older ``[[name, value], …]``."""
    value = entry.value
    if isinstance(value, str):
        value = plain(read_value(value, f"{key} in {entry.where}"))
    if isinstance(value, list) and all(map(_is_named_value, value)):
        if value:
            old[f"[[name, value]] of {key} in {entry.where}"] = "a mapping {name: value}"
        value = dict(value)
    elif value is None:
        value = {}
    if not isinstance(value, dict):
        raise ConfigError(
            f"{key} in {entry.where} must be a mapping {{name: value}}, not {shown(entry.value)}"
        )
    return {str(name): item for name, item in value.items()}


def _is_named_value(row: Any) -> bool:
    return isinstance(row, list) and len(row) == 2 and isinstance(row[0], str)
