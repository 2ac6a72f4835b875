"""Decoding uploads in processes of their own, in steps that are limited in time and memory."""

from __future__ import annotations

import contextlib
import queue
import sys
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

import av
import numpy as np
from fvcore.common.config import CfgNode

from videonet.data.decode import open_video
from videonet.data.loading.build import evaluation_views
from videonet.data.loading.workers import WorkerFailure, WorkerPool
from videonet.data.video.access import open_container
from videonet.data.video.names import is_picture
from videonet.data.video.pictures import PictureReader
from videonet.data.video.promises import missing_part
from videonet.data.video.pyav_reader import PyAVReader
from videonet.data.video.reader import VideoReader
from videonet.errors import DecodeError, VideonetError
from videonet.inference.clips import file_windows
from videonet.inference.parts import frames_between, part_views, part_windows
from videonet.serving.limits import Limits

Result = TypeVar("Result")

CHUNK_BYTES = 2**25  # of the windows that are decoded in one step
STRIP_FRAMES, STRIP_SIDE = 6, 96  # of a film strip; pixels
ROUNDED = 1e-3  # seconds by which times of an index may differ from those of frames


@dataclass(frozen=True)
class Facts:
    """What is in an upload."""

    frames: int
    fps: float
    width: int
    height: int
    duration: float
    codec: str
    is_picture: bool


@dataclass(frozen=True)
class Clip:
    """A window and its decoded crops.

    Attributes:
        index: number of the window.
        start: seconds from the first frame.
        end: seconds from the first frame.
        pixels: uint8 (crops, 3, T, S, S).
    """

    index: int
    start: float
    end: float
    pixels: np.ndarray


