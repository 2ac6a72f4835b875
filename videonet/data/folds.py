"""Parts of a list of videos that are held out one after the other, groups as a whole."""

from __future__ import annotations

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from videonet.data.texts import read_text
from videonet.errors import DataError

NAMES = ("id", "video", "path", "file", "video_id", "name")  # columns that name a video


def read_groups(path: Path, column: str) -> dict[str, str]:
    """The group of each video of a table.

    Args:
        path: a CSV file whose first line names its columns, one of them one of ``NAMES``.
        column: the one that names the group.

    Returns:
        By what the table calls a video, and by the name of its file without folders and ending,
        where no other one in the table has that name and another group.

    Raises:
        DataError: the table cannot be read or lacks a column.
    """
    rows = list(csv.DictReader(io.StringIO(read_text(path, "table of groups"))))
    columns = list(rows[0]) if rows else []
    name = next((name for name in NAMES if name in columns), None)
    if name is None or column not in columns:
        raise DataError(
            f"{path}: its columns are {', '.join(map(str, columns)) or 'none'}, expected {column} "
            f"(PROBE.GROUP_COLUMN) and one of {', '.join(NAMES)}"
        )
    whole = {row[name] or "": row[column] or "" for row in rows}
    stems: dict[str, set[str]] = defaultdict(set)
    for video, group in whole.items():
        stems[Path(video).stem].add(group)
    return {stem: group for stem, (group, *others) in stems.items() if not others} | whole


def groups_of(paths: Sequence[str], groups: dict[str, str], origin: str) -> list[str]:
    """The group of each video; one whose group is empty belongs with no other.

    Args:
        paths: of the videos.
        groups: see :func:`read_groups`.
        origin: the table, for messages.

    Raises:
        DataError: a video is not in the table.
    """
    found = [groups.get(path, groups.get(Path(path).stem)) for path in paths]
    missing = [path for path, group in zip(paths, found, strict=True) if group is None]
    if missing:
        raise DataError(
            f"{origin} names no group of {missing[0]} ({len(missing)} of {len(paths)} videos are "
            "missing)"
        )
    return [group or path for path, group in zip(paths, found, strict=True)]


def divide(labels: Sequence[int], groups: Sequence[str], folds: int, seed: int) -> np.ndarray:
    """The fold of each video: groups stay together, classes are spread as evenly as they allow.

    Args:
        labels: classes of the videos.
        groups: of the videos.
        folds: how many there are.
        seed: of the order among groups of the same size.

    Returns:
        (videos,) int64, 0 … folds - 1.

    Raises:
        DataError: there are fewer groups than folds.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        members[group].append(index)
    if len(members) < folds:
        raise DataError(
            f"the training videos are {len(members)} groups, fewer than the {folds} parts of "
            "PROBE.FOLDS"
        )
    names = sorted(members)
    np.random.default_rng(seed).shuffle(names)
    names.sort(key=lambda name: -len(members[name]))  # large ones first; the order stays otherwise
    held: list[Counter[int]] = [Counter() for _ in range(folds)]
    fold_of = np.empty(len(labels), dtype=np.int64)
    for name in names:
        content = Counter(labels[index] for index in members[name])
        cost = [
            (sum(count * fold[label] for label, count in content.items()), fold.total())
            for fold in held
        ]
        best = cost.index(min(cost))
        held[best].update(content)
        fold_of[members[name]] = best
    return fold_of
