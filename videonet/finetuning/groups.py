"""Which videos belong together (a person, a scene, a recording), so that a split keeps them so."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from videonet.finetuning.facts import VideoFacts

# Words of names that say whose or where a video is, with the number behind them.
WORDS = {
    word: meaning
    for meaning, words in {
        "person": "person people subject subj sub actor signer user participant patient player "
        "speaker human p",
        "scene": "scene room place location loc house env",
        "group": "group grp g",
        "recording": "session sess recording rec video vid movie",
        "subject": "s",
    }.items()
    for word in words.split()
}
_NUMBERED = re.compile(r"(?<![a-z])([a-z]+)[ _-]?(\d{1,4})(?!\d)")
_CODES = re.compile(r"([a-z])(\d{2,4})")  # S001C002P003R001A004
_DAY = re.compile(r"(?<!\d)((?:19|20)\d{2})[-_]?([01]\d)[-_]?([0-3]\d)(?!\d)")
_COUNTER = re.compile(r"[ _.-]*\(?\d+\)?$")
LARGEST = 0.5  # share of the videos that one group may have
FEWEST = 3  # groups
CORRELATIONS = (0.9, 0.95, 0.98)  # of two pictures of one scene


@dataclass(frozen=True)
class Groups:
    """What belongs together.

    Attributes:
        names: of the group of each video; empty where there are none.
        why: how that was decided, in words.
    """

    names: Sequence[str]
    why: str


def find_groups(
    videos: Sequence[VideoFacts],
    root: str,
    column: tuple[str, Sequence[str]] = ("", ()),
    how: str = "auto",
) -> Groups:
    """What belongs together, by a column, by names, or by look.

    Args:
        videos: all that are used.
        root: folder that their paths start from.
        column: name and values of a column that says so.
        how: "auto" for the first of them that says something; "names", "looks" or "none".
    """
    if how == "none":
        return Groups((), "every video on its own, as asked (--groups none)")
    if column[1] and how == "auto":
        return Groups(list(column[1]), f"by the column {column[0]!r} of the list")
    if how in ("auto", "names"):
        found = by_names([os.path.relpath(v.path, root) for v in videos], [v.label for v in videos])
        if found.names or how == "names":
            return found
    return by_looks(videos)


def by_names(names: Sequence[str], labels: Sequence[int]) -> Groups:
    """Groups by what names of files have in common.

    Args:
        names: paths below the folder of the data.
        labels: number of the class of each.
    """
    stems = [os.path.splitext(os.path.basename(name))[0].lower() for name in names]
    for word in dict.fromkeys(WORDS.values()):
        words = {w for w, meaning in WORDS.items() if meaning == word}
        found = [_number(stem, words) for stem in stems]
        if all(found) and _divides(found, labels):
            return Groups(found, f"by {word}, as the names say ({_some(found)})")
    ways: Sequence[tuple[Callable[[], list[str]], str]] = (
        (lambda: [_folder(name) for name in names], "by the folders inside those of the classes"),
        (lambda: [_day(stem) for stem in stems], "by the day in the names"),
        (lambda: [_COUNTER.sub("", stem) for stem in stems], "by what names begin with"),
    )
    for groups, text in ways:
        found = groups()
        if all(found) and _divides(found, labels):
            return Groups(found, f"{text} ({_some(found)})")
    return Groups((), "the names say of no person, scene or recording")


def _number(stem: str, words: set[str]) -> str:
    """A word of a name with its number, as ``person03``; empty where there is none."""
    for word, number in _NUMBERED.findall(stem):
        if word in words:
            return word + number
    codes = _CODES.findall(stem)
    if len(codes) > 2:  # a name made of codes alone
        return next((letter + number for letter, number in codes if letter in words), "")
    return ""


def _folder(name: str) -> str:
    """The folder between that of the class and the file."""
    parts = name.split(os.sep)[:-1]
    return parts[-1] if len(parts) > 1 else ""


def _day(stem: str) -> str:
    match = _DAY.search(stem)
    return "-".join(match.groups()) if match else ""


def _divides(groups: Sequence[str], labels: Sequence[int]) -> bool:
    """Whether groups are such that videos can be held out by them, for most classes."""
    counts = Counter(groups)
    if not FEWEST <= len(counts) <= 0.7 * len(groups):
        return False
    if max(counts.values()) > LARGEST * len(groups):
        return False
    of_class: dict[int, set[str]] = defaultdict(set)
    for group, label in zip(groups, labels, strict=True):
        of_class[label].add(group)
    several = sum(len(found) > 1 for found in of_class.values())
    return several >= 0.7 * len(of_class)


def _some(names: Sequence[str], most: int = 3) -> str:
    found = sorted(set(names))
    return f"{len(found)} of them: {', '.join(found[:most])}{', …' if len(found) > most else ''}"


def by_looks(videos: Sequence[VideoFacts]) -> Groups:
    """Videos whose mean pictures are alike are of one scene.

    The measure is made stricter where one scene would have most of the videos.
    """
    looks = [video.look for video in videos]
    labels = [video.label for video in videos]
    if len(videos) < 2 * FEWEST or any(look is None for look in looks):
        return Groups((), "too few videos to tell scenes apart: every video on its own")
    scenes = np.array([look.scene for look in looks if look is not None], dtype=np.float32)
    scenes -= scenes.mean(axis=1, keepdims=True)
    scenes /= np.linalg.norm(scenes, axis=1, keepdims=True).clip(1e-6)
    for least in CORRELATIONS:
        found = _connected(scenes, least)
        if _divides_by_look(found, labels):
            several = sum(count > 1 for count in Counter(found).values())
            return Groups(
                found,
                f"by look, as names say nothing: videos whose mean pictures are alike (correlation "
                f"above {least}) stay together, in {several} scenes of several videos and "
                f"{len(set(found)) - several} single ones",
            )
    return Groups(
        (),
        "every video on its own: neither names nor looks tell people or scenes apart, so the same "
        "person or place may be on both sides and the accuracy may be flattering; a list with a "
        "column 'group' would tell",
    )


def _divides_by_look(groups: Sequence[str], labels: Sequence[int]) -> bool:
    counts = Counter(groups)
    of_class: dict[int, set[str]] = defaultdict(set)
    for group, label in zip(groups, labels, strict=True):
        of_class[label].add(group)
    return (
        len(counts) >= FEWEST
        and max(counts.values()) <= LARGEST * len(groups)
        and all(len(found) > 1 for label, found in of_class.items() if labels.count(label) > 2)
    )


def _connected(vectors: np.ndarray, least: float) -> list[str]:
    """Number of the cluster of each row: rows with a product of at least so much are linked."""
    of = list(range(len(vectors)))

    def root(k: int) -> int:
        while of[k] != k:
            of[k] = of[of[k]]
            k = of[k]
        return k

    for row in range(1, len(vectors)):
        for other in np.flatnonzero(vectors[:row] @ vectors[row] >= least):
            of[root(row)] = root(int(other))
    return [f"scene {root(k)}" for k in range(len(vectors))]
