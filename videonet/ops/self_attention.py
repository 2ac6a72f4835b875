"""Multi-head self-attention of all tokens (arXiv 1706.03762, Sec. 3.2; ViT, arXiv 2010.11929)."""

from __future__ import annotations

import math

from torch import Tensor, nn

from videonet.ops.attention import attention, check_heads
from videonet.ops.grid import Grid
from videonet.ops.rotary import Rotation, rotate


class FullAttention(nn.Module):
    """Every token attends to every token; names as in timm.

    A subclass has the ``forward`` that brings its tokens into a row.

    Args:
        dim: width of the tokens.
        qkv_bias, proj_bias: of the linear layers before and after the attention.
        qk_scale: factor on the logits; None for ``(dim / num_heads) ** -0.5``.
        qk_norm: layer norm of each head's queries and keys.
        out_norm: layer norm of the result before the last linear layer.
        norm_eps: of these norms.
        num_prefix_tokens: number of prefix tokens that are no cells of the grid.
        cls_key_log_frames: weigh the keys of these tokens once per frame, as often as a still
            clip repeats the key of each patch, so that it gives what its image gives.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        qkv_bias: bool = True,
        proj_bias: bool = True,
        qk_scale: float | None = None,
        qk_norm: bool = False,
        out_norm: bool = False,
        norm_eps: float = 1e-6,
        num_prefix_tokens: int = 0,
        cls_key_log_frames: bool = False,
        dropout: float = 0.0,
    ):
        super().__init__()
        check_heads(dim, num_heads)
        self.num_heads, self.qk_scale = num_heads, qk_scale
        self.num_prefix_tokens = num_prefix_tokens
        self.cls_key_log_frames = num_prefix_tokens > 0 and cls_key_log_frames
        self.dropout = nn.Dropout(dropout)
        head_dim = dim // num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.q_norm = nn.LayerNorm(head_dim, eps=norm_eps) if qk_norm else None
        self.k_norm = nn.LayerNorm(head_dim, eps=norm_eps) if qk_norm else None
        self.norm = nn.LayerNorm(dim, eps=norm_eps) if out_norm else None
        self.proj = nn.Linear(dim, dim, bias=proj_bias)

    def attend(self, x: Tensor, grid: Grid, rotation: Rotation | None = None) -> Tensor:
        """(B, num_prefix_tokens + N, dim) -> the same shape.

        Args:
            grid: (T, H, W) of the clip, of whose T*H*W cells the tokens may be a part.
            rotation: rotary positions of all tokens, None for none.
        """
        cells = (1, 1, x.shape[1] - self.num_prefix_tokens)
        q, k, v = self.qkv(x).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)
        y = attention(
            q,
            k,
            v,
            q_grid=cells,
            k_grid=cells,
            num_prefix_tokens=self.num_prefix_tokens,
            prefix_key_bias=math.log(grid[0]) if self.cls_key_log_frames else 0.0,
            scale=self.qk_scale,
        )  # (B, heads, N, D)
        y = y.transpose(1, 2).flatten(2)  # (B, N, dim)
        y = self.proj(y if self.norm is None else self.norm(y))
        return self.dropout(y)


class SelfAttention(FullAttention):
    """The same of tokens that are in a row already."""

    def forward(self, x: Tensor, grid: Grid, rotation: Rotation | None = None) -> Tensor:
        """(B, num_prefix_tokens + N, dim) -> the same shape, see :meth:`attend`."""
        return self.attend(x, grid, rotation)
