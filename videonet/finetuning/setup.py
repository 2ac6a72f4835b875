"""From a folder of videos to the folder of a run: lists, configuration, choices in words."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from fvcore.common.config import CfgNode

from videonet.checkpoint.download import cache_folder
from videonet.config import model_arguments
from videonet.data.datasets.arrays import PathArray
from videonet.data.datasets.lists import VideoList
from videonet.data.preparing.manifest import (
    fingerprint,
    load_rows,
    manifest_path,
    relative,
    write_manifest,
)
from videonet.data.tables import write_table
from videonet.errors import ConfigError, DataError
from videonet.files import make_folder, replacing_text
from videonet.finetuning.choices import Choice, Machine, StartingWeights, configuration
from videonet.finetuning.clips import choose_clips, sided
from videonet.finetuning.examine import ALL, examine
from videonet.finetuning.facts import DataFacts, VideoFacts, find_copies, together
from videonet.finetuning.groups import find_groups
from videonet.finetuning.motions import MOTIONS, motion_weights
from videonet.finetuning.plan import (
    MINUTES,
    choose_balance,
    choose_recipe,
    choose_schedule,
    choose_weights,
    fitting_side,
    machine_keys,
)
from videonet.finetuning.sources import Labelled, find_labelled, without_classes
from videonet.finetuning.split import hold_out
from videonet.finetuning.start import config_from, find_weights, seconds_per_clip, this_machine
from videonet.finetuning.state import (
    Asked,
    Clip,
    State,
    mark_of,
    read_state,
    refuse_another,
    write_state,
)

logger = logging.getLogger(__name__)

DATA = "data"  # folder of the lists, below that of the run
BUSY = 1.3  # times that a step takes longer where videos are decoded on the same cores
Measure = Callable[[CfgNode, int], float]  # seconds of a training clip


def set_up(
    asked: Asked,
    folder: Path,
    overrides: Sequence[str] = (),
    *,
    device: str = "auto",
    measure: Measure | None = None,
) -> tuple[State, CfgNode]:
    """The choices of a fine-tuning and its configuration: made, or those of the run in a folder.

    Args:
        asked: on the command line.
        folder: of the run.
        overrides: ``KEY VALUE`` pairs on top of what is chosen.
        device: see ``DEVICE``.
        measure: times a training clip; None for :func:`seconds_per_clip`.

    Raises:
        DataError: the videos cannot be used.
        ConfigError: something that is asked for cannot be.
    """
    if "OUTPUT_DIR" in overrides[::2]:
        raise ConfigError("OUTPUT_DIR is the folder of the run: give it by --output")
    found = find_labelled(asked.place, asked.columns)
    logger.info("%s: %d videos of %d classes", asked.place, len(found.paths), len(found.classes))
    mark, before = mark_of(found), read_state(folder)
    if before is not None:
        refuse_another(before, asked, mark, folder)
        logger.info("%s: going on with what was chosen (%s)", folder, "choices.txt")
        return before, config_from(_placed(before.config, folder), overrides)
    make_folder(folder)
    machine = this_machine(device)
    facts = examine(found.paths, found.labels, folder / DATA, workers=machine.cores)
    found, videos = _usable(found, facts)
    state = _choose(asked, found, videos, machine, overrides, measure or seconds_per_clip)
    _write_lists(folder / DATA, state)
    cfg = config_from(_placed(state.config, folder), overrides)
    state = replace(state, mark=mark)
    for choice in state.choices:
        logger.info("%s", choice)
    write_state(folder, state)
    return state, cfg


def _placed(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The configuration with the places of this folder, which may have been moved."""
    place = folder.absolute()
    data = config["DATA"] | {"PATH_TO_DATA_DIR": str(place / DATA)}
    return {**config, "DATA": data, "OUTPUT_DIR": str(place)}


