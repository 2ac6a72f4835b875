"""Sizes of token grids: how kernels, strides and resizing change (T, H, W)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from videonet.ops.precision import without_autocast
from videonet.ops.tracing import once_per_shape

Grid = tuple[int, int, int]  # (T, H, W)


def as_grid(sizes: Iterable[int]) -> Grid:
    """Three sizes, such as those of a shape, as a grid."""
    t, h, w = sizes
    return t, h, w


def volume(grid: Sequence[int]) -> int:
    """Number of cells of a grid (or of taps of a kernel)."""
    return math.prod(grid)


def strided(grid: Grid, stride: Grid, least: int = 0) -> Grid:
    """The grid divided by a stride, rounded down, but not below `least`."""
    t, h, w = (max(n // s, least) for n, s in zip(grid, stride, strict=True))
    return t, h, w


def same_padding(kernel: Grid) -> Grid:
    """Padding of ``kernel // 2`` on both sides of every dimension."""
    t, h, w = kernel
    return t // 2, h // 2, w // 2


def pooled_grid(grid: Sequence[int], kernel: Sequence[int], stride: Sequence[int]) -> Grid:
    """The grid after a convolution whose padding is ``kernel // 2``."""
    t, h, w = (
        (n + 2 * (k // 2) - k) // s + 1 for n, k, s in zip(grid, kernel, stride, strict=True)
    )
    return t, h, w


def resize_rows(table: Tensor, rows: int) -> Tensor:
    """Linearly interpolate a table of vectors (R, C) to ``rows`` rows; the same where R fits."""
    if table.shape[0] == rows:
        return table
    if table.shape[0] == 1:  # exact, where interpolation rounds in some versions of torch
        return table.expand(rows, -1)
    resized = F.interpolate(table.T.unsqueeze(0), size=rows, mode="linear", align_corners=False)
    return resized[0].T  # (rows, C)


def resize_grid(
    table: Tensor,
    old: Grid,
    new: Grid,
    mode: str = "trilinear",
    antialias: bool = True,
    period: Grid | None = None,
) -> Tensor:
    """Interpolate vectors that are laid out on a grid to another grid.

    Args:
        table: (1, T*H*W, C).
        old: (T, H, W) of the table.
        new: the grid that is wanted.
        mode: "trilinear" (MViT), "bicubic": that in space and linear in time (ViT), or "nearest"
            (TimeSformer).
        antialias: of "bicubic", as timm does for ViT; DINOv2 and transformers do not.
        period: (t, h, w) cells of windows. What all windows have in common is repeated on the new
            grid and only the rest interpolated (arXiv 2311.05613); None for no windows.

    Returns:
        (1, T'*H'*W', C).
    """
    if period is not None and old != new:
        common, rest = split_by_period(table, old, period)
        rest = resize_grid(rest, old, new, mode, antialias)
        return rest + tiled(common, new)
    if mode == "bicubic" and old[1:] != new[1:]:
        exact = torch.promote_types(table.dtype, torch.float32)
        rows, columns = (
            bicubic_matrix(n, size, antialias, exact, table.device)
            for n, size in zip(old[1:], new[1:], strict=True)
        )
        with without_autocast(table):
            frames = table.to(exact).reshape(*old, -1)  # (T, H, W, C)
            frames = torch.einsum("ph,qw,thwc->tpqc", rows, columns, frames)
        table = frames.flatten(0, 2).unsqueeze(0).to(table.dtype)
        old = (old[0], *new[1:])
    if old == new:
        return table
    if old[0] == 1 < new[0]:  # exact, where interpolation rounds in some versions of torch
        still = resize_grid(table, old, (1, *new[1:]), mode, antialias)
        return still.repeat(1, new[0], 1)
    volume_first = table.reshape(1, *old, -1).permute(0, 4, 1, 2, 3)  # (1, C, T, H, W)
    if mode == "nearest":
        return F.interpolate(volume_first, size=new, mode=mode).flatten(2).transpose(1, 2)
    resized = F.interpolate(volume_first, size=new, mode="trilinear", align_corners=False)
    return resized.flatten(2).transpose(1, 2)  # (1, T'*H'*W', C)


def split_by_period(table: Tensor, grid: Grid, period: Grid) -> tuple[Tensor, Tensor]:
    """The mean of all windows of a grid, (t, h, w, C), and the table without it.

    Args:
        table: (1, T*H*W, C).
        grid: (T, H, W). Cells beyond the last whole windows do not count in the mean.
        period: (t, h, w) of a window. Along an axis of less than two windows nothing can be said
            of what they have in common: the mean over the axis is taken there.
    """
    t, h, w = (p if n >= 2 * p else 1 for n, p in zip(grid, period, strict=True))
    whole = [n // p * p for n, p in zip(grid, (t, h, w), strict=True)]
    cells = table.reshape(*grid, -1)[: whole[0], : whole[1], : whole[2]]
    windows = cells.unflatten(2, (-1, w)).unflatten(1, (-1, h)).unflatten(0, (-1, t))
    common = windows.mean(dim=(0, 2, 4))  # (t, h, w, C)
    return common, table - tiled(common, grid)


def tiled(window: Tensor, grid: Grid) -> Tensor:
    """A window (t, h, w, C) repeated over a grid, (1, T*H*W, C)."""
    counts = [-(-n // p) for n, p in zip(grid, window.shape, strict=False)]
    cells = window.repeat(*counts, 1)[: grid[0], : grid[1], : grid[2]]
    return cells.reshape(1, volume(grid), -1)


@once_per_shape
def bicubic_matrix(
    old: int, new: int, antialias: bool, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """The matrix that bicubic interpolation along one axis multiplies by, (new, old).

    The interpolation of an identity: as a constant it needs no gradient, which torch's compilers
    do not have of this kind of interpolation at sizes that change.
    """
    identity = torch.eye(old, dtype=dtype, device=device)[None, None]
    return F.interpolate(identity, size=(new, old), mode="bicubic", antialias=antialias)[0, 0]


def one_hot_positions(grid: Grid, dtype: torch.dtype, device: torch.device) -> Tensor:
    """One-hot coordinates of every cell, (T*H*W, T+H+W).

    Row ``(t, h, w)`` has a one in columns ``t``, ``T + h`` and ``T + H + w``.
    """
    t, h, w = grid
    eyes = [torch.eye(n, dtype=dtype, device=device) for n in grid]
    return torch.cat(
        (
            eyes[0][:, None, None, :].expand(t, h, w, t),
            eyes[1][None, :, None, :].expand(t, h, w, h),
            eyes[2][None, None, :, :].expand(t, h, w, w),
        ),
        dim=-1,
    ).reshape(t * h * w, t + h + w)
