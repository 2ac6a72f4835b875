"""Encoding a data set again, small and with many key frames, so that clips are read fast."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from videonet.data.claims import Claim
from videonet.data.datasets.lists import VideoList
from videonet.data.decode import FRAMES_FPS, open_video
from videonet.data.loading.workers import WorkerFailure, WorkerPool
from videonet.data.preparing.manifest import relative, state_of
from videonet.data.tables import cell
from videonet.data.texts import read_text, short_stem
from videonet.data.video.reader import VideoReader
from videonet.data.video.writer import VideoWriter
from videonet.errors import DataError, DecodeError
from videonet.files import make_folder, remove_unfinished, replacing, replacing_text, writing
from videonet.terminal import progress_bar

PREPARED = "prepared.json"  # in the folder: what its videos were made of, and how
LOCK = ".prepare.lock"
_CHUNK = 32  # frames held at a time


def prepare(
    videos: VideoList,
    folder: Path,
    list_name: str,
    encode: Encoder,
    *,
    workers: int = 1,
    timeout: float = 0.0,
    overwrite: bool = False,
) -> tuple[Path, dict[str, str]]:
    """Write every video to ``folder`` as H.264 in mp4, and a list ``path label`` of them.

    What is there already is not written again, unless its source has changed since. The folder
    keeps in ``prepared.json`` how its videos were encoded, and from what.

    Args:
        overwrite: write again what was encoded otherwise, or from other files.

    Returns:
        The list's path, and why each video that could not be read is not in it.

    Raises:
        ConfigError: another process writes to the folder.
        DataError: two videos would be the same file, or a file of something else is in the way.
        WriteError: a file cannot be written.
    """
    targets = _targets(videos, folder)
    make_folder(folder)
    claim = Claim(folder / LOCK, folder)
    places = {folder, *(target.parent for target in targets)}
    try:
        _remove_unfinished(places)
        todo = _plan(videos, targets, folder, encode, overwrite=overwrite)
        failed = _encode_all(videos, targets, todo, encode, workers, timeout)
        _remove_unfinished(places)  # of workers that were killed
    finally:
        claim.close()
    path = folder / list_name
    with replacing_text(path, newline="") as file:
        table = csv.writer(file, delimiter=" ", lineterminator="\n")
        for k, target in enumerate(targets):
            if target.is_file() and videos.paths[k] not in failed:
                name = os.path.relpath(target, folder)
                if cell(name) != name:  # a spreadsheet would run it
                    name = os.path.join(os.curdir, name)
                table.writerow([name, ",".join(map(str, videos.classes_of(k)))])
    return path, failed


def _encode_all(
    videos: VideoList,
    targets: list[Path],
    todo: list[int],
    encode: Encoder,
    workers: int,
    timeout: float,
) -> dict[str, str]:
    """Write the videos ``todo``; returns why some could not be read."""
    failed: dict[str, str] = {}
    if not todo:
        return failed
    pool: WorkerPool[int, tuple[str, str], str | None] = WorkerPool(
        encode, min(workers, len(todo)), timeout
    )
    bar = progress_bar(
        total=len(targets), initial=len(targets) - len(todo), desc="prepare", unit="videos"
    )
    try:
        for k in todo:
            pool.submit(k, (videos.paths[k], str(targets[k])))
        while (done := pool.result()) is not None:
            k, reason = done
            if isinstance(reason, WorkerFailure):
                reason = f"cannot read {videos.paths[k]}: {reason.reason}"
            if reason:
                failed[videos.paths[k]] = reason
            bar.update()
    finally:
        pool.close()
        bar.close()
    return failed


def _remove_unfinished(places: Iterable[Path]) -> None:
    for place in places:
        remove_unfinished(place)


def _plan(
    videos: VideoList, targets: list[Path], folder: Path, encode: Encoder, *, overwrite: bool
) -> list[int]:
    """The videos to write, noted in the folder before the first one is.

    A file appears under its name when it is whole, so one that is noted and there is done.

    Raises DataError for a file that is there and was made otherwise, or by something else.
    """
    path = folder / PREPARED
    noted = _read_plan(path)
    encoding = f"short side {encode.short_side}, gop {encode.gop}, crf {encode.crf}"
    advice = "give another --output, or --overwrite to write it again"
    todo = []
    for k, target in enumerate(targets):
        source = os.path.abspath(videos.paths[k])
        pictures = f", {encode.frames_fps:g} pictures/s" if os.path.isdir(source) else ""
        wanted = [source, *state_of(source), encoding + pictures]
        name = os.path.relpath(target, folder)
        found = noted.get(name)
        if target.is_file():
            if os.path.realpath(target) == os.path.realpath(source):
                raise DataError(f"{target} would be written over itself: give another --output")
            if found == wanted:
                continue
            if found is None and not overwrite:
                raise DataError(f"{target} is there, and nothing says what made it; {advice}")
            if found is not None and (found[0], found[3]) != (source, wanted[3]) and not overwrite:
                raise DataError(
                    f"{target} was made from {found[0]} with {found[3]}, not from {source} with "
                    f"{wanted[3]}; {advice}"
                )
            with writing(target):
                target.unlink()  # before it is noted as made of what is there now
        noted[name] = wanted
        todo.append(k)
    if todo:
        with replacing_text(path) as file:
            json.dump(noted, file)
    return todo


def _read_plan(path: Path) -> dict[str, list]:
    """``{target: [source, bytes, time of change, encoding]}`` of what a folder holds."""
    if not path.is_file():
        return {}
    try:
        noted = json.loads(read_text(path, "note of what was prepared", names=True))
        if all(len(entry) == 4 for entry in noted.values()):
            return noted
    except (ValueError, RecursionError, AttributeError, TypeError):
        pass
    raise DataError(f"{path} is not as tools/data.py prepare writes it: give another --output")


def _targets(videos: VideoList, folder: Path) -> list[Path]:
    """The file that each video is written to: its name in the list, with the ending .mp4."""
    targets: list[Path] = []
    owners: dict[Path, str] = {}
    for video in videos.paths:
        name = relative(video, videos.root).replace("\n", "_").replace("\r", "_")
        if os.path.isabs(name) or ".." in Path(name).parts:
            name = name.replace(os.sep, "_").lstrip("_.")
        target = (folder / name).with_suffix(".mp4") if os.path.isfile(video) else None
        target = target or folder / f"{name.rstrip('/')}.mp4"
        target = target.with_name(f"{short_stem(target.stem)}.mp4")
        if owners.setdefault(target, video) != video:
            raise DataError(f"{owners[target]} and {video} would both be written to {target}")
        targets.append(target)
    return targets


@dataclass(frozen=True)
class Encoder:
    """What a worker does: write one video again.

    ``short_side`` in pixels (smaller videos keep their size), ``gop`` frames between two key
    frames, ``crf`` the quality of x264 (lower is better). Upright, without sound; the time stamps
    stay.
    """

    short_side: int
    gop: int
    crf: int
    frames_fps: float = FRAMES_FPS

    def __call__(self, task: tuple[str, str]) -> str | None:
        """None, or why the video cannot be read."""
        source, target = task
        try:
            with open_video(source, "pyav", frames_fps=self.frames_fps) as reader:
                side = min(self.short_side, reader.info.width, reader.info.height)
            with (
                open_video(source, "pyav", side, frames_fps=self.frames_fps) as reader,
                replacing(Path(target)) as part,
            ):
                self._write(reader, part)
        except DecodeError as error:
            return str(error)
        return None

    def _write(self, reader: VideoReader, path: Path) -> None:
        # One thread for the encoder: the workers are the parallelism.
        writer = VideoWriter(path, reader.info.fps, crf=self.crf, gop=self.gop, threads=1)
        with writer:
            for start in range(0, reader.info.frames, _CHUNK):
                indices = np.arange(start, min(start + _CHUNK, reader.info.frames))
                for index, picture in zip(indices, reader.frames_at(indices), strict=True):
                    writer.add(picture.numpy(), reader.times[index])
