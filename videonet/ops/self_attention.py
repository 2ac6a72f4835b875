"""Multi-head self-attention of all tokens (arXiv 1706.03762, Sec. 3.2; ViT, arXiv 2010.11929)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from videonet.ops.attention import attention, check_heads
from videonet.ops.grid import Grid
from videonet.ops.kernels.modules import is_plain
from videonet.ops.relative_position import Tables
from videonet.ops.rotary import Rotation, rotate

LARGEST_COSINE_SCALE = 100.0


class FullAttention(nn.Module):
    """Every token attends to every token; names as in timm.

    A subclass has the ``forward`` that brings its tokens into a row.

    Args:
        dim: width of the tokens.
        qkv_bias, proj_bias: of the linear layers before and after the attention.
        key_bias: False for a bias of queries and values alone (``q_bias`` and ``v_bias``, as in
            BEiT); that of the keys cancels in the softmax anyway.
        qk_scale: factor on the logits; None for ``(dim / num_heads) ** -0.5``.
        cos_attn: logits are cosines of queries and keys times a learned factor of each head
            (Swin V2, arXiv 2111.09883, Eq. 2).
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
        key_bias: bool = True,
        proj_bias: bool = True,
        qk_scale: float | None = None,
        cos_attn: bool = False,
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
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias and key_bias)
        split_bias = qkv_bias and not key_bias
        self.q_bias = nn.Parameter(torch.zeros(dim)) if split_bias else None
        self.v_bias = nn.Parameter(torch.zeros(dim)) if split_bias else None
        self.scale = None
        if cos_attn:  # the logarithm of the factor
            self.scale = nn.Parameter(torch.full((num_heads, 1, 1), math.log(10)))
        self.q_norm = nn.LayerNorm(head_dim, eps=norm_eps) if qk_norm else None
        self.k_norm = nn.LayerNorm(head_dim, eps=norm_eps) if qk_norm else None
        self.norm = nn.LayerNorm(dim, eps=norm_eps) if out_norm else None
        self.proj = nn.Linear(dim, dim, bias=proj_bias)

    def attend(
        self,
        x: Tensor,
        grid: Grid,
        rotation: Rotation | None = None,
        tables: Tables | None = None,
        key_bias: Tensor | None = None,
    ) -> Tensor:
        """(B, num_prefix_tokens + N, dim) -> the same shape.

        Args:
            grid: (T, H, W) of the clip, of whose T*H*W cells the tokens may be a part.
            rotation: rotary positions of all tokens, None for none.
            tables: of relative positions, with which the tokens have to be all cells.
            key_bias: (B, num_prefix_tokens + N), added to the logits of single keys.
        """
        cells = (1, 1, x.shape[1] - self.num_prefix_tokens) if tables is None else grid
        qkv = self._project(x).unflatten(2, (3, self.num_heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)
        if self.scale is not None:
            factor = self.scale.clamp(max=math.log(LARGEST_COSINE_SCALE)).exp()
            q, k = F.normalize(q, dim=-1) * factor, F.normalize(k, dim=-1)
        y = attention(
            q,
            k,
            v,
            q_grid=cells,
            k_grid=cells,
            tables=(None, None, None) if tables is None else tables,
            key_bias=key_bias,
            num_prefix_tokens=self.num_prefix_tokens,
            prefix_key_bias=math.log(grid[0]) if self.cls_key_log_frames else 0.0,
            scale=self.qk_scale if self.scale is None else 1.0,
        )  # (B, heads, N, D)
        y = y.transpose(1, 2).flatten(2)  # (B, N, dim)
        y = self.proj(y if self.norm is None else self.norm(y))
        return self.dropout(y)

    def _project(self, x: Tensor) -> Tensor:
        """(B, N, dim) -> queries, keys and values (B, N, 3 * dim)."""
        if self.q_bias is None or self.v_bias is None:
            return self.qkv(x)
        bias = torch.cat((self.q_bias, torch.zeros_like(self.q_bias), self.v_bias))
        if is_plain(self.qkv, nn.Linear):
            return F.linear(x, self.qkv.weight, bias)
        y = self.qkv(x)
        return y + bias.to(y.dtype)


class SelfAttention(FullAttention):
    """The same of tokens that are in a row already."""

    def forward(self, x: Tensor, grid: Grid, rotation: Rotation | None = None) -> Tensor:
        """(B, num_prefix_tokens + N, dim) -> the same shape, see :meth:`attend`."""
        return self.attend(x, grid, rotation)
