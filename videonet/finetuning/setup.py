"""From a folder of videos to the folder of a run: lists, configuration, choices in words."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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
from videonet.finetuning.facts import DataFacts, VideoFacts, facts_of, find_copies
from videonet.finetuning.groups import find_groups
from videonet.finetuning.motions import MOTIONS, motion_weights
from videonet.finetuning.plan import (
    FRAMES,
    MINUTES,
    choose_balance,
    choose_recipe,
    choose_schedule,
    choose_weights,
    fitting_side,
    keep_frames,
    machine_keys,
)
from videonet.finetuning.probe_plan import (
    GROUPS,
    HALF,
    ProbeSpeed,
    choose_folds,
    choose_precision,
    choose_probe,
    first_clips,
    image_arguments,
)
from videonet.finetuning.sources import Labelled, find_labelled, without_classes
from videonet.finetuning.split import hold_out, together
from videonet.finetuning.start import (
    config_from,
    divides,
    find_weights,
    probe_speed,
    seconds_per_clip,
    this_machine,
)
from videonet.finetuning.state import (
    Asked,
    Clip,
    State,
    mark_of,
    read_state,
    refuse_another,
    units_of,
    write_state,
)

logger = logging.getLogger(__name__)

DATA = "data"  # folder of the lists, below that of the run
BUSY = 1.3  # times that a step takes longer where every clip is decoded on the same cores
Measure = Callable[[CfgNode, int], Any]  # seconds of a training clip, or what takes how long


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
        measure: times a training clip; None for :func:`seconds_per_clip`, or of kept features for
            :func:`probe_speed`.

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
    state = _choose(asked, found, videos, machine, overrides, measure)
    _write_lists(folder / DATA, state)
    cfg = config_from(_placed(state.config, folder), overrides)
    state = replace(state, mark=mark)
    for choice in state.choices:
        logger.info("%s", choice)
    write_state(folder, state)
    return state, cfg


def remove_frames(folder: Path) -> None:
    """Take away the decoded frames of a run that has ended."""
    frames = folder / DATA / FRAMES
    if frames.is_dir():
        shutil.rmtree(frames)


def _placed(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The configuration with the places of this folder, which may have been moved."""
    place = folder.absolute()
    data = config["DATA"] | {"PATH_TO_DATA_DIR": str(place / DATA)}
    if data.get("FRAME_STORE"):
        data["FRAME_STORE"] = str(place / DATA / data["FRAME_STORE"])
    probe = dict(config.get("PROBE", {}))
    if probe.get("GROUPS"):
        probe["GROUPS"] = str(place / DATA / probe["GROUPS"])
    return {**config, "DATA": data, "PROBE": probe, "OUTPUT_DIR": str(place)}


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
    measure: Measure | None,
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
    facts = facts_of(videos, found.classes, held)
    if not facts.num_train:
        raise DataError(f"{found.place}: there is no video to train with, all are held out")
    joined = together(len(videos), groups.names, copies.of)
    folds = choose_folds(
        [unit for k, unit in enumerate(joined) if k not in held], grouped=bool(groups.names)
    )
    name, repeats, more, keys = _planned(asked, facts, folds, machine, overrides, measure)
    choices = [_split(facts, why, len(copies.same) + len(copies.alike)), *more]
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
        copies.same, copies.alike, machine.name or f"{machine.device}, {machine.cores} cores", name,
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


def _planned(
    asked: Asked,
    facts: DataFacts,
    folds: Choice,
    machine: Machine,
    overrides: Sequence[str],
    measure: Measure | None,
) -> tuple[str, Sequence[int], list[Choice], dict[str, Any]]:
    """The recipe's name, how often each class comes in an epoch, the choices, and all keys."""
    weights, start = choose_weights(
        facts, machine, _weights(asked, overrides), str(cache_folder() / "weights")
    )
    name, recipe = choose_recipe(facts, machine, weights, asked.recipe)
    repeats, balance = choose_balance(facts, name)
    plan = _Plan(asked, facts, machine, weights, name, [start, recipe], overrides)
    if name == "probe":
        more, keys = plan.of_features(folds, measure)
    else:
        each = sum(n * times for n, times in zip(facts.train, repeats, strict=True))
        more, keys = plan.of_training(each, measure or seconds_per_clip)
    choices = [start, recipe, *more]
    return name, repeats, [balance, *choices], configuration(keys, choices)


