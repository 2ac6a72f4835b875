"""Self-attention of the cells of a grid: in windows, and with decomposed relative positions.

ViTDet (arXiv 2203.16527), Sec. 3: a plain vision transformer becomes a backbone for large images
when most of its blocks attend in windows; relative positions are those of MViTv2
(arXiv 2112.01526), Eq. 4.
"""

from __future__ import annotations

from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from videonet.errors import ConfigError
from videonet.ops.grid import Grid, as_grid
from videonet.ops.relative_position import Tables
from videonet.ops.rotary import Rotation
from videonet.ops.self_attention import SelfAttention
from videonet.ops.windows import Windows, cut_tokens, join_tokens, padding_mask


class GridOptions(TypedDict):
    """What :class:`GridAttention` has beside the arguments of ``SelfAttention``."""

    window: Grid | None
    padded_keys: bool
    table_grid: Grid
    rel_pos_spatial: bool
    rel_pos_temporal: bool
    rel_pos_zero_init: bool


class GridAttention(SelfAttention):
    """Self-attention that knows where on the grid its tokens are.

    Args:
        dim, num_heads: of the tokens and of the attention.
        window: (t, h, w) cells that attend to each other, without prefix tokens; None for all.
        padded_keys: where a window reaches beyond the frame, zeros stand there and take part in
            the softmax, and no window shrinks to a smaller frame (the detectors of detectron2;
            what a zero becomes in queries, keys and values are their biases). Without, keys
            beyond the frame are left out. Keys behind the end of the clip are left out either way.
        table_grid: (T, H, W) that the tables of global attention are made for; those of windows
            are made for the window. Other grids interpolate them.
        rel_pos_spatial, rel_pos_temporal: relative positions along height and width, along time.
        rel_pos_zero_init: tables of zeros at first, and where a checkpoint has none.
        **attention: see :class:`videonet.ops.self_attention.FullAttention`.

    Raises:
        ConfigError: windows and prefix tokens.
    """

    rel_pos_t: nn.Parameter | None
    rel_pos_h: nn.Parameter | None
    rel_pos_w: nn.Parameter | None

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        window: Grid | None,
        padded_keys: bool,
        table_grid: Grid,
        rel_pos_spatial: bool,
        rel_pos_temporal: bool,
        rel_pos_zero_init: bool,
        **attention: Any,
    ):
        super().__init__(dim, num_heads, **attention)
        if window is not None and self.num_prefix_tokens:
            raise ConfigError("attention in windows has no place for a class token or registers")
        self.window, self.padded_keys = window, padded_keys
        self.tables_start_at_zero = rel_pos_zero_init
        sizes = table_grid if window is None else window
        wanted = (rel_pos_temporal, rel_pos_spatial, rel_pos_spatial)
        for name, size, used in zip("thw", sizes, wanted, strict=True):
            table = nn.Parameter(torch.zeros(2 * size - 1, dim // num_heads)) if used else None
            if table is not None and not rel_pos_zero_init:
                nn.init.trunc_normal_(table, std=0.02)
            self.register_parameter(f"rel_pos_{name}", table)

    def forward(self, x: Tensor, grid: Grid, rotation: Rotation | None = None) -> Tensor:
        """(B, num_prefix_tokens + T*H*W, dim) -> the same shape.

        Raises:
            ConfigError: rotary positions in windows.
        """
        if self.window is None:
            return self.attend(x, grid, rotation, self._tables())
        if rotation is not None:
            raise ConfigError("rotary positions number the cells of a clip, not those of a window")
        size = as_grid(
            w if axis and self.padded_keys else min(n, w)
            for axis, (n, w) in enumerate(zip(grid, self.window, strict=True))
        )
        windows = Windows(grid, size)
        cut = cut_tokens(x, windows)  # (B * number of windows, t*h*w, dim)
        outside = padding_mask(windows, cut, in_time_only=self.padded_keys)
        return join_tokens(self.attend(cut, size, None, self._tables(), outside), windows)

    def _tables(self) -> Tables | None:
        tables = self.rel_pos_t, self.rel_pos_h, self.rel_pos_w
        return None if all(table is None for table in tables) else tables