def _usable(found: Labelled, facts: Sequence[VideoFacts]) -> tuple[Labelled, list[VideoFacts]]:
    """Without the videos that cannot be read, and the classes that have none then."""
    bad = [(video.path, video.reason) for video in facts if video.reason]
    for path, why in bad:
        logger.warning("%s is left out: %s", path, why)
    good = [k for k, video in enumerate(facts) if not video.reason]
    if not good:
        path, why = bad[0]
        raise DataError(
            f"{found.place}: none of its {len(facts)} videos can be read; the first, {path}: {why}"
        )
    kept = replace(
        found,
        paths=[found.paths[k] for k in good],
        labels=[found.labels[k] for k in good],
        groups=[found.groups[k] for k in good] if found.groups else (),
        splits=[found.splits[k] for k in good] if found.splits else (),
        left_out=[*found.left_out, *bad],
    )
    empty = [label for label, count in enumerate(kept.counts) if not count]
    if len(kept.classes) - len(empty) < 2:
        name = next(n for n, count in zip(kept.classes, kept.counts, strict=True) if count)
        raise DataError(
            f"{found.place}: only the class {name!r} has videos that can be read ({len(bad)} "
            f"cannot; the first, {bad[0][0]}: {bad[0][1]}), so there is nothing to tell apart"
        )
    kept = without_classes(kept, empty)
    videos = [facts[k] for k in good]
    return kept, [replace(v, label=label) for v, label in zip(videos, kept.labels, strict=True)]


def _choose(
    asked: Asked,
    found: Labelled,
    videos: Sequence[VideoFacts],
    machine: Machine,
    overrides: Sequence[str],
    measure: Measure,
) -> State:
    copies = find_copies(videos)
    root = asked.place if os.path.isdir(asked.place) else os.path.dirname(asked.place)
    groups = find_groups(videos, root, (found.column, found.groups), asked.groups)
    if found.splits:
        held = {k for k, part in enumerate(found.splits) if part == "val"}
        why = "the data are divided already"
    else:
        held = hold_out(
            found.labels, groups.names, copies.of, share=asked.held_out, seed=asked.seed
        )
        why = groups.why
    facts = together(videos, found.classes, held)
    if not facts.num_train:
        raise DataError(f"{found.place}: there is no video to train with, all are held out")
    choices = [_split(facts, why, len(copies.same) + len(copies.alike))]
    repeats, balance = choose_balance(facts)
    choices.append(balance)
    each = sum(n * times for n, times in zip(facts.train, repeats, strict=True))
    plan, keys = _plan(asked, facts, each, machine, overrides, measure)
    choices += plan
    if overrides:
        pairs = [
            f"{key} {value}" for key, value in zip(overrides[::2], overrides[1::2], strict=True)
        ]
        choices.append(Choice("given on the command line", ", ".join(pairs), "it was asked for"))
    clips = [
        Clip(
            os.path.abspath(video.path),
            video.label,
            "val" if k in held else "train",
            groups.names[k] if groups.names else "",
            round(video.seconds, 3),
        )
        for k, video in enumerate(videos)
    ]
    return State(
        asked, "", keys, choices, found.classes, repeats, clips, found.left_out,
        copies.same, copies.alike, machine.name or f"{machine.device}, {machine.cores} cores",
    )  # fmt: skip


def _split(facts: DataFacts, why: str, copies: int) -> Choice:
    text = f"{facts.num_val} of {facts.num_train + facts.num_val} videos"
    missing = [name for name, n in zip(facts.classes, facts.val, strict=True) if not n]
    if not facts.num_val:
        text, why = "none", "no class has a video to spare, so nothing says how good the model is"
    elif missing:
        why += f"; none of {', '.join(missing[:5])}, of which there are too few"
    if copies:
        stay = f"{copies} copies stay" if copies > 1 else "1 copy stays"
        why += f"; {stay} on the side of what it is a copy of"
    return Choice("held out to measure the accuracy", text, why)


