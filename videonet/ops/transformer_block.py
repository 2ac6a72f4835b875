"""The plain pre-norm transformer block (ViT, arXiv 2010.11929, Eq. 2 and 3)."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from videonet.ops.grid import Grid
from videonet.ops.mlp import Mlp
from videonet.ops.rotary import Rotation
from videonet.ops.self_attention import SelfAttention


class TransformerBlock(nn.Module):
    """Attention of all tokens, then the MLP; names as in timm.

    Args:
        dim, num_heads, mlp_ratio: widths.
        norm_eps: of the norms; drop_path: of both branches.
        qkv_bias: see SelfAttention.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        norm_eps: float = 1e-6,
        drop_path: float = 0.0,
    ):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = SelfAttention(dim, num_heads, qkv_bias=qkv_bias)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        # A ratio of two whole numbers gives the first one back.
        self.mlp = Mlp(dim, int(dim * mlp_ratio + 1e-6), dim)
        self.drop_path = StochasticDepth(drop_path, "row")

    def last_weights(self) -> list[Tensor]:
        """Of the layers whose results are added to the input."""
        return [self.attn.proj.weight, self.mlp.get_parameter("fc2.weight")]

    def forward(self, x: Tensor, grid: Grid, rotation: Rotation | None = None) -> Tensor:
        """(B, N, dim) -> the same shape.

        Args:
            grid, rotation: see SelfAttention.
        """
        x = x + self.drop_path(self.attn(self.norm1(x), grid, rotation))
        return x + self.drop_path(self.mlp(self.norm2(x)))


@torch.no_grad()
def scale_down(weights: Iterable[Tensor], number: int) -> None:
    """Divide the weights of a block's last layers by ``sqrt(2 * number)``, as BEiT does at first.

    Args:
        weights: of the layers whose results are added to the block's input.
        number: of the block, from 1.
    """
    for weight in weights:
        weight.div_(math.sqrt(2.0 * number))
