"""Attention whose queries, keys and values come out of a convolution: CvT (arXiv 2103.15808)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from videonet.errors import ConfigError
from videonet.ops.attention import attention, check_heads
from videonet.ops.depthwise import depthwise_layout, depthwise_sizes
from videonet.ops.grid import Grid, same_padding
from videonet.ops.kernels.modules import is_plain
from videonet.ops.pooling import avg_pool, conv_pool, to_tokens, to_volume

PROJECTIONS = ("dw_bn", "avg")


class ConvProjection(nn.Module):
    """Depth-wise convolution and batch norm (CvT, Sec. 3.2): tokens in, (fewer) tokens out."""

    def __init__(self, dim: int, kernel: Grid, stride: Grid, padding: Grid):
        super().__init__()
        self.conv = nn.Conv3d(dim, dim, kernel, stride, padding, groups=dim, bias=False)
        self.bn = nn.BatchNorm3d(dim)

    def forward(self, tokens: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        """(B, T*H*W, dim) -> (B, T'*H'*W', dim) and the new grid."""
        return to_tokens(self.bn(self._convolve(tokens, grid)))

    def _convolve(self, tokens: Tensor, grid: Grid) -> Tensor:
        """(B, T*H*W, dim) -> (B, dim, T', H', W')."""
        conv = self.conv
        if is_plain(conv, nn.Conv3d) and (sizes := depthwise_sizes(conv)) is not None:
            tokens, grid = conv_pool(tokens, grid, conv.weight, *sizes, conv.bias)
            return to_volume(tokens, grid)
        return conv(depthwise_layout(to_volume(tokens, grid)))


class AverageProjection(nn.Module):
    """The mean over windows in place of the convolution, frame by frame."""

    def __init__(self, kernel: Grid, stride: Grid, padding: Grid):
        super().__init__()
        self.kernel, self.stride = (1, *kernel[1:]), (1, *stride[1:])
        self.padding = (0, *padding[1:])

    def forward(self, tokens: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        """(B, T*H*W, dim) -> (B, T*H'*W', dim) and the new grid."""
        return avg_pool(tokens, grid, self.kernel, self.stride, self.padding, ceil_mode=True)


class ConvAttention(nn.Module):
    """Multi-head attention with convolutional projections (CvT, Eq. 2 and 3).

    Names follow the official implementation, and so does the scale of the logits: the full width
    to the power of -1/2, not a head's.

    Args:
        dim, num_heads, qkv_bias: widths.
        kernel: of the projections, (t, h, w); queries keep their grid.
        kv_stride, kv_padding: of keys and values, (t, h, w).
        projection: "dw_bn", or "avg": queries as they are, keys and values averaged over windows.
        num_prefix_tokens: number of prefix tokens, which pass the linear layers alone.
        cls_key_log_frames: see :class:`videonet.ops.self_attention.SelfAttention`.
    """

    conv_proj_q: ConvProjection | None
    conv_proj_k: ConvProjection | AverageProjection
    conv_proj_v: ConvProjection | AverageProjection

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        kernel: Grid,
        kv_stride: Grid,
        kv_padding: Grid,
        qkv_bias: bool = True,
        projection: str = "dw_bn",
        num_prefix_tokens: int = 0,
        cls_key_log_frames: bool = False,
        dropout: float = 0.0,
    ):
        super().__init__()
        if projection not in PROJECTIONS:
            raise ConfigError(f"projection is {projection!r}, expected {' or '.join(PROJECTIONS)}")
        check_heads(dim, num_heads)
        self.num_heads = num_heads
        self.num_prefix_tokens = num_prefix_tokens
        self.cls_key_log_frames = num_prefix_tokens > 0 and cls_key_log_frames
        self.scale = dim**-0.5
        self.dropout = nn.Dropout(dropout)
        if projection == "dw_bn":
            self.conv_proj_q = ConvProjection(dim, kernel, (1, 1, 1), same_padding(kernel))
            self.conv_proj_k = ConvProjection(dim, kernel, kv_stride, kv_padding)
            self.conv_proj_v = ConvProjection(dim, kernel, kv_stride, kv_padding)
        else:
            self.conv_proj_q = None
            self.conv_proj_k = AverageProjection(kernel, kv_stride, kv_padding)
            self.conv_proj_v = self.conv_proj_k
        self.proj_q = nn.Linear(dim, dim, bias=qkv_bias)
        self.proj_k = nn.Linear(dim, dim, bias=qkv_bias)
        self.proj_v = nn.Linear(dim, dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """(B, num_prefix_tokens + T*H*W, dim) -> the same shape."""
        q, _ = self._project(x, grid, self.conv_proj_q, self.proj_q)
        k, k_grid = self._project(x, grid, self.conv_proj_k, self.proj_k)
        v, _ = self._project(x, grid, self.conv_proj_v, self.proj_v)
        y = attention(
            q,
            k,
            v,
            q_grid=grid,
            k_grid=k_grid,
            num_prefix_tokens=self.num_prefix_tokens,
            prefix_key_bias=math.log(k_grid[0]) if self.cls_key_log_frames else 0.0,
            scale=self.scale,
        )  # (B, heads, N, D)
        y = self.proj(y.transpose(1, 2).flatten(2))  # (B, N, dim)
        return self.dropout(y)

    def _project(
        self, x: Tensor, grid: Grid, conv: nn.Module | None, linear: nn.Linear
    ) -> tuple[Tensor, Grid]:
        """Tokens -> (B, heads, N', D) and their grid."""
        if conv is not None:
            first, cells = x[:, : self.num_prefix_tokens], x[:, self.num_prefix_tokens :]
            cells, grid = conv(cells, grid)
            x = torch.cat((first, cells), dim=1) if self.num_prefix_tokens else cells
        return linear(x).unflatten(2, (self.num_heads, -1)).transpose(1, 2), grid
