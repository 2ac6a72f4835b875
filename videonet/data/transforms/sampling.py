"""Which frames make a clip: pure functions of the length, the rate, the view and the generator.

*Dense* clips span ``num_frames × rate`` frames at the target rate, wherever the video's own rate
stretches or shrinks that; *segment* clips spread over the whole video (TSN, Wang et al. 2016).
Where frames are not evenly spaced both are even in time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from videonet.data.video.info import is_even

FASTEST = 240.0  # frames per second of a clock; stamps that come in pairs ask for more
DENSE, SEGMENTS = "dense", "segments"
REPEAT_LAST, LOOP = "repeat_last", "loop"


@dataclass(frozen=True)
class ClipSampler:
    """Chooses the frames of clips.

    ``mode``: ``dense`` or ``segments``. ``rate``: frames between two frames of a dense clip in a
    video of ``target_fps`` (0: of any video). ``short_video``: what a dense clip that is longer
    than its video does, ``repeat_last`` or ``loop``. Of random segment clips: ``trim``, the largest
    share of the video that is left out at its ends; ``hold``, the largest share of the clip that
    shows the first or the last frame still; ``pace``, 0 to 1, how uneven its speed may be.
    """

    num_frames: int
    rate: int = 1
    target_fps: float = 0.0
    mode: str = DENSE
    short_video: str = REPEAT_LAST
    trim: float = 0.0
    hold: float = 0.0
    pace: float = 0.0

    def random(
        self, frames: int, fps: float, rng: np.random.Generator, times: np.ndarray | None = None
    ) -> np.ndarray:
        """Frame indices ``(num_frames,)`` of one training clip.

        ``times`` (seconds of each frame): where they are not even, the clip is taken from an even
        clock, and each of its places shows the frame nearest in time.
        """
        clock = Clock.of(frames, fps, times)
        if self.mode == SEGMENTS:
            first, places = self._trimmed(clock.places, rng) if self.trim else (0, clock.places)
            chosen = segment_random(places, self.num_frames, rng)
            if self.hold or self.pace:
                at = uneven(chosen / max(places - 1, 1), self.hold, self.pace, rng)
                chosen = np.rint(at * (places - 1)).astype(np.int64)
            return clock.frames_at(first + chosen)
        return self._dense(clock, fps, float(rng.random()))

    def _trimmed(self, places: int, rng: np.random.Generator) -> tuple[int, int]:
        """The first place of a random part of a video, and how many it has."""
        left_out = int(self.trim * rng.random() * (places - 1))
        return int(rng.integers(left_out + 1)), places - left_out

    def uniform(
        self, frames: int, fps: float, count: int, times: np.ndarray | None = None
    ) -> np.ndarray:
        """Frame indices ``(count, num_frames)`` of the evaluation clips of a video.

        Dense clips are spread from the first to the last possible start, one clip is centred;
        segment clips take different frames of each segment, one clip the middle ones. ``times``:
        see :meth:`random`.
        """
        clock = Clock.of(frames, fps, times)
        if self.mode == SEGMENTS:
            places = [segment_middle(clock.places, self.num_frames, k, count) for k in range(count)]
            return np.stack([clock.frames_at(row) for row in places])
        starts = np.linspace(0, 1, count) if count > 1 else [0.5]
        return np.stack([self._dense(clock, fps, start) for start in starts])

    def _dense(self, clock: Clock, fps: float, place: float) -> np.ndarray:
        span = dense_span(self.num_frames, self.rate, clock.rate, self.target_fps or fps)
        return clock.frames_at(
            dense_clip(clock.places, self.num_frames, span, place, self.short_video)
        )


@dataclass(frozen=True)
class Clock:
    """An even clock over a video: ``places`` of it, ``rate`` a second.

    In a video of even frames, its frames. Else the clock ticks at the usual distance between two
    frames (their median), whatever still pictures there are in between, and ``times`` are the
    seconds of the frames that it shows.
    """

    places: int
    rate: float
    times: np.ndarray | None = None

    @classmethod
    def of(cls, frames: int, fps: float, times: np.ndarray | None = None) -> Clock:
        """The clock of a video of so many frames; ``times``: rising seconds of each."""
        if times is None or is_even(times):
            return cls(frames, fps)
        rate = max(fps, min(1 / float(np.median(np.diff(times))), FASTEST))
        return cls(round((times[-1] - times[0]) * rate) + 1, rate, times)

    def frames_at(self, places: np.ndarray) -> np.ndarray:
        """The frames that are nearest in time to places of the clock."""
        if self.times is None:
            return places
        return nearest_frames(self.times[0] + places / self.rate, self.times)


def dense_span(num_frames: int, rate: int, fps: float, target_fps: float) -> float:
    """How many frames of the video a clip of ``num_frames × rate`` frames at the target covers."""
    stretch = fps / target_fps if fps > 0 and target_fps > 0 else 1.0
    return num_frames * rate * stretch


def dense_clip(
    frames: int, num_frames: int, span: float, place: float, short_video: str = REPEAT_LAST
) -> np.ndarray:
    """``num_frames`` indices, even over ``span`` frames.

    ``place`` in [0, 1] puts the clip between the first possible start and the last one. A span
    longer than the video starts at its first frame and repeats the last one or starts over.
    """
    start = place * max(frames - span, 0.0)
    end = start + max(span - 1, 0.0)
    # The rounding error of linspace must not turn an exact frame number into the one before.
    indices = np.floor(np.linspace(start, end, num_frames) + 1e-6).astype(np.int64)
    if short_video == LOOP:
        return indices % frames
    return np.minimum(indices, frames - 1)


def nearest_frames(seconds: np.ndarray, times: np.ndarray) -> np.ndarray:
    """The frames nearest to points in time. ``times``: rising seconds of two or more frames."""
    after = np.clip(np.searchsorted(times, seconds), 1, len(times) - 1)
    before = after - 1
    return np.where(seconds - times[before] <= times[after] - seconds, before, after)


def segment_random(frames: int, num_frames: int, rng: np.random.Generator) -> np.ndarray:
    """One random frame of each of ``num_frames`` equal segments, ``(num_frames,)``."""
    first, last = _segments(frames, num_frames)
    return rng.integers(first, last + 1)


def uneven(at: np.ndarray, hold: float, pace: float, rng: np.random.Generator) -> np.ndarray:
    """Points in time as if the person had waited before or after, or not kept the pace.

    Args:
        at: (T,) rising, 0 at the start of the video and 1 at its end.
        hold: largest share of the clip, at both ends together, in which nothing moves.
        pace: strength, 0 to 1; at 1 the speed doubles or halves towards one end.
        rng: draws how much of both.

    Returns:
        (T,) rising points between 0 and 1.
    """
    still = hold * rng.random()
    before = still * rng.random()
    at = ((at - before) / max(1 - still, 1e-6)).clip(0, 1)
    power = 2 ** (pace * rng.uniform(-1, 1))
    return at**power if rng.random() < 0.5 else 1 - (1 - at) ** power


def segment_middle(frames: int, num_frames: int, view: int = 0, views: int = 1) -> np.ndarray:
    """The frame of each segment at the middle of the ``view``-th of ``views`` equal parts."""
    first, last = _segments(frames, num_frames)
    return first + (last - first) * (2 * view + 1) // (2 * views)


def _segments(frames: int, num_frames: int) -> tuple[np.ndarray, np.ndarray]:
    """First and last frame of each segment, both included; neighbours share their border."""
    borders = np.rint(np.arange(num_frames + 1) * (frames - 1) / num_frames).astype(np.int64)
    return borders[:-1], borders[1:]
