"""Resizing and square crops of uint8 clips ``(T, 3, H, W)``: all that the views of a test need."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from videonet.data.targets import has_places
from videonet.data.transforms.geometry import frame_size, shifting
from videonet.data.video.reader import scaled_size
from videonet.errors import ConfigError
from videonet.ops.resize import resize_antialiased

Moving = Mapping[str, Tensor]  # the targets of a clip, by name


def pick_frames(clip: Tensor, rows: Tensor) -> Tensor:
    """``clip[rows]`` of ``(T, 3, H, W)``, with the colours of a pixel still side by side."""
    return clip.permute(0, 2, 3, 1)[rows].permute(0, 3, 1, 2)


def resize_short_side(clip: Tensor, side: int, interpolation: str = "bilinear") -> Tensor:
    """Resize ``(T, 3, H, W)`` so that its short side is ``side`` pixels, antialiased."""
    height, width = frame_size(clip)
    if min(height, width) == side:
        return clip
    width, height = scaled_size(width, height, side)
    return resize_antialiased(clip, (height, width), interpolation)


def spatial_crops(
    clip: Tensor,
    size: int,
    count: int,
    short_side: int | None = None,
    targets: Moving | None = None,
    interpolation: str = "bilinear",
) -> list[Any]:
    """Square evaluation crops of ``(T, 3, H, W)``: the centre, or three along the long side.

    Three are left, centre, right, or top, centre, bottom of an upright clip; the short side is
    resized to ``short_side`` (None: to ``size``) before, by ``interpolation``.
    """
    if count not in (1, 3):
        raise ConfigError(f"TEST.NUM_SPATIAL_CROPS is {count}, expected 1 or 3")
    clip = resize_short_side(clip, short_side or size, interpolation)
    down, right = clip.shape[-2] - size, clip.shape[-1] - size
    shares = (0.5,) if count == 1 else (0.0, 0.5, 1.0)
    return [
        cut(clip, targets, math.ceil(down * share), math.ceil(right * share), size)
        for share in shares
    ]


def cut(clip: Tensor, targets: Moving | None, top: int, left: int, size: int) -> Any:
    """A square of a clip; targets have their places in frames of any size of that shape."""
    out = clip[..., top : top + size, left : left + size]
    if targets is None:
        return out
    if not has_places(targets):
        return out, dict(targets)
    from videonet.data.transforms.moving import fitted, move  # and with it torchvision

    matrix = shifting(-left, -top) @ fitted(targets, frame_size(clip))
    return out, move(targets, matrix, (size, size))
