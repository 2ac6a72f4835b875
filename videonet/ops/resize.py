"""Resizing maps in height and width; time stays as it is."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


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
    frames = x.flatten(1, 2)  # (B, C*T, H, W): an image with more channels
    if mode == "nearest":
        resized = F.interpolate(frames, size=size, mode=mode)
    else:
        resized = F.interpolate(frames, size=size, mode=mode, align_corners=align_corners)
    return resized.unflatten(1, x.shape[1:3])
