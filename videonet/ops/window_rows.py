"""Gradients of sliding windows on CPUs: channels first, a tap of the window is an offset in rows.

Every head, channel and frame becomes one row with the cells of some clips, zeros between them; a
tap then reads the row at an offset, and adds to its gradient in place. torch's own backward writes
a whole tensor of zeros for every view that a tap reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import torch
from torch import Tensor

from videonet.ops.grid import Grid, as_grid
from videonet.ops.kernels import cpu
from videonet.ops.kernels.autograd import FastFunction
from videonet.ops.sliding_window import grouped_windows, window_taps

Tap = tuple[int, int]  # frames and places in a row that it is away


def windows_in_rows(qkv: Tensor, kernel: Grid, dilations: Sequence[Grid], scale: float) -> Tensor:
    """:func:`videonet.ops.sliding_window.grouped_windows`, with these gradients.

    Args:
        qkv: (B, T, H, W, 3, heads, D), for which :func:`videonet.ops.kernels.cpu.differentiates`.
        kernel, dilations, scale: as there.

    Returns:
        (B, T, H, W, heads, D).
    """
    return _WindowsInRows.apply(qkv, tuple(kernel), tuple(dilations), scale)


class _WindowsInRows(FastFunction):
    """The backward pass computes the weights again, some clips at a time, in fp32."""

    forward = plain = staticmethod(grouped_windows)

    @staticmethod
    def gradients(inputs, needed, grad: Tensor):
        qkv, kernel, dilations, scale = inputs
        grad_qkv = torch.empty_like(qkv, memory_format=torch.contiguous_format)
        groups = _groups(qkv, kernel, dilations)
        for clips in _pieces(qkv, groups):
            planes, grad_planes = _to_planes(qkv[clips]), _to_planes(grad[clips])
            result = torch.empty_like(planes)
            for heads, rows in groups:
                q, k, v = rows.spread(planes[:, heads])
                out = rows.spread(grad_planes[heads])
                weights = rows.products(q.mul_(scale), k).softmax(dim=0)
                slopes = rows.products(out, v, outside=0.0)
                slopes.sub_((slopes * weights).sum(dim=0)).mul_(weights)  # of the logits
                grads = q.new_zeros(3, *q.shape)
                grad_q, grad_k, grad_v = grads
                for tap, weight, slope in zip(rows.taps, weights, slopes, strict=True):
                    weight, slope = rows.frames(weight, tap), rows.frames(slope, tap)
                    rows.here(grad_q, tap).addcmul_(slope, rows.there(k, tap))
                    rows.there(grad_k, tap).addcmul_(slope, rows.here(q, tap))
                    rows.there(grad_v, tap).addcmul_(weight, rows.here(out, tap))
                grad_q.mul_(scale)
                result[:, heads] = rows.cells(grads)
            _from_planes(result, grad_qkv[clips])
        return grad_qkv, None, None, None


def _groups(qkv: Tensor, kernel: Grid, dilations: Sequence[Grid]) -> list[tuple[slice, _Rows]]:
    """The heads of each group and how their windows lie in rows."""
    heads = qkv.shape[-2] // len(dilations)
    grid = as_grid(qkv.shape[1:4])
    return [
        (slice(i * heads, (i + 1) * heads), _Rows(grid, kernel, dilation))
        for i, dilation in enumerate(dilations)
    ]


def _pieces(qkv: Tensor, groups: Sequence[tuple[slice, _Rows]]) -> Iterator[slice]:
    """As many clips at a time as leave each tensor of one group in the caches."""
    row_bytes = 4 * max(rows.size for _, rows in groups)
    clip_bytes = row_bytes * qkv.shape[1] * qkv.shape[-2] // len(groups) * qkv.shape[-1]
    step = max(1, cpu.PIECE_BYTES * torch.get_num_threads() // clip_bytes)
    for start in range(0, qkv.shape[0], step):
        yield slice(start, start + step)


def _to_planes(x: Tensor) -> Tensor:
    """(b, T, H, W, ..., heads, D) -> (..., heads, D, b, T, H, W) in fp32, contiguous."""
    cells = x.float().flatten(4).flatten(0, 3)
    return cells.t().contiguous().view(*x.shape[4:], *x.shape[:4])


def _from_planes(planes: Tensor, result: Tensor) -> None:
    """Write (..., heads, D, b, T, H, W) into (b, T, H, W, ..., heads, D), which is contiguous."""
    cells = planes.flatten(-4).flatten(0, -2).t()  # (b*T*H*W, channels)
    result.view(cells.shape).copy_(cells)


class _Rows:
    """Where the cells of clips and the taps of a window lie in rows.

    A row has a margin, then each clip's frame with zeros below and to the right, which are also
    what lies above and to the left of the next ones, and another margin.
    """

    def __init__(self, grid: Grid, kernel: Grid, dilation: Grid):
        self.grid = grid
        times, downs, rights = (window_taps(*axis) for axis in zip(kernel, dilation, strict=True))
        below, beside = max(map(abs, downs)), max(map(abs, rights))
        self.frame = grid[1] + below, grid[2] + beside
        self.size = self.frame[0] * self.frame[1]  # of one clip in a row
        self.margin = below * self.frame[1] + beside
        self.taps = [
            (dt, dh * self.frame[1] + dw)
            for dt, dh, dw in product(times, downs, rights)
            if abs(dt) < grid[0]  # the others never meet the clip
        ]

    def spread(self, planes: Tensor) -> Tensor:
        """(..., b, T, H, W) -> rows (..., T, P)."""
        *channels, batch, frames, _, _ = planes.shape
        rows = planes.new_zeros(*channels, frames, batch * self.size + 2 * self.margin)
        self.cells(rows).copy_(planes)
        return rows

    def cells(self, rows: Tensor) -> Tensor:
        """The view (..., b, T, H, W) of rows (..., T, P)."""
        inner = self._inner(rows).unflatten(-1, (-1, *self.frame))  # (..., T, b, H', W')
        return inner[..., : self.grid[1], : self.grid[2]].transpose(-4, -3)

    def products(self, queries: Tensor, keys: Tensor, outside: float = float("-inf")) -> Tensor:
        """Sums over D of what each query has in common with its taps: (taps, heads, 1, T, N).

        Frames outside the clip have the value `outside`.
        """
        heads, _, frames, length = queries.shape
        shape = len(self.taps), heads, 1, frames, length - 2 * self.margin
        products = queries.new_full(shape, outside)
        both = torch.empty_like(self._inner(queries), memory_format=torch.contiguous_format)
        for tap, result in zip(self.taps, products, strict=True):
            part = both[:, :, : frames - abs(tap[0])]
            torch.mul(self.here(queries, tap), self.there(keys, tap), out=part)
            torch.sum(part, dim=1, keepdim=True, out=self.frames(result, tap))
        return products

    def frames(self, x: Tensor, tap: Tap) -> Tensor:
        """The frames of x (..., T, N) from which this tap does not leave the clip."""
        return x.narrow(-2, max(0, -tap[0]), x.shape[-2] - abs(tap[0]))

    def here(self, rows: Tensor, tap: Tap) -> Tensor:
        """The cells (heads, D, T', N) from which this tap does not leave the clip."""
        return self.frames(self._inner(rows), tap)

    def there(self, rows: Tensor, tap: Tap) -> Tensor:
        """The cells (heads, D, T', N) that this tap reads."""
        return self.frames(self._inner(rows, tap[1]), (-tap[0], 0))

    def _inner(self, rows: Tensor, offset: int = 0) -> Tensor:
        return rows.narrow(-1, self.margin + offset, rows.shape[-1] - 2 * self.margin)
