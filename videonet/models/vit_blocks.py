"""The blocks of a vision transformer: attention over clips, over time and space, or in frames."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from videonet.errors import ConfigError
from videonet.ops.grid import Grid
from videonet.ops.rotary import Rotation
from videonet.ops.self_attention import SelfAttention
from videonet.ops.transformer_block import TransformerBlock


class SpatialBlock(TransformerBlock):
    """Attention within every frame, then the MLP.

    The cells of one frame attend to each other and to the prefix tokens, of which every frame has
    a copy; the copies are averaged. A still clip therefore gives what its image gives, class token
    or not. TimeSformer's "space attention" (Sec. 3) has class tokens of every frame to the end.
    """

    def forward(self, x: Tensor, grid: Grid, rotation: Rotation | None = None) -> Tensor:
        """(B, P + T*H*W, dim) -> the same shape.

        Raises:
            ConfigError: rotary positions, which number all cells of a clip.
        """
        if rotation is not None:
            raise ConfigError("attention within every frame has no rotary positions")
        x = self._over_frames(x, grid)
        return x + self.drop_path(self.ls2(self.mlp(self.norm2(x))))

    def _over_frames(self, x: Tensor, grid: Grid) -> Tensor:
        first, cells = x[:, : self.num_prefix_tokens], x[:, self.num_prefix_tokens :]
        return x + self._over_space(first, cells, grid)

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


class DividedBlock(SpatialBlock):
    """Attention over time, then over space, then the MLP (TimeSformer, Sec. 3, Eq. 10 and 11).

    Over time a cell attends to the cells at its place; over space as in :class:`SpatialBlock`.
    """

    def __init__(self, dim: int, num_heads: int, *, norm_eps: float, **options):
        super().__init__(dim, num_heads, norm_eps=norm_eps, **options)
        self.temporal_norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.temporal_attn = SelfAttention(dim, num_heads, **self.attention_arguments)
        self.temporal_proj = nn.Linear(dim, dim)

    def _over_frames(self, x: Tensor, grid: Grid) -> Tensor:
        first, cells = x[:, : self.num_prefix_tokens], x[:, self.num_prefix_tokens :]
        cells = cells + self._over_time(cells, grid)
        from_space = self._over_space(first, cells, grid)
        return torch.cat((first, cells), dim=1) + from_space

    def _over_time(self, cells: Tensor, grid: Grid) -> Tensor:
        frames, area = grid[0], grid[1] * grid[2]
        columns = self.temporal_norm1(cells).unflatten(1, (frames, area)).transpose(1, 2)
        # One clip's would be a view with gaps, for which torch copies the weights B*H*W times.
        columns = columns.flatten(0, 1).contiguous()  # (B*H*W, T, dim)
        columns = self.temporal_attn(columns, (frames, 1, 1))
        attended = columns.unflatten(0, (-1, area)).transpose(1, 2).flatten(1, 2)
        return self.temporal_proj(self.drop_path(attended))


BLOCKS = {"joint": TransformerBlock, "divided": DividedBlock, "space": SpatialBlock}
