"""Multi-head attention to dilated windows (DilateFormer, arXiv 2302.01791).

On GPUs a Triton kernel walks the windows (:mod:`videonet.ops.kernels.gpu`), elsewhere torch's
operators do (:mod:`videonet.ops.sliding_window`, the gradients in :mod:`videonet.ops.window_rows`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from videonet.errors import ConfigError
from videonet.ops.attention import check_heads
from videonet.ops.conv import TokenConv
from videonet.ops.grid import Grid
from videonet.ops.kernels import cpu, gpu
from videonet.ops.sliding_window import grouped_windows, window_taps
from videonet.ops.window_rows import windows_in_rows


class MultiScaleDilatedAttention(nn.Module):
    """Sliding windows of another dilation for each group of heads (arXiv 2302.01791).

    Args:
        dim, num_heads: width and heads; the heads are shared out evenly.
        kernel: taps of the windows, (t, h, w).
        dilations: of each group of heads, (t, h, w).
        qkv_bias: whether query, key and value projections have a bias.
        qk_scale: of the logits; None for ``head_dim ** -0.5``.

    Raises:
        ConfigError: the heads cannot be shared out, or a window has no centre.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        kernel: Grid,
        dilations: Sequence[Grid],
        qkv_bias: bool = True,
        qk_scale: float | None = None,
    ):
        super().__init__()
        check_heads(dim, num_heads)
        if not dilations or num_heads % len(dilations):
            raise ConfigError(
                f"{num_heads} heads cannot be shared out over {len(dilations)} dilations"
            )
        if kernel[0] % 2 == 0:
            raise ConfigError(f"windows are {kernel[0]} frames long, but need an odd number")
        for dilation in dilations:
            for axis in zip(kernel, dilation, strict=True):
                window_taps(*axis)
        self.kernel, self.dilations = kernel, tuple(dilations)
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5 if qk_scale is None else qk_scale
        self.qkv = TokenConv(dim, 3 * dim, 1, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, H, W, dim) -> the same."""
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))  # (B, T, H, W, 3, heads, D)
        if gpu.usable(qkv):
            dilations = [n for dilation in self.dilations for n in dilation]
            y = gpu.DILATED_ATTENTION(qkv, self.kernel, dilations, self.scale)
        elif torch.is_grad_enabled() and qkv.requires_grad and cpu.differentiates(qkv):
            y = windows_in_rows(qkv, self.kernel, self.dilations, self.scale)
        else:
            y = grouped_windows(qkv, self.kernel, self.dilations, self.scale)
        return self.proj(y.flatten(-2))
