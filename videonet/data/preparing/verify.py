"""Reading every video of a list to its end, and writing down what is in it."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from videonet.data.datasets.lists import VideoList
from videonet.data.decode import FRAMES_FPS
from videonet.data.loading.workers import WorkerFailure, WorkerPool
from videonet.data.preparing.manifest import (
    COLUMNS,
    files_of,
    fingerprint,
    load_rows,
    manifest_path,
    relative,
    state_of,
    write_manifest,
)
from videonet.data.video.access import check_plain_file
from videonet.data.video.content import Source, open_bytes, size_of
from videonet.data.video.damage import listening
from videonet.data.video.info import VideoInfo, pack_table
from videonet.data.video.names import is_picture
from videonet.data.video.pictures import PictureReader, picture_damage
from videonet.data.video.promises import missing_part
from videonet.data.video.pyav_reader import PyAVReader, UnexpectedFrames
from videonet.data.video.tar_members import source_of
from videonet.errors import DecodeError
from videonet.files import remove_unfinished
from videonet.terminal import progress_bar

SAVE_EVERY = 60.0  # seconds
SAVE_SHARE = 20  # what is done between two saves takes at least so many times what saving takes
_SIDE = 32  # pixels: what is read is not looked at
_PLACES = 10  # frames that are read of a video that is not read to its end


def verify(
    videos: VideoList,
    *,
    workers: int = 1,
    timeout: float = 0.0,
    frames_fps: float = FRAMES_FPS,
    fresh: bool = False,
    longest: float = 0.0,
) -> tuple[Path, str, list[dict[str, Any]]]:
    """Examine all videos in processes that may die, and write the manifest beside the list.

    Rows of an earlier manifest whose files have the same size and time of change are kept, unless
    ``fresh``; so an interrupted run goes on where it was. Of videos of over ``longest`` seconds
    some places are read, and not all; 0: all videos are read to their end.

    Returns the manifest's path, the data set's fingerprint and a row per distinct video. Raises
    WriteError where the manifest cannot be written.
    """
    path = manifest_path(videos.name)
    content = None if fresh or not path.is_file() else load_rows(path)
    old = content["rows"] if content else {}
    names = {relative(video, videos.root): video for video in videos.paths}
    rows: dict[str, dict[str, Any]] = {}
    todo = []
    for name, video in names.items():
        row = old.get(name)
        if row and _still_holds(row, video, frames_fps):
            rows[name] = row
        else:
            todo.append((name, video))
    if todo:
        remove_unfinished(path.parent)
        examiner = Examiner(frames_fps, longest)
        _examine_all(todo, rows, path, examiner, workers=workers, timeout=timeout)
    mark = fingerprint(videos, rows)
    ordered = [rows[name] for name in names]
    write_manifest(path, ordered, mark)
    return path, mark, ordered


def _still_holds(row: Mapping[str, Any], video: str, frames_fps: float) -> bool:
    """Whether a row of an earlier manifest says what reading the video again would say."""
    if (row["bytes"], row["modified"]) != state_of(video) or row["bytes"] is None:
        return False
    of_pictures = os.path.isdir(video) and not row["reason"]
    return not of_pictures or row["fps"] == frames_fps


def _examine_all(
    todo: list[tuple[str, str]],
    rows: dict[str, dict[str, Any]],
    path: Path,
    examiner: Examiner,
    *,
    workers: int,
    timeout: float,
) -> None:
    """Add the rows of the videos ``todo``; rows so far are on disk about every minute."""
    pool: WorkerPool[str, str, dict[str, Any]] = WorkerPool(
        examiner, min(workers, len(todo)), timeout
    )
    videos = dict(todo)
    bar = progress_bar(total=len(todo), desc="verify", unit="videos")
    saved, bad, pause = time.monotonic(), 0, SAVE_EVERY
    try:
        for name, video in todo:
            pool.submit(name, video)
        while (done := pool.result()) is not None:
            name, row = done
            if isinstance(row, WorkerFailure):
                row = _row(videos[name], reason=row.reason)
            rows[name] = {**row, "path": name}
            bar.update()
            bad += bool(row["reason"])
            bar.set_postfix(bad=bad, refresh=False)
            if time.monotonic() - saved > pause:
                begun = time.monotonic()
                write_manifest(path, rows.values(), "")
                saved = time.monotonic()
                pause = max(SAVE_EVERY, SAVE_SHARE * (saved - begun))  # the more, the rarer
    finally:
        pool.close()
        bar.close()


class Examiner:
    """What a worker does: read one video to its end, and compare it with what it promises.

    ``longest``: see :func:`verify`.
    """

    def __init__(self, frames_fps: float = FRAMES_FPS, longest: float = 0.0):
        self.frames_fps, self.longest = frames_fps, longest

    def __call__(self, path: str) -> dict[str, Any]:
        """The row of a video, without its name."""
        try:
            if os.path.isdir(path) or is_picture(path):
                info, reason = _examine_pictures(path, self.frames_fps)
            else:
                info, reason = _examine_video(source_of(path), self.longest)
        except DecodeError as error:
            return _row(path, reason=str(error).removeprefix(f"cannot read {path}: "))
        if reason:
            return _row(path, reason=reason)
        return {**_row(path, reason=""), **asdict(info)}


def _examine_pictures(path: str, fps: float) -> tuple[VideoInfo, str]:
    """What a picture or a folder of pictures is, and what is damaged in it."""
    with PictureReader(source_of(path), fps, _SIDE) as reader:
        for index, file in enumerate(reader.files):
            reader.frames_at([index])
            if damage := picture_damage(file):
                name = "" if str(file) == path else f"{os.path.basename(str(file))}: "
                return reader.info, name + damage
        return reader.info, ""


def _examine_video(path: Source, longest: float) -> tuple[VideoInfo, str]:
    """What is in a video file, and what is damaged in it or missing from it."""
    if longest:
        with PyAVReader(path, _SIDE) as reader:
            info = reader.info
            if info.duration > longest:
                for index in np.linspace(0, info.frames - 1, _PLACES).astype(int):
                    reader.frames_at([index])
                return info, missing_part(path, info.frames, info.duration)
    try:
        info, reason = _read_through(path, count=False)
    except UnexpectedFrames:
        info, reason = _read_through(path, count=True)
    return info, missing_part(path, info.frames, info.duration) or reason


def _read_through(path: Source, *, count: bool) -> tuple[VideoInfo, str]:
    """Decode all of a video, then each of its key frames again after a seek.

    Where a seek leads to another picture, the table says that nothing may be sought there.
    """
    with listening() as complaints, PyAVReader(path, _SIDE, count=count) as reader:
        info, table = reader.info, reader.table
        looked_at = set(np.union1d(table.keys, table.keys + 1).tolist())
        pictures = {}
        # Decoders look at the start of a file when it is opened, where a cut one lacks pictures.
        opening = len(complaints.entries)
        for index, (_, picture) in enumerate(reader.forwards()):
            if index in looked_at or index == info.frames - 1:
                pictures[index] = picture()
        damage = complaints.about(info.container, since=0)
        damage = damage or complaints.about(*reader.speakers, since=opening)
        if damage:
            return info, f"FFmpeg reports {damage}"
        if table.lost:
            return info, f"{table.lost} of its packets cannot be decoded"
        if table.stray is not None:
            return info, f"the time stamp of frame {table.stray} is far from those around it"
        wrong = [key for key in table.keys[1:].tolist() if not _is_sought(reader, key, pictures)]
        if wrong:
            table = replace(table, keys=np.setdiff1d(table.keys, wrong))
            info = replace(info, counted=pack_table(table))
    return info, ""


def _is_sought(reader: PyAVReader, key: int, pictures: dict[int, np.ndarray]) -> bool:
    """Whether a key frame and the one after it are the same after a seek as in sequence."""
    wanted = [index for index in (key, key + 1) if index in pictures]
    try:
        found = reader.frames_at(wanted).numpy()
    except DecodeError:
        return False
    return all(np.array_equal(pictures[k], found[n]) for n, k in enumerate(wanted))


def _row(path: str, *, reason: str) -> dict[str, Any]:
    """A row with nothing but size and content of the files."""
    size, modified = state_of(path)
    row = dict.fromkeys(COLUMNS)
    facts = {"bytes": size, "modified": modified, "digest": _digest(path), "reason": reason}
    return {**row, **facts}


def _digest(path: str) -> str:
    """A hash of the whole content of a file, or of all files of a folder; empty without one."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(files_of(path)):
        try:
            source = source_of(name)
            check_plain_file(source)  # others never end
            with open_bytes(source) as file:
                left = size_of(source)  # a file may grow as fast as it is read
                while left > 0 and (block := file.read(min(left, 2**20))):
                    digest.update(block)
                    left -= len(block)
        except (OSError, DecodeError):
            return ""
    return digest.hexdigest()
