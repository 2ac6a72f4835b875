"""Pooling of token grids, channels last: depth-wise convolution, maximum or average.

Tokens ``(B, T*H*W, C)`` are a channels-last 3D tensor as they stand, so no operator here copies
them into channels-first order.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from videonet.ops.depthwise import depthwise_conv
from videonet.ops.grid import Grid, as_grid, same_padding

POOL_MODES = ("conv", "conv_unshared", "max", "avg")


def to_volume(tokens: Tensor, grid: Grid) -> Tensor:
    """(B, T*H*W, C) -> (B, C, T, H, W), a view in channels-last memory."""
    return tokens.unflatten(1, grid).permute(0, 4, 1, 2, 3)


def to_tokens(volume: Tensor) -> tuple[Tensor, Grid]:
    """(B, C, T, H, W) -> tokens (B, T*H*W, C) and the grid; a view for channels-last memory."""
    return volume.permute(0, 2, 3, 4, 1).flatten(1, 3), as_grid(volume.shape[2:])


def conv_pool(
    tokens: Tensor,
    grid: Grid,
    weight: Tensor,
    stride: Grid,
    padding: Grid | None = None,
    bias: Tensor | None = None,
) -> tuple[Tensor, Grid]:
    """Depth-wise convolution of tokens, the kernel repeated over groups of channels.

    Args:
        tokens: (B, T*H*W, C).
        weight: (D, 1, kt, kh, kw) with D a divisor of C: the heads share one kernel.
        stride, padding: (t, h, w); the zero padding is ``kernel // 2`` if None.
        bias: (C,), or None.

    Returns:
        Tokens (B, T'*H'*W', C) and the new grid.
    """
    padding = same_padding(as_grid(weight.shape[2:])) if padding is None else padding
    return to_tokens(depthwise_conv(to_volume(tokens, grid), weight, bias, stride, padding))


def max_pool(tokens: Tensor, grid: Grid, kernel: Grid, stride: Grid) -> tuple[Tensor, Grid]:
    """Maximum over windows, in which cells outside the grid do not count."""
    volume = to_volume(tokens, grid)
    return to_tokens(F.max_pool3d(volume, kernel, stride, same_padding(kernel)))


def avg_pool(
    tokens: Tensor,
    grid: Grid,
    kernel: Grid,
    stride: Grid,
    padding: Grid | None = None,
    ceil_mode: bool = False,
) -> tuple[Tensor, Grid]:
    """Mean over windows: spatial padding counts as zeros, frames outside the clip do not count.

    The spatial rule is the one of the official models (``count_include_pad``); leaving out what
    lies before and after the clip keeps a still clip the same as its image. With `ceil_mode`
    windows that reach beyond the padding in height or width count too, as in ``nn.AvgPool2d``.
    """
    kt, kh, kw = kernel
    pt, ph, pw = same_padding(kernel) if padding is None else padding
    frames = to_volume(tokens, grid).transpose(1, 2).flatten(0, 1)  # (B*T, C, H, W)
    # Not avg_pool3d: it refuses a grid smaller than its kernel, whatever the padding, and on the
    # CPU half precision.
    frames = F.avg_pool2d(frames, (kh, kw), stride[1:], (ph, pw), ceil_mode)
    volume = frames.unflatten(0, (-1, grid[0])).transpose(1, 2)  # (B, C, T, H', W')
    if kt > 1 or stride[0] > 1:
        volume = _mean_over_frames(volume, kt, stride[0], pt)
    return to_tokens(volume)


def _mean_over_frames(volume: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """Means of (B, C, T, H, W) over windows of frames, in which only frames of the clip count."""

    def sums(x: Tensor) -> Tensor:
        return F.avg_pool2d(F.pad(x, (0, 0, padding, padding)), (kernel, 1), (stride, 1))

    total = sums(volume.flatten(3)).unflatten(3, volume.shape[3:])  # (B, C, T', H, W)
    share = sums(torch.ones_like(volume[:1, :1, :, 0, :1]))  # (1, 1, T', 1)
    return total / share.unsqueeze(4)