@dataclass(frozen=True)
class _Plan:
    """What is known when the length of a training is chosen."""

    asked: Asked
    facts: DataFacts
    machine: Machine
    weights: StartingWeights
    name: str
    begun: Sequence[Choice]  # what was chosen before
    overrides: Sequence[str]

    @property
    def minutes(self) -> float:
        return self.asked.minutes or MINUTES["cuda" if self.machine.fast else "cpu"]

    def _base(self) -> dict[str, Any]:
        """The keys that are no choice."""
        lists = {
            "TEST.ENABLE": bool(self.facts.num_val),
            "MODEL.NUM_CLASSES": len(self.facts.classes),
            "RNG_SEED": self.asked.seed,
            "DEVICE": "auto",
            "TEST.BATCH_SIZE": 16,
        }
        return configuration(self.weights.config, [Choice("data", "", "", lists)])

    def _measured(self, choices: Sequence[Choice], measure: Measure) -> Any:
        """What a measure gives for a configuration."""
        cfg = config_from(configuration(self._base(), [*self.begun, *choices]), self.overrides)
        half = " in bf16" if self.machine.device == "cpu" and cfg.TRAIN.MIXED_PRECISION else ""
        logger.info("measuring how fast %s is here%s", model_arguments(cfg)[0], half)
        return measure(cfg, len(self.facts.classes))

    def of_training(self, videos: int, measure: Measure) -> tuple[list[Choice], dict[str, Any]]:
        """The choices of a training with so many videos an epoch, and further keys."""
        asked, facts, machine, weights = self.asked, self.facts, self.machine, self.weights
        choices = choose_clips(facts, machine, weights, frames=asked.frames, size=asked.size)
        choices.append(machine_keys(machine))
        place = next(k for k, c in enumerate(choices) if c.what == "size of a frame")
        side, decoded = _sides(choices[place])
        seconds = self._measured(choices, measure)
        if not machine.fast and not keep_frames(facts, decoded, 2):
            seconds *= BUSY
        free = not asked.size and not weights.size and not asked.epochs
        smaller = side
        if free:
            smaller = fitting_side(self.name, machine, videos, side, seconds, self.minutes)
        if smaller < side:
            why = f"{choices[place].why}, but {side} pixels would take longer than"
            choices[place] = sided(smaller, f"{why} {self.minutes:g} minutes")
            seconds *= (smaller / side) ** 2
        schedule = choose_schedule(
            self.name, machine, videos, seconds, self.minutes,
            validated=facts.num_val > 0, asked=asked.epochs,
        )  # fmt: skip
        kept = keep_frames(facts, _sides(choices[place])[1], schedule.epochs)
        return [*choices, *schedule.choices, *kept], self._base()

    def of_features(
        self, folds: Choice, measure: Measure | None
    ) -> tuple[list[Choice], dict[str, Any]]:
        """The choices of features that are computed once, and further keys."""
        asked, facts, machine, weights = self.asked, self.facts, self.machine, self.weights
        clips = first_clips(facts, machine, weights, frames=asked.frames, size=asked.size)
        frames = clips[0].keys["DATA.NUM_FRAMES"]
        seen = image_arguments(weights, frames, divides=weights.frames == 1 and divides(weights))
        own = [seen] if seen else []
        measure = measure or probe_speed
        speed: ProbeSpeed = self._measured([*clips, *own], measure)
        if machine.device == "cpu":
            half = self._measured([*clips, *own, Choice("precision", "bf16", "", HALF)], measure)
            speed, precision = choose_precision(speed, half)
            own += [precision] if precision else []
        speed = replace(speed, clip=speed.clip * (1 if machine.fast else BUSY))
        plan = choose_probe(
            facts, machine, weights, clips, speed, self.minutes, folds,
            frames=asked.frames, size=asked.size, epochs=asked.epochs,
        )  # fmt: skip
        return [*own, *plan.choices], self._base()


def _sides(size: Choice) -> tuple[int, int]:
    """Of a frame in pixels: what the model sees, and what it is cut from."""
    return size.keys["DATA.TRAIN_CROP_SIZE"], size.keys["DATA.TRAIN_JITTER_SCALES"][1]


def _weights(asked: Asked, overrides: Sequence[str]) -> list[StartingWeights]:
    """The weights that the training may start from."""
    if asked.weights == MOTIONS:
        return [motion_weights(given=True)]
    if asked.weights:
        return find_weights(asked.weights, overrides)
    if asked.recipe == "scratch":
        return []
    return [*find_weights(""), motion_weights(given=False)]


def _write_lists(folder: Path, state: State) -> None:
    """The lists of both parts, the names of the classes, and a table of everything."""
    write_list(folder / "train.csv", state.of_part("train"), state.repeats)
    write_list(folder / "val.csv", state.of_part("val"))
    units = zip((clip.path for clip in state.clips), units_of(state), strict=True)
    write_table(folder / GROUPS, ["path", "group"], units)
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
