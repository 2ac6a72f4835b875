"""Resizing and pooling of maps in height and width; time stays as it is."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

POOLINGS: dict[str, Callable[..., Tensor]] = {"avg": F.avg_pool2d, "max": F.max_pool2d}


def resize_space(
    x: Tensor, size: tuple[int, int], mode: str = "bilinear", align_corners: bool = False
) -> Tensor:
    """Interpolate every frame to another height and width.

    Args:
        x: (B, C, T, H, W).
        size: (height, width) that is wanted.
        mode: "bilinear", "bicubic" or "nearest".
        align_corners: whether the centres of the corner cells lie on each other (else the corners
            of the frame do); nothing to "nearest".

    Returns:
        (B, C, T, *size).
    """
    if tuple(x.shape[3:]) == tuple(size):
        return x
    corners = None if mode == "nearest" else align_corners
    if x.is_contiguous():
        frames = x.flatten(1, 2)  # (B, C*T, H, W): an image of more channels, which is a view
        frames = F.interpolate(frames, size=size, mode=mode, align_corners=corners)
        return frames.unflatten(1, x.shape[1:3])
    frames = x.transpose(1, 2).flatten(0, 1)  # (B*T, C, H, W): a view in channels-last memory
    frames = F.interpolate(frames, size=size, mode=mode, align_corners=corners)
    return frames.unflatten(0, (x.shape[0], x.shape[2])).transpose(1, 2)


def pool_space(x: Tensor, size: int, pooling: str) -> Tensor:
    """Pool windows of `size` × `size` cells of (B, C, T, H, W) that do not overlap.

    Cells beyond the last whole window are left out; a map smaller than one is a window itself.
    """
    if size == 1:
        return x
    window = (min(size, x.shape[3]), min(size, x.shape[4]))
    frames = x.transpose(1, 2).flatten(0, 1)  # (B*T, C, H, W)
    frames = POOLINGS[pooling](frames, window, window)
    return frames.unflatten(0, (x.shape[0], x.shape[2])).transpose(1, 2)
