"""The seam that every decoder implements: what is in the video, ``frames_at(indices)``, close."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from videonet.data.video.info import VideoInfo

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
