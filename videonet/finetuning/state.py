"""What a fine-tuning keeps of itself in its folder: what was asked, found and chosen."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from videonet.data.preparing.manifest import state_of
from videonet.data.texts import read_text
from videonet.errors import ConfigError
from videonet.files import replacing_text
from videonet.finetuning.choices import Choice
from videonet.finetuning.sources import Labelled
from videonet.finetuning.split import together

STATE, CHOICES = "finetune.json", "choices.txt"
FORMAT = 1


@dataclass(frozen=True)
class Asked:
    """What was asked for on the command line; empty and 0 for what is to be chosen.

    Attributes:
        place: the folder or list.
        columns: names of a table's columns by "path", "label", "group", "split".
        weights: to start from, or "none".
        recipe: name of a recipe.
        groups: "auto", "names", "looks" or "none".
        held_out: share of the videos, 0 to 1.
        minutes: that the training may take.
        epochs, frames, size: see :mod:`videonet.finetuning.plan`.
        seed: of all draws.
    """

    place: str
    columns: Mapping[str, str] = field(default_factory=dict)
    weights: str = ""
    recipe: str = ""
    groups: str = "auto"
    held_out: float = 0.2
    minutes: float = 0.0
    epochs: int = 0
    frames: int = 0
    size: int = 0
    seed: int = 0


@dataclass(frozen=True)
class Clip:
    """One video that is used.

    Attributes:
        path: the file.
        label: number of its class.
        part: "train" or "val".
        group: what it belongs to; empty for nothing.
        seconds: its length.
    """

    path: str
    label: int
    part: str
    group: str
    seconds: float


@dataclass(frozen=True)
class State:
    """What a fine-tuning keeps of itself.

    Attributes:
        asked: on the command line.
        mark: stands for the files that were found.
        config: groups of keys.
        choices: what was chosen, and why.
        classes: names.
        repeats: how often a training video of each class comes in an epoch.
        clips: the videos that are used.
        left_out: (path, why) of those that are not.
        same: pairs of places in `clips` with the same content.
        alike: pairs that look the same.
        device: name of the device, for people.
        recipe: its name; empty in what older versions kept.
    """

    asked: Asked
    mark: str
    config: Mapping[str, Any]
    choices: Sequence[Choice]
    classes: Sequence[str]
    repeats: Sequence[int]
    clips: Sequence[Clip]
    left_out: Sequence[tuple[str, str]]
    same: Sequence[tuple[int, int]]
    alike: Sequence[tuple[int, int]]
    device: str
    recipe: str = ""

    def of_part(self, part: str) -> list[Clip]:
        """The videos of a part."""
        return [clip for clip in self.clips if clip.part == part]


def units_of(state: State) -> list[str]:
    """What each video of a state belongs to: its group, with copies joined to it."""
    of = list(range(len(state.clips)))
    for copy, first in (*state.same, *state.alike):
        of[copy] = first
    groups = [clip.group for clip in state.clips]
    return together(len(of), groups if any(groups) else (), of)


def mark_of(found: Labelled) -> str:
    """A hash of names, labels, sizes and times of change of the files that were found."""
    digest = hashlib.sha256()
    for path, label in sorted(zip(found.paths, found.labels, strict=True)):
        line = f"{path}\t{found.classes[label]}\t{state_of(path)}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]


def write_state(folder: Path, state: State) -> None:
    """Write ``finetune.json`` and, in words, ``choices.txt``.

    Raises:
        WriteError: they cannot be written.
    """
    with replacing_text(folder / CHOICES) as file:
        file.writelines(f"{choice}.\n" for choice in state.choices)
    with replacing_text(folder / STATE) as file:
        json.dump({"format": FORMAT, **asdict(state)}, file, indent=1)


def read_state(folder: Path) -> State | None:
    """What a fine-tuning kept in a folder; None where there was none.

    Raises:
        ConfigError: the file is not as :func:`write_state` writes it.
    """
    path = folder / STATE
    if not path.is_file():
        return None
    try:
        content = json.loads(read_text(path, "note of what was chosen"))
        if content.pop("format") != FORMAT:
            raise ValueError("another version")
        pairs = {
            name: [tuple(pair) for pair in content[name]] for name in ("left_out", "same", "alike")
        }
        return State(
            **content
            | pairs
            | {
                "asked": Asked(**content["asked"]),
                "choices": [Choice(**choice) for choice in content["choices"]],
                "clips": [Clip(**clip) for clip in content["clips"]],
            }
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(
            f"{path} cannot be used ({type(error).__name__}: {error}): give another --output"
        ) from None


def refuse_another(state: State, asked: Asked, mark: str, folder: Path) -> None:
    """Refuse to go on in the folder of another fine-tuning.

    Raises:
        ConfigError: something else was asked for there, or the videos were others.
    """
    before, now = asdict(state.asked), asdict(asked)
    for key, value in now.items():
        if before[key] != value:
            raise ConfigError(
                f"{folder} holds a run whose --{key.replace('_', '-')} was {before[key]!r}, and is "
                f"{value!r} here: give another --output to train anew, or the same words to go on"
            )
    if state.mark != mark:
        raise ConfigError(
            f"{folder} holds a run with other videos: files of {asked.place} have come, gone or "
            "changed since; give another --output to train anew"
        )
