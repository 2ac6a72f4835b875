"""Configs written for PySlowFast: keys and values that have another name here, or no effect.

The table of the keys is pyslowfast.yaml beside this file.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any

import yaml

from videonet.config.keys import KEYS
from videonet.config.reading import Entry
from videonet.config.values import plain
from videonet.errors import ConfigError

logger = logging.getLogger(__name__)

# Values of PySlowFast that are only another word for one of ours.
SYNONYMS = {
    ("DATA.DECODING_BACKEND", "torchvision"): "auto",
    ("SOLVER.OPTIMIZING_METHOD", "mt_adamw"): "adamw",
    ("MODEL.MODEL_NAME", "PTVMViT"): "MViT",
    **{
        (f"{split}.DATASET", theirs): ours
        for split in ("TRAIN", "TEST")
        for theirs, ours in (
            *(("Kinetics", "kinetics"), ("ptvkinetics", "kinetics"), ("Ptvkinetics", "kinetics")),
            *(("Ssv2", "ssv2"), ("ptvssv2", "ssv2"), ("Ptvssv2", "ssv2")),
            *(("imagenet", "folder"), ("Imagenet", "folder")),
        )
    },
}
OURS = ("MViT", "PTVMViT")  # values of MODEL.MODEL_NAME
NAMING = ("MODEL.MODEL_NAME", "MODEL.ARCH")  # keys that MODEL.NAME takes the place of
# What PySlowFast's image data set does whatever the config says, in our keys: a random resized
# crop, and one central crop to test.
IMAGES = {
    "DATA.TRAIN_JITTER_SCALES_RELATIVE": [0.08, 1.0],
    "DATA.TRAIN_JITTER_ASPECT_RELATIVE": [3 / 4, 4 / 3],
    "TEST.CROP_RATIO": 0.875,
    "TEST.NUM_ENSEMBLE_VIEWS": 1,
    "TEST.NUM_SPATIAL_CROPS": 1,
}


@functools.cache
def _table() -> dict[str, Any]:
    text = resources.files("videonet.config").joinpath("pyslowfast.yaml").read_text("utf-8")
    table = yaml.safe_load(text)
    defaults = {
        f"{group}.{name}": default
        for group, members in table["not_implemented"].items()
        for name, default in members.items()
    }
    return table | {"not_implemented": defaults}


@functools.cache
def groups() -> set[str]:
    """The dotted names of all groups of PySlowFast that hold keys of the table."""
    table = _table()
    found = {*table["no_effect_groups"]}
    for section in table.values():
        for key in section:
            found.update(_groups_of(key))
    return found


def _groups_of(key: str) -> list[str]:
    """``A.B.C`` gives ``A`` and ``A.B``."""
    parts = key.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]


def refuse_absent(entries: Mapping[str, Entry]) -> None:
    """Refuse a config that asks for a model or method that videonet does not have.

    Called first, so that no other fault of such a config is reported instead.

    Args:
        entries: what the config gives, by dotted key.

    Raises:
        ConfigError: it asks for such a model or method.
    """
    found: dict[str, str] = {}
    for key, values in _table()["absent"].items():
        entry = entries.get(key)
        if entry is None or (key in NAMING and _names_ours(entries)):
            continue
        if key == "MODEL.ARCH" and "MODEL.MODEL_NAME" in entries:
            continue  # MODEL_NAME decides; older files have ARCH alone
        value = plain(entry.value)
        what = values.get(value) if isinstance(value, str | bool) else None
        if key == "MODEL.MODEL_NAME" and what is None and value not in OURS:
            what = f"The model {value}"
        if what is not None:
            found.setdefault(what, f"{key} in {entry.where} is {entry.value}")
    if found:
        named = "; ".join(f"{what} is not in videonet ({why})" for what, why in found.items())
        raise ConfigError(
            f"{named}. MODEL.NAME takes any name of list_models(), and docs/pyslowfast.md says "
            "which configs of PySlowFast run"
        )


def _names_ours(entries: Mapping[str, Entry]) -> bool:
    return "MODEL.NAME" in entries and bool(entries["MODEL.NAME"].value)


def implied(entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """Keys of videonet that follow from keys of PySlowFast, where a config does not give them.

    Args:
        entries: what the config gives, by dotted key.

    Raises:
        ConfigError: ``DATA.ENSEMBLE_METHOD`` contradicts ``TEST.ENSEMBLE``, or has no such value.
    """
    found: dict[str, Entry] = {}
    for split in ("TRAIN", "TEST"):
        entry = entries.get(f"{split}.DATASET")
        if entry is not None and str(entry.value).lower() == "imagenet":
            where = f"{split}.DATASET {entry.value} in {entry.where}"
            found |= {key: Entry(value, where) for key, value in IMAGES.items()}
            ratio = entries.get("DATA.IN_VAL_CROP_RATIO")
            if ratio is not None:
                found["TEST.CROP_RATIO"] = ratio
    clips = entries.get("TEST.NUM_TEMPORAL_CLIPS")
    numbers = plain(clips.value) if clips is not None else None
    if clips is not None and isinstance(numbers, list) and _are_integers(numbers):
        found["TEST.NUM_ENSEMBLE_VIEWS"] = Entry(max(numbers), clips.where)
    found.update(_ensemble(entries))
    found = {key: entry for key, entry in found.items() if key not in entries}
    for key, entry in found.items():
        logger.info("%s is %s, as %s implies", key, entry.value, entry.where)
    return found


def _are_integers(numbers: list[Any]) -> bool:
    return bool(numbers) and all(type(n) is int for n in numbers)


def _ensemble(entries: Mapping[str, Entry]) -> Iterator[tuple[str, Entry]]:
    """``TEST.ENSEMBLE`` by ``DATA.ENSEMBLE_METHOD``: sum (of softmax scores) or max."""
    theirs, ours = entries.get("DATA.ENSEMBLE_METHOD"), entries.get("TEST.ENSEMBLE")
    if theirs is None or theirs.value == "sum":
        return
    place = f"DATA.ENSEMBLE_METHOD in {theirs.where} is {theirs.value!r}, but must be"
    if theirs.value != "max":
        raise ConfigError(f"{place} sum or max")
    if ours is not None and ours.value != "max":
        raise ConfigError(f"{place} sum, as TEST.ENSEMBLE in {ours.where} is {ours.value}")
    yield "TEST.ENSEMBLE", theirs


def accept(key: str, entry: Entry) -> bool:
    """Whether `key` is one of PySlowFast's that can be passed over.

    Raises:
        ConfigError: videonet does not implement the key, and its value is not the one that
            videonet works by.
    """
    table = _table()
    if key in table["read_as"]:
        return True
    reason = no_effect(key)
    if reason:
        logger.info("%s in %s has no effect: %s", key, entry.where, reason)
        return True
    if key in table["one_of"]:
        values, why = table["one_of"][key]["values"], table["one_of"][key]["reason"]
        if plain(entry.value) not in values:
            allowed = " or ".join(map(str, values))
            raise ConfigError(
                f"{key} in {entry.where} is {entry.value!r}, but must be {allowed}, as {why}"
            )
        return True
    if key not in table["not_implemented"]:
        return False
    default = table["not_implemented"][key]
    # Text stays text: the default "1d" is not a number.
    same = entry.value == default or plain(entry.value) == plain(default)
    if not same:
        raise ConfigError(
            f"{key} in {entry.where} is {entry.value!r}, but videonet does not implement this key "
            f"of PySlowFast and accepts only its default {default!r}"
        )
    return True


def no_effect(key: str) -> str | None:
    """Why nothing follows from a key of PySlowFast; None for any other key."""
    table = _table()
    if key in table["no_effect"]:
        return table["no_effect"][key]
    reasons = (table["no_effect_groups"].get(group) for group in _groups_of(key))
    return next(filter(None, reasons), None)


def describe(key: str) -> str | None:
    """What becomes of a key of PySlowFast that videonet does not have; None for any other key."""
    table = _table()
    if key in table["read_as"]:
        return f"PySlowFast's name of {table['read_as'][key]}."
    if key in table["one_of"]:
        allowed = " or ".join(map(str, table["one_of"][key]["values"]))
        return f"A key of PySlowFast. Must be {allowed}, as {table['one_of'][key]['reason']}."
    if key in table["not_implemented"]:
        default = table["not_implemented"][key]
        return f"A key of PySlowFast that is not implemented: it must be {default!r}, the default."
    if key in table["absent"] and key not in KEYS and key not in table["no_effect"]:
        return "A key of PySlowFast that asks for what videonet does not have."
    reason = no_effect(key)
    return f"A key of PySlowFast without effect: {reason}." if reason else None
