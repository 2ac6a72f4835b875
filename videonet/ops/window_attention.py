"""Multi-head attention within windows, with a table of relative-position biases (Swin, Eq. 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from videonet.ops.attention import check_heads
from videonet.ops.fused_attention import fused_attention
from videonet.ops.grid import Grid, volume
from videonet.ops.windows import MASKED, Windows, cut_windows, join_windows, shift_mask

ShiftMasks = Sequence[tuple[int, Tensor]]  # an axis of the grid, and the mask of its last windows


@dataclass(frozen=True)
class StageWindows:
    """The windows, bias rows and masks that all blocks of a stage share; made once per clip.

    Attributes:
        rows: (t*h*w, t*h*w), of the bias table.
        shift_masks: for each shifted axis its number and a mask (t*h*w, t*h*w), which is added
            to the logits of the last windows along that axis.
    """

    windows: Windows
    rows: Tensor
    shift_masks: ShiftMasks

    @classmethod
    def of(cls, windows: Windows, rows: Tensor, like: Tensor) -> StageWindows:
        """The plan in the type and on the device of `like`."""
        masks = []
        for axis in windows.shifted_axes:
            apart = shift_mask(windows, axis, like.device)
            masks.append((axis, like.new_zeros(apart.shape).masked_fill(apart, MASKED)))
        return cls(windows, rows, tuple(masks))


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
        x = cut_windows(x, plan.windows)  # (B, nt, nh, nw, N, dim)
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))
        bias = self.relative_position_bias_table[plan.rows].permute(2, 0, 1)  # (heads, N, N)
        # A mask of another type or order would send torch to its slowest kind of attention.
        bias = bias.to(qkv.dtype).contiguous()
        y = self._attend(qkv, bias, plan.shift_masks)
        y = join_windows(self.proj(y), plan.windows)
        return self.dropout(y)

    def _attend(self, qkv: Tensor, bias: Tensor, shift_masks: ShiftMasks) -> Tensor:
        """Queries, keys and values (B, nt, nh, nw, N, 3, heads, D) -> (B, nt, nh, nw, N, heads*D).

        The `bias` (heads, N, N) is added to the logits of all windows. Only the last windows along
        a shifted axis need its mask: they are split off and attend by themselves, so that there are
        at most eight different sums of bias and masks instead of one for each window.
        """
        if shift_masks:
            (axis, mask), *others = shift_masks
            axis += 1  # the batch comes first
            last = qkv.shape[axis] - 1
            inner, outer = qkv.split([last, 1], dim=axis)
            masked = bias + mask.to(bias.dtype)
            parts = self._attend(inner, bias, others), self._attend(outer, masked, others)
            return torch.cat(parts, dim=axis)
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
