"""The blocks of a vision transformer: joint attention, or attention over time, then over space."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from videonet.ops.grid import Grid
from videonet.ops.grid_attention import GridAttention, GridOptions
from videonet.ops.layer_scale import LayerScale
from videonet.ops.mlp import Mlp
from videonet.ops.self_attention import SelfAttention


class Block(nn.Module):
    """Pre-norm transformer block: attention of all tokens, then the MLP (ViT, Eq. 2 and 3).

    Args:
        dim, num_heads, mlp_ratio: widths.
        num_prefix_tokens: number of tokens before the cells of the grid (class token, registers).
        layer_scale: initial factor on both branches, None for no layer scale.
        mlp_norm: a layer norm inside the MLP.
        on_grid: attention in windows or with relative positions, see GridAttention; None for
            neither.
        attention: further arguments of SelfAttention.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        mlp_ratio: float,
        num_prefix_tokens: int,
        layer_scale: float | None,
        activation: str,
        proj_bias: bool,
        mlp_norm: bool,
        norm_eps: float,
        dropout: float,
        drop_path: float,
        on_grid: GridOptions | None = None,
        **attention,
    ):
        super().__init__()
        self.num_prefix_tokens = num_prefix_tokens
        shared = {"proj_bias": proj_bias, "norm_eps": norm_eps, "dropout": dropout}
        self.attention_arguments = attention | shared
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        arguments = {"num_prefix_tokens": num_prefix_tokens} | self.attention_arguments
        self.attn = (
            SelfAttention(dim, num_heads, **arguments)
            if on_grid is None
            else GridAttention(dim, num_heads, **on_grid, **arguments)
        )
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(
            dim,
            int(dim * mlp_ratio + 1e-6),  # a ratio of two whole numbers gives the first one back
            dim,
            dropout,
            activation=activation,
            bias=proj_bias,
            norm_eps=norm_eps if mlp_norm else None,
        )
        self.ls1, self.ls2 = (
            nn.Identity() if layer_scale is None else LayerScale(dim, layer_scale) for _ in "12"
        )
        self.drop_path = StochasticDepth(drop_path, "row")

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """(B, P + T*H*W, dim) -> the same shape."""
        x = x + self.drop_path(self.ls1(self.attn(self.norm1(x), grid)))
        return x + self.drop_path(self.ls2(self.mlp(self.norm2(x))))


class DividedBlock(Block):
    """Attention over time, then over space, then the MLP (TimeSformer, Sec. 3, Eq. 10 and 11).

    Over time a cell attends to the cells at its place. Over space the cells of one frame attend
    to each other and to the prefix tokens, of which every frame has a copy; the copies are
    averaged. A still clip therefore gives what its image gives, class token or not.
    """

    def __init__(self, dim: int, num_heads: int, *, norm_eps: float, **options):
        super().__init__(dim, num_heads, norm_eps=norm_eps, **options)
        self.temporal_norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.temporal_attn = SelfAttention(dim, num_heads, **self.attention_arguments)
        self.temporal_proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """(B, P + T*H*W, dim) -> the same shape."""
        first, cells = x[:, : self.num_prefix_tokens], x[:, self.num_prefix_tokens :]
        cells = cells + self._over_time(cells, grid)
        from_space = self._over_space(first, cells, grid)
        x = torch.cat((first, cells), dim=1) + from_space
        return x + self.drop_path(self.ls2(self.mlp(self.norm2(x))))

    def _over_time(self, cells: Tensor, grid: Grid) -> Tensor:
        frames, area = grid[0], grid[1] * grid[2]
        columns = self.temporal_norm1(cells).unflatten(1, (frames, area)).transpose(1, 2)
        columns = self.temporal_attn(columns.flatten(0, 1), (frames, 1, 1))  # (B*H*W, T, dim)
        attended = columns.unflatten(0, (-1, area)).transpose(1, 2).flatten(1, 2)
        return self.temporal_proj(self.drop_path(attended))

    def _over_space(self, first: Tensor, cells: Tensor, grid: Grid) -> Tensor:
        frames, area = grid[0], grid[1] * grid[2]
        copies = first.unsqueeze(1).expand(-1, frames, -1, -1)
        tokens = torch.cat((copies, cells.unflatten(1, (frames, area))), dim=2).flatten(0, 1)
        y = self.ls1(self.attn(self.norm1(tokens), (1, *grid[1:])))  # (B*T, P + H*W, dim)
        y = y.unflatten(0, (-1, frames))
        first, cells = (
            y[:, :, : self.num_prefix_tokens].mean(dim=1),
            y[:, :, self.num_prefix_tokens :].flatten(1, 2),
        )
        return self.drop_path(torch.cat((first, cells), dim=1))


BLOCKS = {"joint": Block, "divided": DividedBlock}
