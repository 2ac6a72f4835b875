"""PySlowFast's configs: what in them has another word here, no effect, or no counterpart."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from importlib import resources
from typing import Any

import yaml

from videonet.config.defaults import flatten
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
    return table | {"not_implemented": flatten(table["not_implemented"])}


def groups() -> set[str]:
    """The dotted names of all groups that hold such keys."""
    table = _table()
    found = set()
    for key in (*table["not_implemented"], *table["no_effect"], *table["absent"]):
        found.update(_above(key))
    for key in table["no_effect_groups"]:
        found.update((key, *_above(key)))
    return found


def _above(key: str) -> list[str]:
    parts = key.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]


def refuse_absent(entries: Mapping[str, Entry]) -> None:
    """Say what a config asks for that videonet does not have, before anything else is said of it.

    Raises:
        ConfigError: it asks for such a model or method.
    """
    found: dict[str, str] = {}
    for key, values in _table()["absent"].items():
        entry = entries.get(key)
        if entry is None or (key in NAMING and _names_ours(entries)):
            continue
        if key == "MODEL.ARCH" and "MODEL.MODEL_NAME" in entries:
            continue  # which decides; older files have the other one alone
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
    """What PySlowFast does beside the keys of a config, as keys that the config leaves open."""
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
    if isinstance(numbers, list) and numbers and all(type(n) is int for n in numbers):
        found["TEST.NUM_ENSEMBLE_VIEWS"] = Entry(max(numbers), clips.where)
    found = {key: entry for key, entry in found.items() if key not in entries}
    for key, entry in found.items():
        logger.info("%s is %s, as %s implies", key, entry.value, entry.where)
    return found


def accept(key: str, entry: Entry) -> bool:
    """Whether `key` is one of PySlowFast's that can be passed over.

    Raises:
        ConfigError: videonet does not implement the key and it is not at PySlowFast's default.
    """
    table = _table()
    reasons = [table["no_effect_groups"].get(group) for group in _above(key)]
    reason = table["no_effect"].get(key) or next(filter(None, reasons), None)
    if reason:
        logger.info("%s in %s has no effect: %s", key, entry.where, reason)
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
