"""What is known of a video: its facts, and the table of the frames that are shown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from videonet.errors import DecodeError
from videonet.terminal import ShortRepr

NO_STAMP = -(2**63)  # FFmpeg's mark for a frame without a time stamp
UNKNOWN_RATE = 25.0  # frames per second where neither header nor time stamps say
HIGHEST_RATE = 1000.0  # above it a header's rate is the clock of its time stamps
_STRAY = 30  # frames by which a stamp alone may differ, as stamps of decoding do by a few
AGREEMENT = 0.01  # a header's rate and that of the stamps are the same up to this share


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a video before its frames are read.

    ``width`` and ``height`` are those of the upright picture with square pixels, before any
    resizing. ``rotation`` is the counter-clockwise turn in degrees (0, 90, 180, 270) that made it
    upright, and with ``mirrored`` left and right change places after the turn. ``frames`` counts
    the frames that are shown; ``fps`` follows from their times; ``duration`` is in seconds;
    ``codec``, ``pixels`` and ``container`` are FFmpeg's names; ``open_gop`` says that some frames
    are shown before the key frame that they follow in the file, ``even`` that the frames are
    evenly spaced in time. ``counted`` is the frame table where it took decoding to find it, as
    :func:`pack_table` writes it, else empty.
    """

    frames: int
    fps: float
    width: int
    height: int
    rotation: int
    duration: float
    codec: str
    pixels: str
    container: str
    open_gop: bool
    even: bool = True
    mirrored: bool = False
    counted: str = ""


@dataclass(frozen=True, repr=False)
class FrameTable(ShortRepr):
    """The frames that a file shows, in their order."""

    pts: np.ndarray  # (frames,) int64 time stamps in units of the stream's time base, or NO_STAMP
    times: np.ndarray  # (frames,) seconds from the first frame
    keys: np.ndarray  # indices of frames that decoding may start at, the first is 0
    stamped: bool  # a frame can be told by its time stamp, whatever was decoded before
    open_gop: bool = False  # a frame is shown before the key frame that it follows in the file
    counted: bool = False  # found by decoding, not from the packets
    lost: int = 0  # packets that should show a frame and cannot be decoded

    @property
    def even(self) -> bool:
        return is_even(self.times)

    @property
    def stray(self) -> int | None:
        """The first frame whose time stamp lies far ahead while its neighbours go on; or None."""
        steps = np.diff(self.pts)
        rising = steps[steps > 0]
        if not len(rising) or NO_STAMP in self.pts:
            return None
        far = _STRAY * np.median(rising)
        back = np.flatnonzero(steps[1:] < -far) + 1  # far ahead of the next one
        goes_on = self.pts[back + 1] >= self.pts[back - 1]
        found = back[goes_on & (steps[back - 1] > far)]
        return int(found[0]) if len(found) else None


def is_even(times: np.ndarray) -> bool:
    """Whether every frame is within a quarter of a frame of an even clock."""
    last = len(times) - 1
    if last < 1:
        return True
    clock = np.linspace(times[0], times[-1], last + 1)
    return bool(np.abs(times - clock).max() <= 0.25 * (times[-1] - times[0]) / last)


def frame_rate(header: float, times: np.ndarray) -> float:
    """Frames per second: what the header says where the times of the frames agree with it."""
    span = float(times[-1] - times[0]) if len(times) else 0.0
    measured = (len(times) - 1) / span if span > 0 else 0.0
    if 0 < header <= HIGHEST_RATE and (not measured or abs(header / measured - 1) <= AGREEMENT):
        return header
    return measured or UNKNOWN_RATE


def times_of(stamps: Sequence[int] | np.ndarray, tick: float, rate: float) -> np.ndarray:
    """Seconds from the first frame, ``(frames,)``, of frames in the order in which they are shown.

    Stamps that are out of order are those of decoding, so the k-th frame has the k-th of them.
    Frames without a stamp lie evenly between those that have one. ``tick``: seconds of a unit;
    ``rate``: frames per second where the stamps say nothing.
    """
    stamps = np.asarray(stamps, dtype=np.int64)
    order = np.arange(len(stamps))
    known = stamps != NO_STAMP
    values = stamps[known]
    if len(np.unique(values)) < len(values) or len(values) < min(2, len(stamps)):
        return order / rate
    seconds = (np.sort(values) - values.min()) * tick
    places = order[known]
    before = np.minimum(order - places[0], 0) / rate  # of frames before the first stamp
    after = np.maximum(order - places[-1], 0) / rate
    times = np.interp(order, places, seconds) + before + after
    return times - times[0]


def pack_table(table: FrameTable) -> str:
    """A frame table as a short text: two flags, then key frames and stamps as runs of steps."""
    flags = f"{int(table.stamped)}{int(table.open_gop)}"
    return ";".join((flags, _runs(table.keys.tolist()), _runs(table.pts.tolist())))


def unpack_table(text: str, tick: float, rate: float, size: int) -> FrameTable:
    """The frame table that :func:`pack_table` wrote.

    Args:
        text: the table.
        tick: seconds of a unit of the stamps.
        rate: frames per second where the stamps say nothing.
        size: bytes of the file, which has no more frames than that.

    Raises:
        DecodeError: the text is no such table.
    """
    try:
        flags, keys, stamps = text.split(";")
        stamped, open_gop = (bool("01".index(flag)) for flag in flags)
        pts = _unrolled(stamps, size)
        starts = _unrolled(keys, size)
        rising = (np.diff(pts) > 0).all() and (pts != NO_STAMP).all()
        if starts[0] != 0 or (np.diff(starts) <= 0).any() or starts[-1] >= len(pts):
            raise ValueError("key frames out of order")
        if stamped and not rising:
            raise ValueError("stamps out of order")
    except (ValueError, IndexError, OverflowError) as error:
        raise DecodeError(f"the manifest's table of its frames cannot be used ({error})") from None
    return FrameTable(pts, times_of(pts, tick, rate), starts, stamped, open_gop, counted=True)


def _runs(values: Iterable[int]) -> str:
    """Steps between numbers, each with how often it comes: ``0,1x5,2`` is 0 1 2 3 4 5 7."""
    parts: list[list[int]] = []
    before = 0
    for value in values:
        step, before = value - before, value
        if parts and parts[-1][0] == step:
            parts[-1][1] += 1
        else:
            parts.append([step, 1])
    return ",".join(f"{step}x{count}" if count > 1 else str(step) for step, count in parts)


def _unrolled(text: str, most: int) -> np.ndarray:
    """The numbers that :func:`_runs` wrote, (n,), at most so many."""
    steps, counts = [], []
    for part in text.split(","):
        step, _, count = part.partition("x")
        steps.append(int(step))
        counts.append(int(count or 1))
    if min(counts) < 1 or sum(counts) > most:
        raise ValueError("too many frames")
    return np.cumsum(np.repeat(np.array(steps, dtype=np.int64), counts))
