"""Mask units: windows that stay apart while their cells are pooled (Hiera, arXiv 2306.00989).

A grid is cut into units once. From then on cells are held unit by unit, (B, U, m, C): pooling and
attention within units need no other unit, and leaving units out is a choice of rows. Where the last
units reach beyond the grid, cells outside take no part in attention or pooling.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from videonet.ops.attention import attention, check_heads
from videonet.ops.grid import Grid, strided, volume
from videonet.ops.linear import call_linear
from videonet.ops.windows import MASKED, Windows, cut_windows

Reduce = Callable[..., Tensor]


@dataclass(frozen=True)
class Units:
    """How cells (B, U, m, C) lie on a grid.

    Attributes:
        windows: the grid and the size of a unit, both in cells.
        inside: (1, U, m), true for cells of the grid; None where no unit reaches beyond it.
    """

    windows: Windows
    inside: Tensor | None = None

    def pooled(self, stride: Grid) -> Units:
        """The units after their cells are pooled; a cell is inside if a part of it was."""
        t, h, w = (-(-n // s) for n, s in zip(self.windows.grid, stride, strict=True))
        windows = Windows((t, h, w), strided(self.windows.size, stride))
        if self.inside is None:
            return Units(windows)
        inside = pool_cells(self.inside.unsqueeze(3), self.windows.size, stride)
        return Units(windows, inside.squeeze(3))


def cut_units(x: Tensor, grid: Grid, size: Grid) -> tuple[Tensor, Units]:
    """Tokens (B, T*H*W, C) -> cells (B, U, m, C), units and cells in the order of the grid."""
    windows = Windows(grid, size)
    cells = cut_windows(x.unflatten(1, grid), windows).flatten(1, 3)
    if windows.padded == grid:
        return cells, Units(windows)
    everywhere = torch.ones(1, *grid, 1, dtype=torch.bool, device=x.device)
    return cells, Units(windows, cut_windows(everywhere, windows).flatten(1, 3).squeeze(3))


def pool_cells(x: Tensor, size: Grid, stride: Grid, reduce: Reduce = torch.amax) -> Tensor:
    """Maxima over blocks of `stride` cells: (B, U, m, C) -> (B, U, m', C).

    Args:
        size: (t, h, w) of a unit, multiples of `stride`.
        reduce: what becomes of the cells of a block, called for one axis after the other.
    """
    x = x.unflatten(2, size)
    for axis, step in enumerate(stride, start=2):
        if step > 1:
            x = reduce(x.unflatten(axis, (-1, step)), dim=axis + 1)
    return x.flatten(2, 4)


def pool_units(x: Tensor, units: Units, stride: Grid) -> Tensor:
    """The same for cells on `units`: those outside do not count; blocks of such cells are zero."""
    if units.inside is None:
        return pool_cells(x, units.windows.size, stride)
    inside = units.inside.unsqueeze(3)
    x = x.masked_fill(~inside, torch.finfo(x.dtype).min)
    pooled = pool_cells(x, units.windows.size, stride)
    return pooled.masked_fill(~pool_cells(inside, units.windows.size, stride), 0.0)


def average_units(x: Tensor, units: Units, stride: Grid) -> Tensor:
    """Means over blocks of `stride` cells that lie inside: (B, U, m, C) -> (B, U, m', C)."""
    if units.inside is None:
        return pool_cells(x, units.windows.size, stride, torch.sum) / volume(stride)
    inside = units.inside.unsqueeze(3).to(x.dtype)
    total, count = (
        pool_cells(y, units.windows.size, stride, torch.sum) for y in (x * inside, inside)
    )
    return total / count.clamp(min=1)


class MaskUnitAttention(nn.Module):
    """Attention within units or among all cells, of queries that are pooled first.

    Args:
        dim, dim_out: widths of its input and of attention and output.
        stride: (t, h, w) of the pooling of queries by their maximum; None for none.
        within_units: cells attend to those of their own unit alone.
    """

    def __init__(
        self, dim: int, dim_out: int, num_heads: int, stride: Grid | None, within_units: bool
    ):
        super().__init__()
        check_heads(dim_out, num_heads)
        self.num_heads, self.stride, self.within_units = num_heads, stride, within_units
        self.qkv = nn.Linear(dim, 3 * dim_out)
        self.proj = nn.Linear(dim_out, dim_out)

    def forward(self, x: Tensor, units: Units) -> Tensor:
        """Cells (B, U, m, dim) -> (B, U, m', dim_out)."""
        q, k, v = call_linear(self.qkv, x).chunk(3, dim=3)
        if self.stride is not None:
            q = pool_units(q, units, self.stride)
        shape = q.shape
        key_bias = self._key_bias(units, k)
        first, last = (0, 1) if self.within_units else (1, 2)  # dimensions that become one
        q, k, v = (
            part.flatten(first, last).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for part in (q, k, v)
        )  # (B*U, heads, m, D) or (B, heads, U*m, D)
        y = attention(
            q, k, v, q_grid=(1, 1, q.shape[2]), k_grid=(1, 1, k.shape[2]), key_bias=key_bias
        )
        return call_linear(self.proj, y.transpose(1, 2).reshape(shape))

    def _key_bias(self, units: Units, keys: Tensor) -> Tensor | None:
        """Of keys outside the grid, (B*U, m) or (B, U*m); None where there are none."""
        if units.inside is None:
            return None
        bias = MASKED * (~units.inside).to(keys.dtype).expand(keys.shape[0], -1, -1)
        return bias.flatten(0, 1) if self.within_units else bias.flatten(1)
