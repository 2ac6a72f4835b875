"""Multi-head attention within windows, with a table of relative-position biases (Swin, Eq. 4).

On GPUs, in half precision, a Triton kernel finds the cells of each window on the grid as it lies in
memory (:mod:`videonet.ops.kernels.gpu`); elsewhere windows are cut, attend and are joined.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from videonet.ops.attention import check_heads
from videonet.ops.fused_attention import fused_attention
from videonet.ops.grid import Grid, volume
from videonet.ops.kernels import gpu
from videonet.ops.precision import autocast_input
from videonet.ops.tracing import once_per_shape
from videonet.ops.windows import (
    MASKED,
    Windows,
    cut_windows,
    edge_masks,
    join_windows,
    pad_to_windows,
)

# An axis of the grid, and masks (t*h*w, t*h*w) of the last windows along it, one for each.
EdgeMasks = Sequence[tuple[int, Sequence[Tensor]]]


@dataclass(frozen=True)
class StageWindows:
    """The windows, bias rows and masks that all blocks of a stage share; made once per clip.

    Attributes:
        rows: (t*h*w, t*h*w), of the bias table.
        edge_masks: for an axis its number and the masks of the last windows along it, which are
            added to their logits.
        frames: cells behind the first so many frames are no keys.
    """

    windows: Windows
    rows: Tensor
    edge_masks: EdgeMasks
    frames: int

    @classmethod
    def of(
        cls, windows: Windows, rows: Tensor, like: Tensor, mask_time: bool = False
    ) -> StageWindows:
        """The plan in the type and on the device of `like`.

        Args:
            mask_time: cells behind the end of the clip are no keys; those beside the frame are.
        """
        masks = [
            (axis, _edge_masks(windows, axis, mask_time and axis == 0, like.dtype, like.device))
            for axis in range(3)
        ]
        frames = windows.grid[0] if mask_time else windows.padded[0]
        return cls(windows, rows, tuple((axis, mask) for axis, mask in masks if mask), frames)


@once_per_shape
def _edge_masks(
    windows: Windows, axis: int, leave_padding: bool, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, ...]:
    """What is added to the logits of the last windows along an axis, (t*h*w, t*h*w) each."""
    apart = edge_masks(windows, axis, device, leave_padding)
    zeros = torch.zeros(2 * (volume(windows.size),), dtype=dtype, device=device)
    return tuple(zeros.masked_fill(mask, MASKED) for mask in apart)


class WindowAttention(nn.Module):
    """Attention of each window's cells to one another.

    Parameter names follow the official implementation.

    Args:
        dim: width of the tokens. num_heads: divides `dim`.
        window: (t, h, w) that the bias table is made for.
        qkv_bias: whether queries, keys and values have a bias.
        qk_scale: factor on the logits; None for ``(dim / num_heads) ** -0.5``.
        dropout: of the result; attention_dropout: of the attention weights.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window: Grid,
        *,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
    ):
        super().__init__()
        check_heads(dim, num_heads)
        self.num_heads, self.window, self.qk_scale = num_heads, window, qk_scale
        self.dropout, self.attention_dropout = nn.Dropout(dropout), attention_dropout
        offsets = volume(tuple(2 * w - 1 for w in window))
        self.relative_position_bias_table = nn.Parameter(torch.zeros(offsets, num_heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, plan: StageWindows) -> Tensor:
        """(B, T, H, W, dim) -> the same shape."""
        bias = self.relative_position_bias_table[plan.rows].permute(2, 0, 1)  # (heads, N, N)
        bias = autocast_input(bias)
        width = x.shape[-1] // self.num_heads
        drops = self.training and self.attention_dropout > 0
        if not drops and gpu.attends_in_windows(bias, width):
            return self.dropout(self.proj(self._attend_on_grid(x, bias, plan)))
        x = cut_windows(x, plan.windows)  # (B, nt, nh, nw, N, dim)
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))
        # A mask of another type or order would send torch to its slowest kind of attention.
        bias = bias.to(qkv.dtype).contiguous()
        y = self._attend(qkv, bias, plan.edge_masks)
        y = join_windows(self.proj(y), plan.windows)
        return self.dropout(y)

    def _attend_on_grid(self, x: Tensor, bias: Tensor, plan: StageWindows) -> Tensor:
        """(B, T, H, W, dim) -> the same shape, with no tensor in the order of the windows."""
        qkv = self.qkv(pad_to_windows(x, plan.windows)).unflatten(-1, (3, self.num_heads, -1))
        scale = qkv.shape[-1] ** -0.5 if self.qk_scale is None else self.qk_scale
        sizes = plan.windows.size, plan.windows.shift, plan.frames
        y = gpu.WINDOW_ATTENTION(qkv, bias.to(qkv.dtype), *sizes, scale)
        t, h, w = plan.windows.grid
        return y[:, :t, :h, :w].flatten(4)

    def _attend(self, qkv: Tensor, bias: Tensor, masks: EdgeMasks) -> Tensor:
        """Queries, keys and values (B, nt, nh, nw, N, 3, heads, D) -> (B, nt, nh, nw, N, heads*D).

        The `bias` (heads, N, N) is added to the logits of all windows. Only the last windows along
        an axis need its masks: they are split off and attend by themselves, so that there are few
        different sums of bias and masks instead of one for each window.
        """
        if masks:
            (axis, of_last), *others = masks
            axis += 1  # the batch comes first
            inner = qkv.shape[axis] - len(of_last)
            pieces = qkv.split([inner] + [1] * len(of_last), dim=axis)
            biases = [bias, *(bias + mask.to(bias.dtype) for mask in of_last)]
            parts = [self._attend(*part, others) for part in zip(pieces, biases, strict=True)]
            return torch.cat(parts if inner else parts[1:], dim=axis)
        q, k, v = qkv.flatten(0, 3).permute(2, 0, 3, 1, 4)  # (B*nt*nh*nw, heads, N, D) each
        y = fused_attention(
            q,
            k,
            v,
            bias.unsqueeze(0),
            dropout=self.attention_dropout if self.training else 0.0,
            scale=self.qk_scale,
        )
        return y.transpose(1, 2).flatten(2).unflatten(0, qkv.shape[:4])
