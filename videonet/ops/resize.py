"""Resizing and pooling of maps in height and width; time stays as it is."""

from __future__ import annotations

from collections.abc import Callable

import torch
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


def resize_bytes(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resizing of uint8 images in the integers of OpenCV's ``resize``.

    Weights have 11 bits, and no more than that: pictures come out as those that networks of
    OpenCV's users were trained with, where others differ by 1 here and there.

    Args:
        images: uint8 (…, H, W).
        size: (height, width) that is wanted.

    Returns:
        uint8 (…, *size).
    """
    height, width = images.shape[-2:]
    if (height, width) == tuple(size):
        return images
    whole = images.to(torch.int32)
    if (height, width) == (2 * size[0], 2 * size[1]):  # OpenCV averages there
        sums = whole.unflatten(-1, (-1, 2)).sum(-1).unflatten(-2, (-1, 2)).sum(-2)
        return ((sums + 2) >> 2).to(torch.uint8)
    first, second, rest, share = _neighbours(width, size[1], images.device)
    outside = (first < 0) | (second > width - 1)  # at the sides OpenCV takes one pixel alone,
    rest, share = rest.where(~outside, 2048), share.where(~outside, 0)
    first, second = first.clamp(0, width - 1), second.clamp(0, width - 1)
    rows = (whole[..., first] * rest + whole[..., second] * share) >> 4  # (…, H, W')
    first, second, rest, share = _neighbours(height, size[0], images.device)
    first, second = first.clamp(0, height - 1), second.clamp(0, height - 1)  # above, one row twice
    upper = rows[..., first, :] * rest[:, None] >> 16
    lower = rows[..., second, :] * share[:, None] >> 16
    return ((upper + lower + 2) >> 2).clamp(0, 255).to(torch.uint8)


def resize_antialiased(images: Tensor, size: tuple[int, int], mode: str = "bilinear") -> Tensor:
    """Antialiased resizing of uint8 images, to the bytes that torchvision's ``resize`` gives.

    Args:
        images: uint8 (N, C, H, W).
        size: (height, width) that is wanted.
        mode: "bilinear" or "bicubic".

    Returns:
        uint8 (N, C, *size).
    """
    vectors = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    if images.device.type == "cpu" and (mode == "bicubic" or vectors):
        return F.interpolate(images, size=size, mode=mode, align_corners=False, antialias=True)
    # Elsewhere it depends on torchvision's version whether floats are rounded.
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional

    return functional.resize(images, list(size), InterpolationMode(mode), antialias=True)


def _neighbours(
    before: int, after: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Both pixels that each new one lies between, and their shares in 2048."""
    steps = torch.arange(after, device=device, dtype=torch.float64)
    places = ((steps + 0.5) * (before / after) - 0.5).float()
    share = places - places.floor()
    rest, share = ((2048 * x).round().to(torch.int32) for x in (1 - share, share))
    first = places.floor().long()
    return first, first + 1, rest, share
