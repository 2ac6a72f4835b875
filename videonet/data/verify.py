"""Reading every video of a list to its end, and writing down what is in it."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from videonet.data.decode import FRAMES_FPS, open_video
from videonet.data.lists import VideoList
from videonet.data.manifest import (
    COLUMNS,
    fingerprint,
    load_rows,
    manifest_path,
    relative,
    video_bytes,
    write_manifest,
)
from videonet.data.workers import Lost, WorkerPool
from videonet.errors import DecodeError

SAVE_EVERY = 60.0  # seconds
_CHUNK = 32  # frames held at a time
_SIDE = 32  # pixels: what is read is not looked at


def verify(
    videos: VideoList,
    *,
    workers: int = 1,
    timeout: float = 0.0,
    frames_fps: float = FRAMES_FPS,
    fresh: bool = False,
) -> tuple[Path, str, list[dict[str, Any]]]:
    """Examine all videos in processes that may die, and write the manifest beside the list.

    Rows of an earlier manifest whose files have the same size are kept, unless ``fresh``; so an
    interrupted run goes on where it was. Returns the manifest's path, the data set's fingerprint
    and a row per distinct video. Raises DataError where the manifest cannot be written.
    """
    path = manifest_path(videos.name)
    old = {} if fresh or not path.is_file() else load_rows(path)["rows"]
    names = {relative(video, videos.root): video for video in videos.paths}
    rows: dict[str, dict[str, Any]] = {}
    todo = []
    for name, video in names.items():
        if name in old and old[name]["bytes"] == _bytes_or_none(video):
            rows[name] = old[name]
        else:
            todo.append((name, video))
    if todo:
        _examine_all(todo, rows, path, workers=workers, timeout=timeout, frames_fps=frames_fps)
    mark = fingerprint(videos, rows)
    ordered = [rows[name] for name in names]
    write_manifest(path, ordered, mark)
    return path, mark, ordered


def _examine_all(
    todo: list[tuple[str, str]],
    rows: dict[str, dict[str, Any]],
    path: Path,
    *,
    workers: int,
    timeout: float,
    frames_fps: float,
) -> None:
    """Add the rows of the videos ``todo``; a row so far is on disk at least every minute."""
    pool = WorkerPool(Examiner(frames_fps), min(workers, len(todo)), timeout)
    videos = dict(todo)
    bar = tqdm(total=len(todo), desc="verify", unit="video")
    saved = time.monotonic()
    try:
        for name, video in todo:
            pool.submit(name, video)
        while (done := pool.result()) is not None:
            name, row = done
            if isinstance(row, Lost):
                row = _row(videos[name], reason=row.reason)
            rows[name] = {**row, "path": name}
            bar.update()
            bar.set_postfix(bad=sum(bool(row["reason"]) for row in rows.values()), refresh=False)
            if time.monotonic() - saved > SAVE_EVERY:
                write_manifest(path, rows.values(), "")
                saved = time.monotonic()
    finally:
        pool.close()
        bar.close()


class Examiner:
    """What a worker does: read one video to its end."""

    def __init__(self, frames_fps: float = FRAMES_FPS):
        self.frames_fps = frames_fps

    def __call__(self, path: str) -> dict[str, Any]:
        """The row of a video, without its name."""
        try:
            with open_video(path, "pyav", _SIDE, frames_fps=self.frames_fps) as reader:
                info = reader.info
                for start in range(0, info.frames, _CHUNK):
                    reader.frames_at(range(start, min(start + _CHUNK, info.frames)))
        except DecodeError as error:
            return _row(path, reason=str(error).removeprefix(f"cannot read {path}: "))
        return {**_row(path, reason=""), **asdict(info)}


def _row(path: str, *, reason: str) -> dict[str, Any]:
    """A row with nothing but size and content of the files."""
    row = dict.fromkeys(COLUMNS)
    return {**row, "bytes": _bytes_or_none(path), "digest": _digest(path), "reason": reason}


def _bytes_or_none(path: str) -> int | None:
    try:
        return video_bytes(path)
    except OSError:
        return None


def _digest(path: str) -> str:
    """A hash of the content of a file, or of all files of a folder."""
    files = [path]
    if os.path.isdir(path):
        files = sorted(entry.path for entry in os.scandir(path) if entry.is_file())
    digest = hashlib.blake2b(digest_size=16)
    for name in files:
        try:
            with open(name, "rb") as file:
                while block := file.read(2**20):
                    digest.update(block)
        except OSError:
            return ""
    return digest.hexdigest()
