"""The pre-norm transformer block (ViT, arXiv 2010.11929, Eq. 2 and 3)."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from videonet.ops.grid import Grid
from videonet.ops.grid_attention import GridAttention, GridOptions
from videonet.ops.layer_scale import LayerScale
from videonet.ops.mlp import Mlp
from videonet.ops.rotary import Rotation
from videonet.ops.self_attention import SelfAttention
from videonet.ops.stochastic_depth import StochasticDepth


class TransformerBlock(nn.Module):
    """Attention of all tokens, then the MLP; names as in timm.

    Args:
        dim, num_heads, mlp_ratio: widths.
        num_prefix_tokens: number of tokens before the cells of the grid (class token, registers).
        layer_scale: initial factor on both branches, None for no layer scale.
        activation: of the MLP; mlp_norm: a layer norm inside it.
        proj_bias: of the last layers of both branches, and of the MLP's first.
        norm_eps: of the norms; dropout: in both branches; drop_path: of both branches.
        on_grid: attention in windows or with relative positions, see GridAttention; None for
            neither.
        **attention: further arguments of SelfAttention.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        mlp_ratio: float = 4.0,
        num_prefix_tokens: int = 0,
        layer_scale: float | None = None,
        activation: str = "gelu",
        proj_bias: bool = True,
        mlp_norm: bool = False,
        norm_eps: float = 1e-6,
        dropout: float = 0.0,
        drop_path: float = 0.0,
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

    def last_weights(self) -> list[Tensor]:
        """Of the layers whose results are added to the input."""
        return [self.attn.proj.weight, self.mlp.get_parameter("fc2.weight")]

    def forward(self, x: Tensor, grid: Grid, rotation: Rotation | None = None) -> Tensor:
        """(B, num_prefix_tokens + N, dim) -> the same shape.

        Args:
            grid, rotation: see SelfAttention.
        """
        x = x + self.drop_path(self.ls1(self.attn(self.norm1(x), grid, rotation)))
        return x + self.drop_path(self.ls2(self.mlp(self.norm2(x))))


@torch.no_grad()
def scale_down(weights: Iterable[Tensor], number: int) -> None:
    """Divide the weights of a block's last layers by ``sqrt(2 * number)``, as BEiT does at first.

    Args:
        weights: of the layers whose results are added to the block's input.
        number: of the block, from 1.
    """
    for weight in weights:
        weight.div_(math.sqrt(2.0 * number))
