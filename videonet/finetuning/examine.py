"""Looking at every video before anything is chosen: damage, length, and what moves in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from videonet.data.datasets.arrays import PathArray
from videonet.data.datasets.lists import VideoList
from videonet.data.decode import open_video
from videonet.data.loading.workers import WorkerFailure, WorkerPool
from videonet.data.preparing.manifest import relative
from videonet.data.preparing.verify import verify
from videonet.data.video.names import is_picture
from videonet.errors import DecodeError
from videonet.finetuning.facts import LONG, Look, VideoFacts
from videonet.terminal import progress_bar

TIMEOUT = 600.0  # seconds for one video
SIDE = 64  # pixels of the short side of what is looked at
SPAN = 10.0  # seconds in the middle of a video in which motion is measured
LOOKS = 20  # pictures in which motion is measured
COURSE = 4  # pictures that stand for a video when copies are searched
CHANGE = 12.0  # grey levels by which a pixel that moves changes
SCENE, THUMB = 16, 8  # pixels of a side

ALL = "all.csv"  # the list of all videos, whose manifest is kept


def examine(
    paths: Sequence[str], labels: Sequence[int], folder: Path, *, workers: int = 1
) -> list[VideoFacts]:
    """Read every video and look at it, in processes that may die.

    What was read is kept in `folder`, as the manifest of ``ALL``, so that an interrupted run goes
    on where it was.

    Args:
        paths: of the videos.
        labels: number of the class of each.
        folder: for the manifest.
        workers: the number of processes.

    Raises:
        WriteError: the folder cannot be written.
    """
    videos = VideoList(str(folder / ALL), PathArray(paths), np.array(labels), str(folder))
    _, _, found = verify(videos, workers=workers, timeout=TIMEOUT, longest=LONG)
    rows = {row["path"]: row for row in found}
    of = {path: rows[relative(path, str(folder))] for path in paths}
    good = [path for path in of if not of[path]["reason"]]
    looks = _look_at(good, min(workers, max(len(good), 1)))
    return [_facts(p, label, of[p], looks) for p, label in zip(paths, labels, strict=True)]


def _facts(
    path: str, label: int, row: Mapping[str, Any], looks: Mapping[str, Look | str]
) -> VideoFacts:
    look = looks.get(path)
    reason = row["reason"] or (look if isinstance(look, str) else "")
    if reason:
        return VideoFacts(path, label, reason, row["digest"] or "")
    return VideoFacts(
        path,
        label,
        digest=row["digest"] or "",
        frames=row["frames"],
        fps=row["fps"],
        seconds=row["duration"],
        width=row["width"],
        height=row["height"],
        still=is_picture(path),
        look=look if isinstance(look, Look) else None,
    )


def _look_at(paths: Sequence[str], workers: int) -> dict[str, Look | str]:
    """What videos look like, or why they cannot be read."""
    found: dict[str, Look | str] = {}
    if not paths:
        return found
    pool: WorkerPool[str, str, Look | str] = WorkerPool(look_at, workers, TIMEOUT)
    bar = progress_bar(total=len(paths), desc="look", unit="videos")
    try:
        for path in paths:
            pool.submit(path, path)
        while (done := pool.result()) is not None:
            path, look = done
            found[path] = look.reason if isinstance(look, WorkerFailure) else look
            bar.update()
    finally:
        pool.close()
        bar.close()
    return found


def look_at(path: str) -> Look | str:
    """What a video looks like, or why it cannot be read."""
    try:
        with open_video(path, "pyav", SIDE) as reader:
            frames, times = reader.info.frames, reader.times
            middle = times[-1] / 2
            near = np.flatnonzero(np.abs(times - middle) <= SPAN / 2)
            near = near if len(near) > 1 else np.arange(frames)
            shown = near[np.linspace(0, len(near) - 1, min(LOOKS, len(near))).round().astype(int)]
            course = np.linspace(0, frames - 1, COURSE).round().astype(int)
            pictures = reader.frames_at(np.concatenate((shown, course))).numpy()
    except DecodeError as error:
        return str(error).removeprefix(f"cannot read {path}: ")
    return look_of(pictures[: len(shown)], pictures[len(shown) :])


def look_of(pictures: np.ndarray, course: np.ndarray) -> Look:
    """What moves in pictures, uint8 (N, H, W, 3), and small pictures of all and of the course."""
    grey = pictures.mean(axis=3)  # (N, H, W)
    moving = touched = border = 0.0
    if len(grey) > 1:
        # A lamp or an exposure that changes all pixels alike is no motion.
        level = grey - np.median(grey, axis=(1, 2), keepdims=True)
        moving = float(np.median((np.abs(np.diff(level, axis=0)) > CHANGE).mean(axis=(1, 2))))
        changed = level.max(axis=0) - level.min(axis=0) > 2 * CHANGE  # (H, W)
        touched = float(changed.mean())
        edge = np.ones_like(changed)
        edge[4:-4, 4:-4] = False
        border = float(changed[edge].mean())
    scene = _reduced(pictures.mean(axis=0), SCENE)  # (16, 16, 3)
    rows = np.stack([_reduced(picture, THUMB).mean(axis=2) for picture in course])
    return Look(
        round(moving, 4),
        round(touched, 4),
        round(border, 4),
        scene.round().astype(int).flatten().tolist(),
        rows.round().astype(int).flatten().tolist(),
    )


def _reduced(picture: np.ndarray, side: int) -> np.ndarray:
    """Means over side × side equal parts of a picture, (H, W, 3) -> (side, side, 3)."""
    rows, columns = (
        np.linspace(0, length, side + 1).astype(int)[:-1] for length in picture.shape[:2]
    )
    total = np.add.reduceat(np.add.reduceat(picture.astype(np.float64), rows, 0), columns, 1)
    heights = np.diff([*rows, picture.shape[0]])[:, None, None]
    widths = np.diff([*columns, picture.shape[1]])[None, :, None]
    return total / (heights * widths)
