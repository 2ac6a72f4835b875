"""Videos that lie in memory as frames: arrays, tensors, pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from videonet.data.video.info import VideoInfo
from videonet.data.video.reader import VideoReader
from videonet.errors import DecodeError

LAYOUTS = "(T, H, W, 3), (3, T, H, W) or (T, 3, H, W)"
Frames = np.ndarray | Tensor | Sequence[np.ndarray | Tensor | Image.Image]


class FramesReader(VideoReader):
    """Reads frames that lie in memory.

    Args:
        frames: uint8 RGB, (T, H, W, 3).
        fps: frames per second.
        name: what messages call them.
    """

    def __init__(self, frames: Tensor, fps: float, name: str = "the frames"):
        self._frames: Tensor | None = frames
        count, height, width, _ = frames.shape
        info = VideoInfo(
            count, fps, width, height, 0, count / fps, "rawvideo", "rgb24", "memory", False
        )
        super().__init__(name, info, np.arange(count) / fps, None)

    def _read(self, wanted: np.ndarray) -> Tensor:
        if self._frames is None:
            raise DecodeError(f"cannot read {self.path}: the reader is closed")
        return self._frames[torch.from_numpy(wanted)]

    def close(self) -> None:
        """Let go of the frames."""
        self._frames = None


def stack_frames(frames: Any) -> Tensor:
    """Frames as uint8 RGB (T, H, W, 3).

    Args:
        frames: an array or a tensor of one of the :data:`LAYOUTS`; or a sequence of pictures of
            one size, each of Pillow or uint8 (H, W, 3) or (3, H, W).

    Raises:
        DecodeError: that is not what they are.
    """
    if isinstance(frames, np.ndarray | Tensor):
        return _ordered(_as_bytes(frames, "the frames"))
    pictures = [_picture(item, number) for number, item in enumerate(frames)]
    if not pictures:
        raise DecodeError("the list of frames is empty")
    sizes = {(p.shape[1], p.shape[0]) for p in pictures}
    if len(sizes) > 1:
        shown = ", ".join(f"{width}x{height}" for width, height in sorted(sizes)[:3])
        raise DecodeError(f"the frames are of different sizes ({shown}), expected one size")
    return torch.stack(pictures)


def _as_bytes(values: np.ndarray | Tensor, name: str) -> Tensor:
    if not isinstance(values, Tensor):
        if values.dtype != np.uint8:
            raise DecodeError(f"{name} are {values.dtype}, expected uint8 with values 0 … 255")
        values = torch.from_numpy(np.ascontiguousarray(values))
    if values.dtype != torch.uint8:
        kind = str(values.dtype).removeprefix("torch.")
        raise DecodeError(f"{name} are {kind}, expected uint8 with values 0 … 255")
    return values.detach().cpu()


def _ordered(frames: Tensor) -> Tensor:
    """(T, H, W, 3) of whichever layout has its colours at one place alone."""
    shape = tuple(frames.shape)
    if frames.dim() != 4 or 0 in shape or 3 not in (shape[0], shape[1], shape[3]):
        raise DecodeError(f"the frames have the shape {shape}, expected {LAYOUTS}")
    if shape[3] == 3:  # nobody means pictures that are three pixels wide
        return frames
    if shape[0] == shape[1] == 3:
        raise DecodeError(
            f"the frames have the shape {shape}, which may be (3, T, H, W) or (T, 3, H, W): give "
            "them as (T, H, W, 3)"
        )
    return frames.permute(1, 2, 3, 0) if shape[0] == 3 else frames.permute(0, 2, 3, 1)


def _picture(item: Any, number: int) -> Tensor:
    if isinstance(item, Image.Image):
        return torch.from_numpy(np.array(item.convert("RGB")))
    if not isinstance(item, np.ndarray | Tensor):
        raise DecodeError(
            f"frame {number} is a {type(item).__name__}, expected a picture of Pillow, an array or "
            "a tensor"
        )
    picture = _as_bytes(item, f"the values of frame {number}")
    shape = tuple(picture.shape)
    if picture.dim() != 3 or 3 not in (shape[0], shape[2]) or 0 in shape:
        raise DecodeError(f"frame {number} has the shape {shape}, expected (H, W, 3) or (3, H, W)")
    return picture if shape[2] == 3 else picture.permute(1, 2, 0)
