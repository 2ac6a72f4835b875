"""The seam that every decoder implements: what is in the video, ``frames_at(indices)``, close."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from videonet.data.video.info import VideoInfo, is_even
from videonet.errors import DecodeError

Reader = TypeVar("Reader", bound="VideoReader")


class VideoReader(ABC):
    """An open video. Use it as a context manager; it belongs to the process that opened it."""

    def __init__(
        self,
        path: str,
        info: VideoInfo,
        times: np.ndarray,
        short_side: int | None,
        allow_larger: bool = False,
    ):
        self.path = path
        self.info = info
        self.times = times  # (frames,) seconds from the first frame
        self.size = scaled_size(info.width, info.height, short_side, allow_larger)  # upright

    def frames_at(self, indices: Sequence[int] | np.ndarray | Tensor) -> Tensor:
        """Return the frames at these indices, in this order, repeats allowed.

        Returns uint8 ``(T, H, W, 3)``, upright RGB. Each distinct frame is decoded once.
        Raises DecodeError where the file is damaged, IndexError outside ``0 … frames - 1``.
        """
        indices = np.asarray(indices, dtype=np.int64)
        wanted, place = np.unique(indices, return_inverse=True)
        if not len(wanted) or wanted[0] < 0 or wanted[-1] >= self.info.frames:
            raise IndexError(f"{self.path}: frames {indices.tolist()} of {self.info.frames}")
        frames = self._read(wanted)  # (distinct, H, W, 3)
        if len(wanted) == len(indices) and (place[1:] > place[:-1]).all():
            return frames
        return frames[torch.from_numpy(place)]

    @abstractmethod
    def _read(self, wanted: np.ndarray) -> Tensor:
        """Decode the frames at rising, distinct, valid indices."""

    @abstractmethod
    def close(self) -> None:
        """Give back the file and the decoder's memory."""

    def __enter__(self: Reader) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class SelectedFrames(VideoReader):
    """Some frames of a video, as if there were no others; closing it closes the video.

    Raises DecodeError where the video has no such frames.
    """

    def __init__(self, reader: VideoReader, numbers: np.ndarray):
        if len(numbers) == 0 or numbers[0] < 0 or numbers[-1] >= reader.info.frames:
            reader.close()
            raise DecodeError(
                f"cannot read {reader.path}: it has {reader.info.frames} frames, but "
                f"{f'number {numbers[-1]}' if len(numbers) else 'none'} is wanted"
            )
        times = reader.times[numbers]
        span = float(times[-1] - times[0])
        fps = (len(numbers) - 1) / span if span > 0 else reader.info.fps
        info = replace(
            reader.info,
            frames=len(numbers),
            fps=fps,
            duration=len(numbers) / fps if fps else reader.info.duration,
            even=is_even(times),
            counted="",
        )
        super().__init__(reader.path, info, times - times[0], None)
        self.size = reader.size
        self._reader, self._numbers = reader, numbers

    def _read(self, wanted: np.ndarray) -> Tensor:
        return self._reader.frames_at(self._numbers[wanted])

    def close(self) -> None:
        self._reader.close()


def scaled_size(
    width: int, height: int, short_side: int | None, allow_larger: bool = False
) -> tuple[int, int]:
    """The (width, height) with this short side and the same shape, the long side rounded down.

    ``allow_larger``: up to twice the short side the size stays, as scaling would cost more than it
    saves.
    """
    if short_side is None or (allow_larger and min(width, height) <= 2 * short_side):
        return width, height
    if width <= height:
        return short_side, height * short_side // width
    return width * short_side // height, short_side
