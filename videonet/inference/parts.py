"""The clips of a part of a video, which is treated as a video of its own."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from torch import Tensor

from videonet.data.decode import Encoded, open_video
from videonet.data.loading.dataset import EvaluationViews
from videonet.data.transforms.sampling import Clock
from videonet.data.video.reader import VideoReader
from videonet.errors import DecodeError
from videonet.inference.clips import picture_crops
from videonet.inference.windows import (
    Picture,
    SlidingPlan,
    Window,
    WindowBuffer,
    sliding_windows,
)

_CHUNK = 32  # frames that are decoded at a time


def frames_between(reader: VideoReader, start: float, end: float | None) -> np.ndarray:
    """Numbers of the frames from `start` to `end` in seconds, both included.

    Raises:
        DecodeError: there are none.
    """
    times = reader.times
    until = times[-1] if end is None else end
    numbers = np.flatnonzero((times >= start - 1e-6) & (times <= until + 1e-6))
    if not len(numbers):
        last = "its end" if end is None else f"{end:g} s"
        raise DecodeError(
            f"cannot read {reader.path}: it has no frame from {start:g} s to {last}, it lasts "
            f"{reader.info.duration:.2f} s"
        )
    return numbers


def part_views(views: EvaluationViews, clip: Encoded, start: float, end: float | None) -> Tensor:
    """The views of testing of a part of a video, uint8 (V, 3, T, S, S).

    Args:
        views: how they are made.
        clip: the video.
        start: seconds.
        end: seconds; None for the end of the video.

    Raises:
        DecodeError: it cannot be read, or nothing lies between `start` and `end`.
    """
    with open_video(clip, views.backend, frames_fps=views.frames_fps) as reader:
        numbers = frames_between(reader, start, end)
    with views.open(clip, frames=numbers.tolist()) as part:
        return views.of(part).clips


def part_windows(
    views: EvaluationViews,
    clip: Encoded,
    start: float,
    end: float | None,
    *,
    window: float | None,
    stride: float | None,
    crops: int,
    first: int = 0,
) -> Iterator[Window]:
    """The windows of a part of a video; their times count from the first frame of the part.

    Args:
        views: how their clips are made.
        clip: the video.
        start: seconds.
        end: seconds; None for the end of the video.
        window: seconds, see :meth:`SlidingPlan.make`.
        stride: seconds, likewise.
        crops: of each window.
        first: number of the window to begin with.

    Raises:
        DecodeError: it cannot be read, or nothing lies between `start` and `end`.
    """
    with open_video(clip, views.backend, frames_fps=views.frames_fps) as reader:
        numbers = frames_between(reader, start, end)
        times = reader.times[numbers] - reader.times[numbers[0]]
        rate = Clock.of(len(numbers), reader.info.fps, times).rate
        plan = SlidingPlan.make(views.sampler, rate, window, stride)
        begin = np.searchsorted(times, first * plan.stride / plan.fps) - 1
        some = slice(int(np.clip(begin, 0, len(times) - 1)), None)
        buffer = WindowBuffer(plan, picture_crops(views, crops), first=first)
        yield from sliding_windows(_pictures(reader, numbers[some], times[some]), buffer)


def _pictures(
    reader: VideoReader, numbers: np.ndarray, times: np.ndarray
) -> Iterator[tuple[float, Picture]]:
    for first in range(0, len(numbers), _CHUNK):
        some = slice(first, first + _CHUNK)
        frames = reader.frames_at(numbers[some]).numpy()
        for time, frame in zip(times[some].tolist(), frames, strict=True):
            yield time, partial(np.asarray, frame)
