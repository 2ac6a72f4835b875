"""Sliding windows over frames that come one after the other, from a file or from a camera.

A window is treated as a short video: its clip is the one that an evaluation takes from a video of
these frames alone. The nominal frame rate makes an even clock, whose ticks are called places. A
window begins every ``stride`` places, and the frame of a place is the one nearest in time, as in
:mod:`videonet.data.transforms.sampling`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from videonet.data.transforms.sampling import SEGMENTS, ClipSampler, dense_span
from videonet.errors import ConfigError
from videonet.terminal import ShortRepr

Picture = Callable[[], np.ndarray]  # makes an RGB picture, uint8 (H, W, 3)


@dataclass(frozen=True)
class SlidingPlan:
    """Where the windows of a video lie.

    Attributes:
        length: of a window, in places.
        stride: from the start of a window to that of the next one, in places.
        offsets: the places within a window, from 0, whose frames make its clip.
        fps: places per second.
    """

    length: int
    stride: int
    offsets: tuple[int, ...]
    fps: float

    @classmethod
    def make(
        cls,
        sampler: ClipSampler,
        fps: float,
        window: float | None = None,
        stride: float | None = None,
    ) -> SlidingPlan:
        """A plan from lengths in seconds.

        Args:
            sampler: which frames of a window make its clip.
            fps: nominal frames per second.
            window: seconds; None for what a dense clip spans at the target rate. A sampler that
                spreads its frames over whole videos has no length of its own.
            stride: seconds between two windows; None for half a window.

        Raises:
            ConfigError: a length, stride or rate that is not above 0, or no length where the
                sampler has none.
        """
        for name, value in (("window", window), ("stride", stride), ("frame rate", fps)):
            if value is not None and not value > 0:
                raise ConfigError(f"the {name} is {value}, but must be above 0")
        if window is None and sampler.mode == SEGMENTS:
            raise ConfigError(
                "the model's clips are spread over whole videos (DATA.SAMPLING segments): say how "
                "many seconds a window is long, about as long as a video of its training (--window)"
            )
        if window is None:
            rate = sampler.target_fps or fps
            length = round(dense_span(sampler.num_frames, sampler.rate, fps, rate))
        else:
            length = round(window * fps)
        length = max(length, 1)
        step = max(1, round(stride * fps)) if stride is not None else max(1, length // 2)
        offsets = sampler.uniform(length, fps, 1)[0]
        return cls(length, step, tuple(offsets.tolist()), fps)

    @property
    def lag(self) -> float:
        """Seconds from the middle of a window to its last frame, when it can be scored."""
        return (self.length - 1) / 2 / self.fps

    def times(self, index: int) -> tuple[float, float]:
        """Start and end of a window in seconds from the first frame."""
        start = index * self.stride
        return start / self.fps, (start + self.length) / self.fps

    def count(self, duration: float) -> int:
        """The number of windows of a video that lasts `duration` seconds."""
        places = max(round(duration * self.fps), 1)
        return 1 + max(0, -(-(places - self.length) // self.stride))


@dataclass(frozen=True, repr=False)
class Window(ShortRepr):
    """One window and its clip.

    Attributes:
        index: number of the window, from 0.
        start: seconds from the first frame.
        end: seconds from the first frame.
        clips: uint8 (crops, 3, T, S, S).
    """

    index: int
    start: float
    end: float
    clips: Tensor


class WindowBuffer:
    """Takes frames in their order and yields each window as soon as its last frame is there.

    It holds the prepared frames of one window, and the newest raw frame.

    Args:
        plan: where the windows lie.
        prepare: an RGB picture (H, W, 3) -> its crops, uint8 (crops, 3, S, S).
        first: number of the first window wanted; the first frame given must not be after its start.
    """

    def __init__(
        self, plan: SlidingPlan, prepare: Callable[[np.ndarray], Tensor], *, first: int = 0
    ):
        self.plan, self.prepare = plan, prepare
        self._window = first  # the number of the next one
        self._place = first * plan.stride  # the next place that has no frame yet
        self._wanted = frozenset(plan.offsets)
        self._kept: dict[int, Tensor] = {}
        self._newest: tuple[float, _Lazy] | None = None

    def push(self, time: float, picture: Picture) -> Iterator[Window]:
        """Add a frame.

        Args:
            time: seconds from the first frame, rising from call to call.
            picture: makes the frame where it is needed.

        Yields:
            The windows that the frame completes.
        """
        current = _Lazy(picture, self.prepare)
        while (clock := self._place / self.plan.fps) <= time + 1e-9:
            nearest = current
            if self._newest is not None and clock - self._newest[0] <= time - clock:
                nearest = self._newest[1]
            self._keep(self._place, nearest)
            self._place += 1
            if self._place == self._window * self.plan.stride + self.plan.length:
                yield self._complete(self.plan.times(self._window)[1])
        self._newest = (time, current)

    def finish(self) -> Iterator[Window]:
        """Say that the frames have ended.

        Yields:
            One more window, if frames are left that no window has covered. Its clip repeats the
            last frame, as the clip of a short video does.
        """
        if self._newest is None:
            return
        time, newest = self._newest
        if self._place / self.plan.fps - time < 0.5 / self.plan.fps:  # the last frame's own place
            self._keep(self._place, newest)
            self._place += 1
        start, end = self._window * self.plan.stride, self._place
        covered = start - self.plan.stride + self.plan.length if self._window else 0
        if end <= max(covered, start):
            return
        for place in range(end, start + self.plan.length):
            self._keep(place, newest)
        yield self._complete(end / self.plan.fps)

    def _keep(self, place: int, frame: _Lazy) -> None:
        stride, length = self.plan.stride, self.plan.length
        since = max(self._window, -(-(place - length + 1) // stride))
        if any(place - k * stride in self._wanted for k in range(since, place // stride + 1)):
            self._kept[place] = frame.prepared()

    def _complete(self, end: float) -> Window:
        start = self._window * self.plan.stride
        frames = [self._kept[start + offset] for offset in self.plan.offsets]
        clips = torch.stack(frames, dim=2)  # (crops, 3, T, S, S)
        window = Window(self._window, start / self.plan.fps, end, clips)
        self._window += 1
        for place in [p for p in self._kept if p < start + self.plan.stride]:
            del self._kept[place]
        return window


class _Lazy:
    """A frame that is decoded and prepared once, when it is first needed."""

    def __init__(self, picture: Picture, prepare: Callable[[np.ndarray], Tensor]):
        self._picture, self._prepare = picture, prepare
        self._done: Tensor | None = None

    def prepared(self) -> Tensor:
        if self._done is None:
            self._done = self._prepare(self._picture())
        return self._done


def sliding_windows(
    frames: Iterable[tuple[float, Picture]], buffer: WindowBuffer
) -> Iterator[Window]:
    """All windows of a video.

    Args:
        frames: (seconds from the first frame, picture), rising.
        buffer: new, for this video.

    Yields:
        Each window as soon as it is complete.
    """
    for time, picture in frames:
        yield from buffer.push(time, picture)
    yield from buffer.finish()


def timed_pictures(frames: Iterable, fps: float) -> Iterator[tuple[float, Picture]]:
    """Frames with their times, and a check that they are pictures.

    Args:
        frames: pictures, or pairs of a time and a picture.
        fps: frames per second of those without times.
    """
    for index, item in enumerate(frames):
        time, frame = item if isinstance(item, tuple) else (index / fps, item)
        picture = np.asarray(frame)
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise ConfigError(
                f"frame {index} of the stream is {picture.dtype} {picture.shape}, expected an RGB "
                "picture uint8 (height, width, 3)"
            )
        yield float(time), partial(np.asarray, picture)
