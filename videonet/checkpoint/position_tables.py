"""Absolute positions: a joint table or separate ones, on this grid or another, made to fit.

A joint table (1, [1+]T*H*W, C) has the class token's row first. Separate tables
(1, H*W, C), (1, T, C) and (1, 1, C) are summed to the same thing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from videonet.checkpoint.fit import Fit, misfit
from videonet.checkpoint.report import INFLATED, INTERPOLATED, LOADED, REINITIALISED
from videonet.errors import CheckpointError
from videonet.ops.grid import Grid, resize_grid, volume

JOINT, SPACE, TIME, CLASS = (
    "pos_embed",
    "pos_embed_spatial",
    "pos_embed_temporal",
    "pos_embed_class",
)
POSITION_NAMES = (JOINT, SPACE, TIME, CLASS)
UNKNOWN_GRID = "cannot tell its grid (T, H, W), say it by position_grid"
Resize = Callable[[Tensor, Grid, Grid], Tensor]  # (table, old grid, new grid) -> table


@runtime_checkable
class HasPositions(Protocol):
    """A module with tables, see :class:`videonet.models.positions.AbsolutePositions`."""

    grid: Grid
    num_prefix_positions: int
    embed_prefix: bool
    position_resize: str
    antialias_positions: bool
    position_period: Grid | None


@dataclass(frozen=True)
class Positions:
    """Positions as a checkpoint has them: either `joint`, or `space` and `time`."""

    grid: Grid
    first: Tensor | None  # (1, num_prefix_tokens, C), of class token and registers
    joint: Tensor | None = None  # (1, T*H*W, C)
    space: Tensor | None = None  # (1, H*W, C)
    time: Tensor | None = None  # (1, T, C)

    @property
    def timeless(self) -> bool:
        """There is nothing in it about time."""
        return self.grid[0] == 1 if self.joint is not None else self.time is None

    def first_rows(self, rows: int) -> Tensor | None:
        """The positions (1, rows, C) of so many prefix tokens, None where there are fewer."""
        if self.first is None or self.first.shape[1] < rows:
            return None
        return self.first[:, :rows]

    def as_joint(self) -> Tensor:
        """(1, T*H*W, C)."""
        if self.joint is not None:
            return self.joint
        space, time = self.as_separate()
        return (time.unsqueeze(2) + space.unsqueeze(1)).flatten(1, 2)

    def as_separate(self) -> tuple[Tensor, Tensor]:
        """(1, H*W, C) and (1, T, C); of a joint table the closest sum, exact for one frame."""
        if self.joint is None:
            assert self.space is not None  # one of the two is there
            time = torch.zeros_like(self.space[:, :1]) if self.time is None else self.time
            return self.space, time
        t, h, w = self.grid
        table = self.joint.unflatten(1, (t, h * w))
        return table.mean(dim=1), table.mean(dim=2) - table.mean(dim=(1, 2)).unsqueeze(1)


def guess_space(cells: int, like: Grid) -> tuple[int, int] | None:
    """Height and width of `cells` cells: as in `like`, or of the same aspect, or square."""
    _, height, width = like
    if cells == height * width:
        return height, width
    for h in (math.isqrt(cells * height // width), math.isqrt(cells)):
        if h and cells % h == 0 and (h * width == cells // h * height or h * h == cells):
            return h, cells // h
    return None


def guess_grid(cells: int, like: Grid, image: bool) -> Grid | None:
    """The grid behind a joint table of `cells` rows: `like`, or one that differs in time or space.

    An image has one frame. None where neither fits, or both do.
    """
    frames, height, width = like
    if image:
        space = guess_space(cells, like)
        return space and (1, *space)
    if cells == frames * height * width:
        return like
    guesses = []
    if cells % (height * width) == 0:
        guesses.append((cells // (height * width), height, width))
    if cells % frames == 0 and (space := guess_space(cells // frames, like)):
        guesses.append((frames, *space))
    return guesses[0] if len(guesses) == 1 else None


def read_positions(
    source: Mapping[str, Tensor],
    num_prefix_tokens: int,
    like: Grid,
    image: bool,
    known: Grid | None = None,
) -> Positions | None:
    """The positions in `source` (leaf name -> tensor); None where the grid stays unclear.

    A joint table has `num_prefix_tokens` rows before those of the cells, whose grid is `known`, or
    one that is close to `like`.
    """
    source = {name: table.float() for name, table in source.items()}
    if JOINT in source:
        first, joint = source[JOINT][:, :num_prefix_tokens], source[JOINT][:, num_prefix_tokens:]
        if TIME in source:  # TimeSformer: joint in class token and space, time beside it
            source |= {SPACE: joint} | ({CLASS: first} if num_prefix_tokens else {})
        else:
            grid = known or guess_grid(joint.shape[1], like, image)
            if grid is None or volume(grid) != joint.shape[1]:
                return None
            return Positions(grid, first if num_prefix_tokens else None, joint=joint)
    space = source[SPACE]
    time = source.get(TIME)
    shape = guess_space(space.shape[1], like) if known is None else known[1:]
    if shape is None or math.prod(shape) != space.shape[1]:
        return None
    grid = (1 if time is None else time.shape[1], *shape)
    return Positions(grid, source.get(CLASS), space=space, time=time)


def fit_positions(
    module: nn.Module,
    prefix: str,
    target: Mapping[str, Tensor],
    source: Mapping[str, Tensor],
    antialias: bool | None = None,
    known_grid: Grid | None = None,
) -> dict[str, Fit]:
    """What the position tables of `module` get.

    Args:
        module: the owner of the tables, see :class:`HasPositions`.
        prefix: its name in the model.
        target, source: all parameters of the model and of the checkpoint.
        antialias: whether bicubic resizing is antialiased; None for what `module` does.
        known_grid: of a joint table in the checkpoint; None where it has to be told by its rows.

    Returns:
        Full parameter name -> fit; empty where the checkpoint has no positions.

    Raises:
        CheckpointError: `module` does not say what its tables are made for.
    """
    dot = f"{prefix}." if prefix else ""
    here = {name: target[dot + name] for name in POSITION_NAMES if dot + name in target}
    there = {name: source[dot + name] for name in POSITION_NAMES if dot + name in source}
    if JOINT not in there and SPACE not in there:
        return {}
    if not isinstance(module, HasPositions):
        raise CheckpointError(
            f"no positions can be loaded into a {type(module).__name__}, which does not say what "
            f"grid its {', '.join(here)} is for: expected a model of videonet"
        )
    main = there[JOINT if JOINT in there else SPACE]
    num_prefix_tokens = _prefix_rows(module, dot, source)
    image = all(kernel.shape[2] == 1 for kernel in source.values() if kernel.dim() == 5)
    found = read_positions(there, num_prefix_tokens, module.grid, image, known_grid)
    if found is None or main.shape[-1] != next(iter(here.values())).shape[-1]:
        why = "" if found else UNKNOWN_GRID
        if not found and known_grid:
            why = f"position_grid is {known_grid}"
        return {dot + name: misfit(table, main, why) for name, table in here.items()}
    write = _joint_fit if JOINT in here else _separate_fits
    resize = partial(
        resize_grid,
        mode=module.position_resize,
        antialias=module.antialias_positions if antialias is None else antialias,
        period=module.position_period,
    )
    return {dot + name: fit for name, fit in write(module, here, found, resize).items()}


def _prefix_rows(module: HasPositions, dot: str, source: Mapping[str, Tensor]) -> int:
    """Rows of a joint table in `source` for class token and registers."""
    tokens = [source[dot + name] for name in ("cls_token", "reg_token") if dot + name in source]
    if not module.embed_prefix:
        return 0  # without positions here, so without positions there
    return sum(token.shape[1] for token in tokens)


def _grids(old: Grid, new: Grid) -> str:
    return " -> ".join("x".join(map(str, grid)) for grid in (old, new))


def _joint_fit(
    module: HasPositions, here: Mapping[str, Tensor], found: Positions, resize: Resize
) -> dict[str, Fit]:
    value = resize(found.as_joint(), found.grid, module.grid)
    changed = _grids(found.grid, module.grid)
    if found.grid == module.grid:
        status, reason = LOADED, "" if found.joint is not None else "sum of separate tables"
    elif found.grid[1:] == module.grid[1:] and found.grid[0] == 1:
        status, reason = INFLATED, f"repeated over frames, {changed}"
    else:
        status, reason = INTERPOLATED, changed
    if rows := module.num_prefix_positions:
        first = found.first_rows(rows)
        if first is None:
            first = here[JOINT][:, :rows].to(value.device)
            reason = f"{reason}{reason and '; '}the class token's row stays as it was"
        value = torch.cat((first, value), dim=1)
    return {JOINT: Fit(value, status, reason)}


def _separate_fits(
    module: HasPositions, here: Mapping[str, Tensor], found: Positions, resize: Resize
) -> dict[str, Fit]:
    (t, h, w), (new_t, new_h, new_w) = found.grid, module.grid
    space, time = found.as_separate()
    origin = "" if found.joint is None else "of the joint table"
    fits = {}
    resized = resize(space, (1, h, w), (1, new_h, new_w))
    if (h, w) == (new_h, new_w):
        fits[SPACE] = Fit(resized, LOADED, origin and f"space {origin}")
    else:
        fits[SPACE] = Fit(resized, INTERPOLATED, f"{h}x{w} -> {new_h}x{new_w}")
    resized = resize_grid(time, (t, 1, 1), (new_t, 1, 1), module.position_resize)
    if found.timeless:
        fits[TIME] = Fit(resized, INFLATED, "zero: no temporal positions in the checkpoint")
    elif t == new_t:
        fits[TIME] = Fit(resized, LOADED, origin and f"time {origin}")
    elif t == 1:
        fits[TIME] = Fit(resized, INFLATED, f"repeated over {new_t} frames")
    else:
        fits[TIME] = Fit(resized, INTERPOLATED, f"{t} -> {new_t} frames")
    first = found.first_rows(module.num_prefix_positions)
    if CLASS in here and first is not None:
        fits[CLASS] = Fit(first, LOADED, origin and f"class row {origin}")
    elif CLASS in here:
        fits[CLASS] = Fit(None, REINITIALISED, "no class token in the checkpoint")
    return fits