class Step(Generic[Result]):
    """A task for a process that decodes."""

    path: str

    def run(self, cfgs: list[CfgNode], limits: Limits) -> Result:
        """Do it.

        Args:
            cfgs: of the models.
            limits: of the server.

        Raises:
            DecodeError: the file cannot be read, or is larger or longer than it may be.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Look(Step[Facts]):
    """What is in a file, and whether it may be decoded."""

    path: str

    def run(self, cfgs: list[CfgNode], limits: Limits) -> Facts:
        if is_picture(self.path):
            with PictureReader(self.path, 1.0) as picture:
                info = picture.info
        else:
            _check_header(self.path, limits)
            with PyAVReader(self.path) as reader:
                info = reader.info
            if missing := missing_part(self.path, info.frames, info.duration):
                raise DecodeError(f"cannot read {self.path}: {missing}")
        _check(self.path, info.duration, info.width * info.height, limits)
        return Facts(
            info.frames, info.fps, info.width, info.height, info.duration, info.codec,
            is_picture(self.path),
        )  # fmt: skip


@dataclass(frozen=True)
class Views(Step[np.ndarray]):
    """The views of testing, uint8 (V, 3, T, S, S)."""

    path: str
    model: int

    def run(self, cfgs: list[CfgNode], limits: Limits) -> np.ndarray:
        return evaluation_views(cfgs[self.model])(self.path).clips.numpy()


@dataclass(frozen=True)
class Windows(Step[list[Clip]]):
    """Some windows of a file, in their order; fewer than `count` at its end."""

    path: str
    model: int
    window: float | None
    stride: float | None
    crops: int
    first: int
    count: int

    def run(self, cfgs: list[CfgNode], limits: Limits) -> list[Clip]:
        views = evaluation_views(cfgs[self.model])
        windows = file_windows(self.path, views, self.window, self.stride, self.crops, self.first)
        return [Clip(w.index, w.start, w.end, w.clips.numpy()) for w in islice(windows, self.count)]


@dataclass(frozen=True)
class PartViews(Step[np.ndarray]):
    """The views of testing of a part of a file, uint8 (V, 3, T, S, S)."""

    path: str
    model: int
    start: float
    end: float | None

    def run(self, cfgs: list[CfgNode], limits: Limits) -> np.ndarray:
        views = evaluation_views(cfgs[self.model])
        return part_views(views, self.path, self.start, self.end).numpy()


@dataclass(frozen=True)
class PartWindows(Windows):
    """Some windows of a part of a file, whose times count from its first frame."""

    start: float = 0.0
    end: float | None = None

    def run(self, cfgs: list[CfgNode], limits: Limits) -> list[Clip]:
        windows = part_windows(
            evaluation_views(cfgs[self.model]), self.path, self.start, self.end,
            window=self.window, stride=self.stride, crops=self.crops, first=self.first,
        )  # fmt: skip
        return [Clip(w.index, w.start, w.end, w.clips.numpy()) for w in islice(windows, self.count)]


@dataclass(frozen=True)
class Frames(Step[list[tuple[float, np.ndarray]]]):
    """Some frames of a file, (seconds, uint8 (H, W, 3)); fewer than `count` at its end."""

    path: str
    first: int
    count: int

    def run(self, cfgs: list[CfgNode], limits: Limits) -> list[tuple[float, np.ndarray]]:
        pictures = is_picture(self.path)
        with PictureReader(self.path, 1.0) if pictures else PyAVReader(self.path) as reader:
            if self.first >= reader.info.frames:
                return []
            some = islice(reader.forwards(self.first), self.count)
            return [(time, np.ascontiguousarray(picture())) for time, picture in some]


@dataclass(frozen=True)
class Strip(Step[np.ndarray]):
    """Frames that are spread over a part of a file or folder, uint8 (3, n, H, W)."""

    path: str
    start: float = 0.0
    end: float | None = None

    def run(self, cfgs: list[CfgNode], limits: Limits) -> np.ndarray:
        reader: VideoReader
        if is_picture(self.path):
            reader = PictureReader(self.path, 1.0, STRIP_SIDE)
        elif Path(self.path).is_dir():
            reader = open_video(self.path, short_side=STRIP_SIDE)
        else:
            reader = PyAVReader(self.path, STRIP_SIDE)
        with reader:
            numbers = frames_between(reader, self.start - ROUNDED, self.end)
            spread = np.linspace(0, len(numbers) - 1, min(len(numbers), STRIP_FRAMES))
            shown = numbers[spread.round().astype(int)]
            return reader.frames_at(shown).permute(3, 0, 1, 2).contiguous().numpy()


def chunk_size(cfg: CfgNode, crops: int) -> int:
    """The number of windows that one step decodes."""
    size = cfg.DATA.TEST_CROP_SIZE
    return max(1, min(64, CHUNK_BYTES // (crops * 3 * cfg.DATA.NUM_FRAMES * size * size)))


def _check_header(path: str, limits: Limits) -> None:
    """Refuse by what a header claims, before anything is read for it."""
    container, stream = open_container(path)
    with container:
        context, claimed = stream.codec_context, [(container.duration or 0) / av.time_base]
        if stream.duration and stream.time_base:
            claimed.append(float(stream.duration * stream.time_base))
        _check(path, max(claimed), context.width * context.height, limits)


def _check(path: str, seconds: float, pixels: int, limits: Limits) -> None:
    if seconds > limits.max_seconds:
        raise DecodeError(
            f"{path} claims to last {seconds:,.0f} s, longer than {limits.max_seconds:,.0f} s, the "
            "limit of this server"
        )
    if pixels > limits.max_pixels:
        raise DecodeError(
            f"{path} has frames of {pixels:,} pixels, more than {limits.max_pixels:,.0f}, the "
            "limit of this server"
        )


class Decoding:
    """What a process does: steps, within a limit on its memory.

    Args:
        cfgs: of the models.
        limits: of the server.
    """

    def __init__(self, cfgs: list[CfgNode], limits: Limits):
        self._cfgs, self._limits, self._limited = cfgs, limits, False

    def __call__(self, step: Step[Result]) -> Result:
        if not self._limited:
            _limit_memory(int(self._limits.memory_mb * 1e6))
            self._limited = True
        try:
            return step.run(self._cfgs, self._limits)
        except (MemoryError, RuntimeError) as error:  # torch raises the second where memory ends
            if isinstance(error, MemoryError) or "allocate memory" in str(error):
                raise DecodeError(
                    f"{step.path} needs more than {self._limits.memory_mb:g} MB to decode, the "
                    "limit of this server"
                ) from None
            raise


def _limit_memory(more: int) -> None:
    """Let this process map so many bytes more than it has; only Linux says how many it has."""
    if sys.platform != "linux":
        return
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft = pages * resource.getpagesize() + more
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    if hard == resource.RLIM_INFINITY or soft < hard:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


class Decoders:
    """Processes that decode, each with a thread that hands it one step after the other.

    Args:
        work: what they do.
        workers: the number of processes.
        timeout: seconds that one step may take.
    """

    def __init__(self, work: Decoding, workers: int, timeout: float):
        self._work, self._timeout = work, timeout
        self._steps: queue.Queue[tuple[Step[Any], Future[Any]] | None] = queue.Queue()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(workers)]
        for thread in self._threads:
            thread.start()

    def submit(self, step: Step[Result]) -> Future[Result]:
        """Queue a step; the future holds its result or a DecodeError."""
        future: Future[Result] = Future()
        self._steps.put((step, future))
        return future

    def close(self) -> None:
        """End the processes when they have done the steps under way."""
        for _ in self._threads:
            self._steps.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        pool: WorkerPool[int, Step[Any], Any] | None = None
        with contextlib.suppress(Exception):  # the first step tries again, and says why not
            pool = WorkerPool(self._work, 1, self._timeout)
        while (item := self._steps.get()) is not None:
            step, future = item
            if not future.set_running_or_notify_cancel():
                continue
            try:
                if pool is None:  # an idle pool has the length 0, which is false
                    pool = WorkerPool(self._work, 1, self._timeout)
                pool.submit(0, step)
                done = pool.result()
                assert done is not None, "a task was submitted"
                if isinstance(done[1], WorkerFailure):
                    raise DecodeError(f"cannot read {step.path}: {done[1].reason}")
                future.set_result(done[1])
            except VideonetError as error:
                future.set_exception(error)
            except Exception as error:  # of a process that cannot start, or of the package
                future.set_exception(error)
                if pool is not None and len(pool):
                    with contextlib.suppress(Exception):
                        pool.close()
                    pool = None
        if pool is not None:
            pool.close()
