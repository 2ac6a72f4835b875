"""Windows on a T×H×W grid: cutting a grid into windows, joining them, and masks.

Swin (arXiv 2103.14030), Sec. 3.2, and Video Swin (arXiv 2106.13230), Sec. 3.2: attention within
windows that do not overlap, and in every other block within windows shifted by half their size.
The shift is cyclic, so that the last window along an axis holds cells of both ends of the grid.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from videonet.ops.grid import Grid, as_grid, volume
from videonet.ops.tracing import once_per_shape

MASKED = -100.0  # added to the logits of masked pairs, as in the official code
SPATIOTEMPORAL = (1, 2, 3)  # the axes T, H, W of (B, T, H, W, C)


@dataclass(frozen=True)
class Windows:
    """How a grid is cut into windows.

    Attributes:
        grid: of the tokens, (T, H, W).
        size: of one window, (t, h, w).
        shift: cells by which the windows are moved towards the end of each axis.
    """

    grid: Grid
    size: Grid
    shift: Grid = (0, 0, 0)

    @property
    def counts(self) -> Grid:
        """Number of windows along each axis; the last one may reach beyond the grid."""
        return as_grid(-(-n // w) for n, w in zip(self.grid, self.size, strict=True))

    @property
    def padded(self) -> Grid:
        """The grid that the windows cover."""
        return as_grid(n * w for n, w in zip(self.counts, self.size, strict=True))

    @property
    def shifted_axes(self) -> list[int]:
        return [axis for axis in range(3) if self.shift[axis]]


def pad_to_windows(x: Tensor, windows: Windows) -> Tensor:
    """(B, T, H, W, C) with zeros at the end of each axis, where a window leaves the grid."""
    if windows.padded == windows.grid:
        return x
    ends = [p - n for p, n in zip(windows.padded, windows.grid, strict=True)]
    return F.pad(x, (0, 0, 0, ends[2], 0, ends[1], 0, ends[0]))


def cut_windows(x: Tensor, windows: Windows) -> Tensor:
    """(B, T, H, W, C) -> (B, nt, nh, nw, t*h*w, C), zeros where a window leaves the grid."""
    x = pad_to_windows(x, windows)
    if any(windows.shift):
        x = torch.roll(x, [-s for s in windows.shift], SPATIOTEMPORAL)
    (nt, nh, nw), (t, h, w) = windows.counts, windows.size
    x = x.reshape(x.shape[0], nt, t, nh, h, nw, w, x.shape[-1])
    return x.permute(0, 1, 3, 5, 2, 4, 6, 7).flatten(4, 6)


def join_windows(x: Tensor, windows: Windows) -> Tensor:
    """(B, nt, nh, nw, t*h*w, C) -> (B, T, H, W, C), the inverse of :func:`cut_windows`."""
    x = x.unflatten(4, windows.size).permute(0, 1, 4, 2, 5, 3, 6, 7)  # (B, nt, t, nh, h, nw, w, C)
    x = x.reshape(x.shape[0], *windows.padded, x.shape[-1])
    if any(windows.shift):
        x = torch.roll(x, windows.shift, SPATIOTEMPORAL)
    t, h, w = windows.grid
    return x[:, :t, :h, :w]


def coordinates(cells: int, layout: Grid, device: torch.device | None = None) -> list[Tensor]:
    """T, H and W coordinates, each (cells,), of the first `cells` cells of `layout`."""
    n = torch.arange(cells, device=device)
    _, h, w = layout
    return [n // (h * w), n // w % h, n % w]


@once_per_shape
def relative_rows(
    cells: int, layout: Grid, window: Grid, device: torch.device | None = None
) -> Tensor:
    """Rows of a bias table for all pairs of cells, (cells, cells).

    Args:
        layout: the grid whose first `cells` cells are compared.
        window: (t, h, w) that the table is made for. It has a row for each offset, query minus
            key: ``(2t - 1) * (2h - 1) * (2w - 1)``, from the most negative, time slowest.
    """
    t, h, w = (
        x[:, None] - x[None, :] + n - 1
        for x, n in zip(coordinates(cells, layout, device), window, strict=True)
    )
    _, height, width = window
    return (t * (2 * height - 1) + h) * (2 * width - 1) + w


def shift_mask(windows: Windows, axis: int, device: torch.device | None = None) -> Tensor:
    """Pairs of cells in the last window along `axis` that only the cyclic shift brought together.

    Returns:
        Boolean (t*h*w, t*h*w).
    """
    position = coordinates(volume(windows.size), windows.size, device)[axis]
    wrapped = position >= windows.size[axis] - windows.shift[axis]
    return wrapped[:, None] != wrapped[None, :]


def edge_masks(
    windows: Windows, axis: int, device: torch.device | None = None, leave_padding: bool = False
) -> list[Tensor]:
    """Pairs of cells that are to stay apart in the last windows along `axis`.

    Args:
        leave_padding: cells beyond the grid are no keys; else they are keys like all others.

    Returns:
        A Boolean mask (queries, keys), (t*h*w, t*h*w), for each of the last windows that needs
        one: none, one, or with padding on both sides of the seam two.
    """
    place, size = coordinates(volume(windows.size), windows.size, device)[axis], windows.size[axis]
    count, shift = windows.counts[axis], windows.shift[axis]
    masks: list[Tensor] = []
    for number in range(max(count - 2, 0), count):
        mask = torch.zeros(len(place), len(place), dtype=torch.bool, device=device)
        needed = bool(masks)
        if shift and number == count - 1:
            mask, needed = shift_mask(windows, axis, device), True
        if leave_padding:
            first = number * size + shift  # where the window begins on the grid
            outside = (first + place) % (count * size) >= windows.grid[axis]
            mask = mask | outside[None, :]
            needed = needed or first + size > windows.grid[axis]
        if needed:
            masks.append(mask)
    return masks


def cut_tokens(x: Tensor, windows: Windows) -> Tensor:
    """(B, T*H*W, C) -> (B*nt*nh*nw, t*h*w, C)."""
    return cut_windows(x.unflatten(1, windows.grid), windows).flatten(0, 3)


def join_tokens(x: Tensor, windows: Windows) -> Tensor:
    """(B*nt*nh*nw, t*h*w, C) -> (B, T*H*W, C), the inverse of :func:`cut_tokens`."""
    return join_windows(x.unflatten(0, (-1, *windows.counts)), windows).flatten(1, 3)


def padding_mask(windows: Windows, like: Tensor, in_time_only: bool = False) -> Tensor | None:
    """The mask of keys that are padding beyond the grid, to be added to the logits.

    Args:
        like: cut tokens (B*nt*nh*nw, t*h*w, C).
        in_time_only: mask what lies before or after the clip, not what lies beside the frame.

    Returns:
        (B*nt*nh*nw, t*h*w); None where every window lies within the grid.
    """
    if in_time_only:
        windows = replace(windows, grid=(windows.grid[0], *windows.padded[1:]))
    if windows.padded == windows.grid:
        return None
    inside = cut_tokens(like.new_ones(1, volume(windows.grid), 1), windows)[..., 0]
    return ((1 - inside) * MASKED).repeat(like.shape[0] // inside.shape[0], 1)
