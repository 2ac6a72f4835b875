"""From a file to the clips that are scored: all views of a video, or windows over all of it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from fvcore.common.config import CfgNode
from torch import Tensor

from videonet.data.decode import PyAVReader
from videonet.data.loading.build import evaluation_views
from videonet.data.loading.dataset import EvaluationViews
from videonet.data.transforms.crops import spatial_crops
from videonet.data.transforms.sampling import Clock
from videonet.data.video.names import is_picture
from videonet.data.video.pictures import PictureReader
from videonet.errors import DecodeError
from videonet.inference.inputs import local_file
from videonet.inference.options import Options
from videonet.inference.windows import SlidingPlan, Window, WindowBuffer, sliding_windows
from videonet.terminal import ShortRepr

MARKED = 2**20  # bytes at either end of a file that its fingerprint looks at


@dataclass(frozen=True)
class Span:
    """What a piece of a video holds.

    Attributes:
        first: number of its first window, from 0.
        times: (start, end) in seconds of each window, or of each view.
        clips: the number of its clips; a window has one for each of its crops.
        seconds: of the video that it stands for.
        last: whether nothing of the video follows.
        mark: see :func:`fingerprint`; empty where nobody asked.
    """

    first: int = 0
    times: list[tuple[float, float]] = field(default_factory=list)
    clips: int = 0
    seconds: float = 0.0
    last: bool = True
    mark: str = ""


@dataclass(frozen=True, repr=False)
class Piece(ShortRepr):
    """A part of a video that is decoded in one go.

    Attributes:
        span: what it holds.
        clips: uint8 (N, 3, T, S, S).
    """

    span: Span
    clips: Tensor


@dataclass(frozen=True)
class ClipReader:
    """Reads files in pieces, in any process.

    Attributes:
        views: how clips are cut.
        sliding: windows over the whole video instead of the views of testing.
        window: seconds, see :meth:`videonet.inference.predictor.Predictor.plan`.
        stride: seconds, likewise.
        crops: of each window.
        most: clips in a piece of windows; the views of a video are one piece.
        marks: also read the files' fingerprints.
    """

    views: EvaluationViews
    sliding: bool = False
    window: float | None = None
    stride: float | None = None
    crops: int = 1
    most: int = 8
    marks: bool = False

    @classmethod
    def of(cls, cfg: CfgNode, options: Options, most: int, *, marks: bool = False) -> ClipReader:
        """A reader for a model's configuration.

        Args:
            cfg: how clips are made (``DATA``, ``TEST``).
            options: which clips of a video.
            most: see :attr:`most`.
            marks: see :attr:`marks`.
        """
        views, crops = evaluation_views(cfg), options.crops
        return cls(views, options.sliding, options.window, options.stride, crops, most, marks)

    @property
    def room(self) -> int:
        """The largest number of clips in a piece."""
        return self._windows * self.crops if self.sliding else self.views.count

    @property
    def _windows(self) -> int:
        return max(1, self.most // self.crops)

    def __call__(self, path: str, first: int = 0) -> Iterator[Piece]:
        """The pieces of a video; the last one says so, and may be empty.

        Args:
            path: a file, or an address that :func:`~videonet.inference.inputs.local_file` fetches.
            first: number of the window to begin with.

        Raises:
            DecodeError: the file cannot be read, or not to its end.
        """
        return self._pieces_of_windows(path, first) if self.sliding else self._views(path)

    def _views(self, path: str) -> Iterator[Piece]:
        views = self.views
        with local_file(path) as file, views.open(str(file)) as reader:
            mark = fingerprint(file) if self.marks else ""
            info, clock, clips = reader.info, reader.times, views.of(reader).clips
        indices = views.sampler.uniform(info.frames, info.fps, views.temporal, clock)
        times = [(clock[row.min()], clock[row.max()] + 1 / info.fps) for row in indices]
        each = [(float(start), float(end)) for start, end in times for _ in range(views.spatial)]
        yield Piece(Span(0, each, len(clips), info.duration, True, mark), clips)

    def _pieces_of_windows(self, path: str, first: int) -> Iterator[Piece]:
        with local_file(path) as file:
            windows = file_windows(
                str(file), self.views, self.window, self.stride, self.crops, first
            )
            mark = fingerprint(file) if self.marks else ""
            covered, following = 0.0, next(windows, None)
            while True:
                group: list[Window] = []
                error: DecodeError | None = None
                while following is not None and len(group) < self._windows and error is None:
                    group.append(following)
                    try:
                        following = next(windows, None)
                    except DecodeError as raised:
                        error = raised
                times = [(window.start, window.end) for window in group]
                seconds = times[-1][1] - max(times[0][0], covered) if times else 0.0
                covered = times[-1][1] if times else covered
                rows = torch.cat([self._none(), *(window.clips for window in group)])
                last = following is None and error is None
                yield Piece(Span(first, times, len(rows), seconds, last, mark), rows)
                if error is not None:
                    raise error
                if last:
                    return
                first += len(group)

    def _none(self) -> Tensor:
        return torch.empty((0, *self.views.clip_shape), dtype=torch.uint8)


def fingerprint(path: str | Path) -> str:
    """A hash of a file's size and of its first and last ``MARKED`` bytes; empty for a folder."""
    if not os.path.isfile(path):
        return ""
    size = os.path.getsize(path)
    digest = hashlib.blake2b(f"{size} ".encode(), digest_size=16)
    with open(path, "rb") as file:
        digest.update(file.read(MARKED))
        if size > MARKED:
            file.seek(max(MARKED, size - MARKED))
            digest.update(file.read(MARKED))
    return digest.hexdigest()


def file_windows(
    path: str,
    views: EvaluationViews,
    window: float | None,
    stride: float | None,
    crops: int,
    first: int,
) -> Iterator[Window]:
    """The windows of a file, which is decoded once, forwards; see ``Predictor.windows``.

    Raises:
        DecodeError: the file cannot be read, or not to its end.
    """
    pictures = is_picture(path) or os.path.isdir(path)
    with PictureReader(path, views.frames_fps) if pictures else PyAVReader(path) as reader:
        clock = Clock.of(reader.info.frames, reader.info.fps, reader.times)
        plan = SlidingPlan.make(views.sampler, clock.rate, window, stride)
        start = np.searchsorted(reader.times, first * plan.stride / plan.fps) - 1
        frames = reader.forwards(int(np.clip(start, 0, reader.info.frames - 1)))
        buffer = WindowBuffer(plan, picture_crops(views, crops), first=first)
        yield from sliding_windows(frames, buffer)


def picture_crops(views: EvaluationViews, crops: int) -> Callable[[np.ndarray], Tensor]:
    """A function that resizes and crops pictures as testing does, to uint8 (crops, 3, S, S)."""
    size, short_side, by = views.crop_size, views.short_side, views.interpolation

    def prepare(picture: np.ndarray) -> Tensor:
        """(H, W, 3) -> (crops, 3, S, S)."""
        frame = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)
        clips = spatial_crops(frame.unsqueeze(0), size, crops, short_side, interpolation=by)
        return torch.cat(clips)

    return prepare