def _plan(
    asked: Asked,
    facts: DataFacts,
    videos: int,
    machine: Machine,
    overrides: Sequence[str],
    measure: Measure,
) -> tuple[list[Choice], dict[str, Any]]:
    """The choices of a training with so many videos an epoch, and the configuration."""
    weights, start = choose_weights(
        facts, machine, _weights(asked), str(cache_folder() / "weights")
    )
    name, recipe = choose_recipe(facts, machine, weights, asked.recipe)
    clips = choose_clips(facts, machine, weights, frames=asked.frames, size=asked.size)
    base: dict[str, Any] = dict(weights.config) | {
        "RNG_SEED": asked.seed,
    }
    lists = {"TEST.ENABLE": bool(facts.num_val), "MODEL.NUM_CLASSES": len(facts.classes)}
    fixed = Choice("data", "the lists of this folder", "they are of this run", lists)
    device = Choice("device", machine.name or machine.device, "it is there", {"DEVICE": "auto"})
    choices = [start, recipe, *clips, machine_keys(machine)]
    every = [fixed, device, *choices]
    cfg = config_from(configuration(base, every), overrides)
    minutes = asked.minutes or MINUTES["cuda" if machine.fast else "cpu"]
    logger.info("measuring how fast %s trains here", model_arguments(cfg)[0])
    seconds = measure(cfg, len(facts.classes)) * (1 if machine.fast else BUSY)
    place = next(k for k, c in enumerate(choices) if c.what == "size of a frame")
    side = choices[place].keys["DATA.TRAIN_CROP_SIZE"]
    free = not asked.size and not weights.size and not asked.epochs
    smaller = fitting_side(name, machine, videos, side, seconds, minutes) if free else side
    if smaller < side:
        why = f"{choices[place].why}, but {side} pixels would take longer than {minutes:g} minutes"
        choices[place] = sided(smaller, why)
        seconds *= (smaller / side) ** 2
    schedule = choose_schedule(
        name, machine, videos, seconds, minutes,
        validated=facts.num_val > 0, asked=asked.epochs,
    )  # fmt: skip
    choices += schedule.choices
    return choices, configuration(base, [fixed, device, *choices])


def _weights(asked: Asked) -> list[StartingWeights]:
    """The weights that the training may start from."""
    if asked.weights == MOTIONS:
        return [motion_weights(given=True)]
    if asked.weights:
        return find_weights(asked.weights)
    if asked.recipe == "scratch":
        return []
    return [*find_weights(""), motion_weights(given=False)]


def _write_lists(folder: Path, state: State) -> None:
    """The lists of both parts, the names of the classes, and a table of everything."""
    write_list(folder / "train.csv", state.of_part("train"), state.repeats)
    write_list(folder / "val.csv", state.of_part("val"))
    with replacing_text(folder / "classes.txt") as file:
        file.writelines(f"{name}\n" for name in state.classes)
    used = [
        [clip.path, state.classes[clip.label], clip.part, clip.group, clip.seconds, ""]
        for clip in state.clips
    ]
    others = [[path, "", "left out", "", "", why] for path, why in state.left_out]
    head = ["path", "class", "part", "group", "seconds", "why"]
    write_table(folder / "videos.csv", head, [*used, *others])


def write_list(path: Path, clips: Sequence[Clip], repeats: Sequence[int] = ()) -> None:
    """A list of videos, and a manifest beside it with what is known of them.

    Args:
        path: of the list, beside the manifest of all videos.
        clips: the videos.
        repeats: how often a video of each class is in the list; empty for once.

    Raises:
        WriteError: a file cannot be written.
    """
    listed = [clip for clip in clips for _ in range(repeats[clip.label] if repeats else 1)]
    with replacing_text(path, newline="") as file:
        file.writelines(f"{clip.path} {clip.label}\n" for clip in listed)
    root = str(path.parent)
    videos = VideoList(
        str(path), PathArray([c.path for c in listed]), np.array([c.label for c in listed]), root
    )
    content = load_rows(manifest_path(path.parent / ALL))
    rows = content["rows"] if content else {}
    names = dict.fromkeys(relative(video, root) for video in videos.paths)
    if names and all(name in rows for name in names):
        write_manifest(manifest_path(path), [rows[n] for n in names], fingerprint(videos, rows))
