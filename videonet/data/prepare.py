"""Encoding a data set again, small and with many key frames, so that clips are read fast."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from tqdm import tqdm

from videonet.data.decode import FRAMES_FPS, open_video
from videonet.data.lists import VideoList
from videonet.data.manifest import relative
from videonet.data.texts import short_stem
from videonet.data.video.info import VideoInfo
from videonet.data.video.reader import VideoReader
from videonet.data.workers import Lost, WorkerPool
from videonet.errors import DataError, DecodeError

_CHUNK = 32  # frames held at a time
_CLOCK = 90_000  # ticks per second of the written time stamps


def prepare(
    videos: VideoList,
    folder: Path,
    list_name: str,
    encode: Encoder,
    *,
    workers: int = 1,
    timeout: float = 0.0,
) -> tuple[Path, dict[str, str]]:
    """Write every video to ``folder`` as H.264 in mp4, and a list ``path label`` of them.

    What is there already is not written again. Returns the list's path, and why each video that
    could not be read is not in it. Raises DataError for two videos that would be the same file.
    """
    targets = _targets(videos, folder)
    todo = [k for k, target in enumerate(targets) if not target.is_file()]
    failed: dict[str, str] = {}
    if todo:
        pool = WorkerPool(encode, min(workers, len(todo)), timeout)
        bar = tqdm(total=len(targets), initial=len(targets) - len(todo), desc="prepare")
        try:
            for k in todo:
                pool.submit(k, (videos.paths[k], str(targets[k])))
            while (done := pool.result()) is not None:
                k, reason = done
                if isinstance(reason, Lost):
                    reason = f"cannot read {videos.paths[k]}: {reason.reason}"
                if reason:
                    failed[videos.paths[k]] = reason
                bar.update()
        finally:
            pool.close()
            bar.close()
    path = folder / list_name
    with open(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        table = csv.writer(file, delimiter=" ", lineterminator="\n")
        for k, target in enumerate(targets):
            if target.is_file():
                labels = ",".join(map(str, videos.classes_of(k)))
                table.writerow([os.path.relpath(target, folder), labels])
    return path, failed


def _targets(videos: VideoList, folder: Path) -> list[Path]:
    """The file that each video is written to: its name in the list, with the ending .mp4."""
    targets, owners = [], {}
    for video in videos.paths:
        name = relative(video, videos.root)
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
        os.makedirs(os.path.dirname(target) or ".", exist_ok=True)
        part = f"{target}.part"
        try:
            with open_video(source, "pyav", frames_fps=self.frames_fps) as reader:
                side = min(self.short_side, reader.info.width, reader.info.height)
            with open_video(source, "pyav", side, frames_fps=self.frames_fps) as reader:
                self._write(reader, part)
            os.replace(part, target)
        except DecodeError as error:
            if os.path.exists(part):
                os.remove(part)
            return str(error)
        return None

    def _write(self, reader: VideoReader, path: str) -> None:
        info: VideoInfo = reader.info
        width, height = (max(2, size // 2 * 2) for size in reader.size)  # 4:2:0 needs even sizes
        with av.open(f"file:{path}", "w", format="mp4") as container:
            rate = Fraction(info.fps).limit_denominator(1001)
            stream = container.add_stream("libx264", rate=rate, options={"crf": str(self.crf)})
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.codec_context.gop_size = self.gop
            stream.codec_context.thread_count = 1  # the workers are the parallelism
            stream.codec_context.time_base = Fraction(1, _CLOCK)
            for start in range(0, info.frames, _CHUNK):
                indices = np.arange(start, min(start + _CHUNK, info.frames))
                for index, picture in zip(indices, reader.frames_at(indices), strict=True):
                    picture = np.ascontiguousarray(picture[:height, :width].numpy())
                    frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                    frame.pts = round(reader.times[index] * _CLOCK)
                    frame.time_base = Fraction(1, _CLOCK)
                    container.mux(stream.encode(frame))
            container.mux(stream.encode())
