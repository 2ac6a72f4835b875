"""Tables of relative-position biases (Swin), made for another window."""

from __future__ import annotations

import re
from typing import Protocol, runtime_checkable

import torch.nn.functional as F
from torch import Tensor, nn

from videonet.checkpoint.fit import Fit, misfit
from videonet.checkpoint.position_tables import guess_grid
from videonet.checkpoint.report import INFLATED, INTERPOLATED, LOADED
from videonet.ops.grid import Grid, as_grid, resize_rows

BIAS_TABLE = re.compile(r"(?:.*\.)?relative_position_bias_table")


@runtime_checkable
class HasWindow(Protocol):
    """A module with a table, see :class:`videonet.ops.window_attention.WindowAttention`."""

    window: Grid


def fit_bias_table(module: nn.Module, target: Tensor, source: Tensor, image: bool) -> Fit:
    """A bias table (offsets, heads), for ``2w - 1`` offsets along each axis, time slowest.

    One without time is repeated over the temporal offsets: in a still clip every frame of a window
    then counts alike, as the static-clip law wants. Other windows are interpolated, bicubically
    in space as in the official code and linearly in time.

    Args:
        module: the owner of the table, see :class:`HasWindow`.
        image: the checkpoint is an image model's.
    """
    if target.shape == source.shape:
        return Fit(source, LOADED)
    if not isinstance(module, HasWindow):
        return misfit(target, source, f"a {type(module).__name__} has no window")
    new = as_grid(2 * w - 1 for w in module.window)
    old = _guess_offsets(source, new, image)
    if old is None or source.shape[1] != target.shape[1]:
        return misfit(target, source)
    table = source.float().T.unflatten(1, old)  # (heads, t, h, w)
    if old[1:] != new[1:]:
        table = F.interpolate(table, size=new[1:], mode="bicubic", align_corners=False)
    rows = resize_rows(table.permute(1, 0, 2, 3).flatten(1), new[0])  # (t, heads*h*w)
    value = rows.unflatten(1, (len(table), -1)).transpose(1, 2).flatten(0, 1)  # (offsets, heads)
    changed = " -> ".join("x".join(map(str, offsets)) for offsets in (old, new))
    if old[1:] == new[1:] and old[0] == 1:
        return Fit(value, INFLATED, f"repeated over time, offsets {changed}")
    return Fit(value, INTERPOLATED, f"offsets {changed}")


def _guess_offsets(source: Tensor, like: Grid, image: bool) -> Grid | None:
    """Offsets (t, h, w) behind the rows of a table, None where they stay unclear."""
    if source.dim() != 2:
        return None
    found = guess_grid(source.shape[0], like, image) or guess_grid(source.shape[0], like, False)
    return found if found is not None and all(n % 2 for n in found) else None
