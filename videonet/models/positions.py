"""Absolute positions of a model's tokens: one table, or one per space, time and class; or fixed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from videonet.ops.grid import Grid, resize_grid, volume

TABLES = ("pos_embed_spatial", "pos_embed_temporal", "pos_embed_class", "pos_embed")


def learned_tokens(rows: int, dim: int) -> nn.Parameter:
    """Vectors (1, rows, dim) drawn from a normal distribution of 0.02, as all the papers do."""
    tokens = nn.Parameter(torch.zeros(1, rows, dim))
    nn.init.trunc_normal_(tokens, std=0.02)
    return tokens


def sine_positions(grid: Grid, dim: int) -> Tensor:
    """Fixed vectors (1, T*H*W, dim) of the cells' numbers (arXiv 1706.03762, Sec. 3.5).

    Sines in the even channels and cosines in the odd ones. A number counts through width, height
    and time, so that the same place has other vectors in other frames.
    """
    channels = torch.arange(dim, dtype=torch.float64)
    rates = 10000.0 ** (-2 * (channels // 2) / dim)
    angles = torch.arange(volume(grid), dtype=torch.float64).unsqueeze(1) * rates
    table = torch.where(channels % 2 == 0, angles.sin(), angles.cos())
    return table.float().unsqueeze(0)


class AbsolutePositions(nn.Module):
    """For models that add a vector to every token, as a further base class.

    Attributes:
        grid: the cells (T, H, W) that the tables are made for.
        sine_grid: the cells that fixed positions are made for; None for learned ones.
        num_prefix_positions: rows for the tokens before the cells (class token, registers).
        embed_prefix: these tokens have positions where they exist.
        position_resize, antialias_positions, position_period: how tables are resized, see
            :func:`videonet.ops.grid.resize_grid`.
    """

    grid: Grid
    num_prefix_positions: int
    embed_prefix: bool
    pos_embed: nn.Parameter | None
    pos_embed_spatial: nn.Parameter | None
    pos_embed_temporal: nn.Parameter | None
    pos_embed_class: nn.Parameter | None
    sine_grid: Grid | None
    fixed_positions: Tensor | None
    position_resize = "trilinear"
    antialias_positions = True
    position_period: Grid | None = None

    def add_positions(
        self,
        grid: Grid,
        dim: int,
        num_prefix_tokens: int,
        *,
        use: bool,
        separate: bool,
        embed_prefix: bool = True,
        sine_grid: Grid | None = None,
    ) -> None:
        """Add the tables: one joint table, or separate ones whose rows are summed, or none.

        The joint table is ``pos_embed`` (1, P + T*H*W, C), with one row for each of the P prefix
        tokens first. The separate ones are ``pos_embed_spatial`` (1, H*W, C),
        ``pos_embed_temporal`` (1, T, C) and ``pos_embed_class`` (1, P, C). Tables that the model
        does not have are None.

        Args:
            grid: cells (T, H, W).
            dim: width C of the tokens.
            num_prefix_tokens: P, the tokens before the cells (class token, registers).
            use: whether there are positions at all.
            separate: separate tables instead of the joint one.
            embed_prefix: prefix tokens have a position too.
            sine_grid: fixed positions of the cells alone instead, see :func:`sine_positions`, made
                for this grid and resized to others. No checkpoint has them.
        """
        self.sine_grid = sine_grid if use else None
        fixed = None if self.sine_grid is None else sine_positions(self.sine_grid, dim)
        self.register_buffer("fixed_positions", fixed, persistent=False)
        use, embed_prefix = use and fixed is None, embed_prefix and fixed is None
        num_prefix_tokens = num_prefix_tokens if embed_prefix else 0
        self.grid, self.num_prefix_positions, self.embed_prefix = (
            grid,
            num_prefix_tokens,
            embed_prefix,
        )
        rows = {}
        if use and separate:
            rows = {"pos_embed_spatial": grid[1] * grid[2], "pos_embed_temporal": grid[0]}
            if num_prefix_tokens:
                rows["pos_embed_class"] = num_prefix_tokens
        elif use:
            rows = {"pos_embed": num_prefix_tokens + volume(grid)}
        for name in TABLES:
            table = learned_tokens(rows[name], dim) if name in rows else None
            self.register_parameter(name, table)

    def absolute_positions(self, grid: Grid) -> Tensor | None:
        """Positions (1, P + T*H*W, C) of prefix tokens and cells on `grid`; None where unused."""
        how = self.position_resize, self.antialias_positions, self.position_period
        if self.fixed_positions is not None and self.sine_grid is not None:
            return resize_grid(self.fixed_positions, self.sine_grid, grid, *how)
        joint, space, time = self.pos_embed, self.pos_embed_spatial, self.pos_embed_temporal
        prefix: Tensor | None = None
        if space is not None and time is not None:
            cells = (time.unsqueeze(2) + space.unsqueeze(1)).flatten(1, 2)  # (1, T*H*W, C)
            prefix = self.pos_embed_class
        elif joint is not None:
            cells = joint[:, self.num_prefix_positions :]
            if self.num_prefix_positions:
                prefix = joint[:, : self.num_prefix_positions]
        else:
            return None
        cells = resize_grid(cells, self.grid, grid, *how)
        return cells if prefix is None else torch.cat((prefix, cells), dim=1)
