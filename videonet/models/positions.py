"""Learned absolute positions of a model's tokens: one table, or one per space, time and class."""

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


class AbsolutePositions:
    """For models that add a learned vector to every token, beside ``nn.Module``.

    Attributes:
        grid: the cells (T, H, W) that the tables are made for.
        leading_positions: rows for the tokens before the cells (class token, registers).
        embed_leading: these tokens have positions where they exist.
        position_resize: how tables are resized, see :func:`videonet.ops.grid.resize_grid`.
    """

    position_resize = "trilinear"

    def add_positions(
        self,
        grid: Grid,
        dim: int,
        leading: int,
        *,
        use: bool,
        separate: bool,
        embed_leading: bool = True,
    ) -> None:
        """Add the tables: ``pos_embed`` (1, leading + T*H*W, C), or with `separate`
        ``pos_embed_spatial`` (1, H*W, C), ``_temporal`` (1, T, C) and ``_class`` (1, leading, C),
        which are summed. Without `use` all of them are None."""
        leading = leading if embed_leading else 0
        self.grid, self.leading_positions, self.embed_leading = grid, leading, embed_leading
        rows = {}
        if use and separate:
            rows = {"pos_embed_spatial": grid[1] * grid[2], "pos_embed_temporal": grid[0]}
            if leading:
                rows["pos_embed_class"] = leading
        elif use:
            rows = {"pos_embed": leading + volume(grid)}
        for name in TABLES:
            table = learned_tokens(rows[name], dim) if name in rows else None
            self.register_parameter(name, table)

    def absolute_positions(self, grid: Grid) -> Tensor | None:
        """The positions of leading tokens and cells on `grid`, (1, leading + T*H*W, C), or None."""
        if self.pos_embed is None and self.pos_embed_spatial is None:
            return None
        if self.pos_embed_spatial is not None:
            space, time = self.pos_embed_spatial, self.pos_embed_temporal
            cells = (time.unsqueeze(2) + space.unsqueeze(1)).flatten(1, 2)  # (1, T*H*W, C)
            first = self.pos_embed_class
        else:
            first = self.pos_embed[:, : self.leading_positions]
            cells = self.pos_embed[:, self.leading_positions :]
        cells = resize_grid(cells, self.grid, grid, self.position_resize)
        return torch.cat((first, cells), dim=1) if self.leading_positions else cells
