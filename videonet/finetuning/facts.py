"""What is known of the videos before anything is chosen; numbers alone, nothing is read here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

LONG = 600.0  # seconds from which on a video is looked at in places, and not read to its end
STILL = 0.002  # share of the pixels that move below which nothing moves


@dataclass(frozen=True)
class Look:
    """What a video looks like.

    Attributes:
        moving: share of the pixels that change from one look to the next, 0 to 1 (median).
        touched: share of the pixels that change at all.
        border: share of the pixels at the border that change at all: high where the camera moves.
        scene: mean picture of the video, as 16 × 16 pixels of 3 colours, flat, 0 to 255.
        course: some pictures spread over the video, 8 × 8 grey pixels each, flat, 0 to 255.
    """

    moving: float
    touched: float
    border: float
    scene: Sequence[int]
    course: Sequence[int]


@dataclass(frozen=True)
class VideoFacts:
    """What is known of one video.

    Attributes:
        path: the file.
        label: number of its class.
        reason: why it cannot be used; empty where it can.
        digest: of its content; empty where not known.
        frames, fps, seconds: how long it is.
        width, height: of the upright picture in pixels.
        still: it is a single picture.
        look: what it looks like; None where nobody looked.
    """

    path: str
    label: int
    reason: str = ""
    digest: str = ""
    frames: int = 0
    fps: float = 0.0
    seconds: float = 0.0
    width: int = 0
    height: int = 0
    still: bool = False
    look: Look | None = None


@dataclass(frozen=True)
class DataFacts:
    """What is known of the videos that are used, together.

    Attributes:
        classes: names, in the order of their numbers.
        train: number of training videos of each class.
        val: number of videos of each class that are held out.
        seconds: length of every video.
        rates: frames per second of every video.
        frames: number of frames of every video.
        shapes: (width, height) of every video.
        moving: see :class:`Look`, the median over the videos; None where nobody looked.
        border: the same.
        pictures: they are single pictures.
    """

    classes: Sequence[str]
    train: Sequence[int]
    val: Sequence[int]
    seconds: Sequence[float]
    rates: Sequence[float]
    frames: Sequence[int]
    shapes: Sequence[tuple[int, int]]
    moving: float | None = None
    border: float | None = None
    pictures: bool = False

    @property
    def num_train(self) -> int:
        """The number of training videos."""
        return sum(self.train)

    @property
    def num_val(self) -> int:
        """The number of videos that are held out."""
        return sum(self.val)

    def length(self, share: float = 0.5) -> float:
        """The length in seconds that this share of the videos does not exceed."""
        return float(np.quantile(self.seconds, share))

    @property
    def rate(self) -> float:
        """The median of the frames per second."""
        return float(np.median(self.rates))

    @property
    def aspect(self) -> float:
        """Long side over short side, the median."""
        return float(np.median([max(shape) / max(min(shape), 1) for shape in self.shapes]))

    @property
    def upright(self) -> float:
        """The share of videos that are higher than wide."""
        return float(np.mean([height > width for width, height in self.shapes]))

    @property
    def short_side(self) -> float:
        """The median of the short sides in pixels."""
        return float(np.median([min(shape) for shape in self.shapes]))

    @property
    def imbalance(self) -> float:
        """Training videos of the largest class over those of the smallest that has some."""
        found = [count for count in self.train if count]
        return max(found) / min(found) if found else 1.0


def facts_of(videos: Sequence[VideoFacts], classes: Sequence[str], held_out: set[int]) -> DataFacts:
    """What is known of videos together.

    Args:
        videos: all of them usable.
        classes: names of the classes.
        held_out: places of the videos that are held out.
    """
    counts = [
        Counter(v.label for k, v in enumerate(videos) if (k in held_out) == out)
        for out in (False, True)
    ]
    train, val = ([count[label] for label in range(len(classes))] for count in counts)
    looks = [video.look for video in videos if video.look is not None]
    return DataFacts(
        classes=list(classes),
        train=train,
        val=val,
        seconds=[video.seconds for video in videos],
        rates=[video.fps for video in videos],
        frames=[video.frames for video in videos],
        shapes=[(video.width, video.height) for video in videos],
        moving=float(np.median([look.moving for look in looks])) if looks else None,
        border=float(np.median([look.border for look in looks])) if looks else None,
        pictures=all(video.still for video in videos),
    )


@dataclass(frozen=True)
class Copies:
    """Videos that are the same, or look the same.

    Attributes:
        of: for every video the first one that it is a copy of; its own place without one.
        same: (place, place of the first) of the pairs with the same content.
        alike: the same of pairs that look the same from start to end.
    """

    of: Sequence[int]
    same: Sequence[tuple[int, int]] = field(default=())
    alike: Sequence[tuple[int, int]] = field(default=())


ALIKE = 2.0  # grey levels by which the pictures of two copies may differ, on average
SAME_LENGTH = 0.03  # share by which their lengths may differ


def find_copies(videos: Sequence[VideoFacts]) -> Copies:
    """Which videos are copies of one another: by content, or by look from start to end."""
    first: dict[str, int] = {}
    of, same = list(range(len(videos))), []
    for place, video in enumerate(videos):
        if video.digest and (found := first.setdefault(video.digest, place)) != place:
            of[place] = found
            same.append((place, found))
    alike = []
    own = [k for k, video in enumerate(videos) if of[k] == k and video.look is not None]
    courses = np.array([v.look.course for k in own if (v := videos[k]).look], dtype=np.float32)
    lengths = np.array([videos[k].seconds for k in own])
    spread = courses.std(axis=1) if len(own) else np.zeros(0)
    for row, place in enumerate(own[1:], 1):
        near = np.abs(lengths[:row] - lengths[row]) <= SAME_LENGTH * max(lengths[row], 0.1)
        near &= (spread[:row] > ALIKE) & (spread[row] > ALIKE)  # not of blank pictures
        rows = np.flatnonzero(near)
        if not len(rows):
            continue
        gaps = np.abs(courses[rows] - courses[row]).mean(axis=1)
        if gaps.min() <= ALIKE:
            found = of[own[int(rows[gaps.argmin()])]]
            of[place] = found
            alike.append((place, found))
    return Copies(of, same, alike)
