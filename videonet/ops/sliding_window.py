"""Attention of every token to a dilated window around it (DilateFormer, arXiv 2302.01791).

The window is walked tap by tap over shifted views of the keys and values. Beside them only the
logits are kept, one number per head and tap, where unfolding would copy every key and value as
often as there are taps. On GPUs a Triton kernel walks it, :mod:`videonet.ops.kernels.gpu`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from videonet.errors import ConfigError
from videonet.ops.attention import check_heads
from videonet.ops.conv import TokenConv
from videonet.ops.grid import Grid
from videonet.ops.kernels import gpu


def window_taps(size: int, dilation: int) -> list[int]:
    """Offsets of a window's taps along one axis, symmetric around 0.

    Raises:
        ConfigError: a window of this even size has no centre.
    """
    reach = dilation * (size - 1)
    if reach % 2:
        raise ConfigError(
            f"a window of {size} taps with dilation {dilation} has no centre: use an odd number"
        )
    return [dilation * i - reach // 2 for i in range(size)]


def shifted_views(x: Tensor, taps: Sequence[Sequence[int]]) -> list[Tensor]:
    """Views of x (B, T, H, W, ...), one per tap of the window, with zeros beyond the grid.

    In view ``(dt, dh, dw)`` the cell (t, h, w) holds what x has at (t + dt, h + dh, w + dw).
    The taps are in the order of the axes, the last one fastest.
    """
    margins = [max(map(abs, offsets)) for offsets in taps]
    around = [m for margin in reversed(margins) for m in (margin, margin)]
    views = [F.pad(x, [0, 0] * (x.dim() - 4) + around)]
    for axis, (offsets, margin) in enumerate(zip(taps, margins, strict=True), start=1):
        size = x.shape[axis]
        views = [view.narrow(axis, margin + o, size) for view in views for o in offsets]
    return views


def sliding_window_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    kernel: Grid,
    dilation: Grid,
    scale: float,
) -> Tensor:
    """Softmax attention within a window around each query (Sliding Window Dilated Attention).

    Taps beyond the frame are keys and values of zero that do take part in the softmax, as in the
    official code. Taps outside the clip in time are left out of it, so that a still clip attends
    like its image.

    Args:
        q, k, v: (B, T, H, W, heads, D).
        kernel, dilation: taps of the window and their distance, (t, h, w).
        scale: of the logits.

    Returns:
        (B, T, H, W, heads, D).
    """
    frames = q.shape[1]
    taps = [window_taps(*axis) for axis in zip(kernel, dilation, strict=True)]
    taps[0] = [dt for dt in taps[0] if abs(dt) < frames]  # the others never meet the clip
    q = q * scale
    logits = torch.stack([(q * key).sum(-1) for key in shifted_views(k, taps)])
    if len(taps[0]) > 1:
        outside = _outside_clip(frames, taps, q.device)  # (taps, 1, T, 1, 1, 1)
        logits = logits.masked_fill(outside, float("-inf"))  # (taps, B, T, H, W, heads)
    weights = logits.softmax(dim=0).to(v.dtype).unsqueeze(-1)
    out = torch.zeros_like(q)
    for weight, value in zip(weights.unbind(), shifted_views(v, taps), strict=True):
        out = torch.addcmul(out, weight, value)
    return out


def grouped_windows(qkv: Tensor, kernel: Grid, dilations: Sequence[Grid], scale: float) -> Tensor:
    """Sliding windows of another dilation for each of equal groups of heads.

    Args:
        qkv: (B, T, H, W, 3, heads, D).
        kernel, dilations, scale: see :func:`sliding_window_attention`.

    Returns:
        (B, T, H, W, heads, D).
    """
    attended = [
        sliding_window_attention(
            *group.unbind(dim=4), kernel=kernel, dilation=dilation, scale=scale
        )
        for group, dilation in zip(qkv.chunk(len(dilations), dim=-2), dilations, strict=True)
    ]
    return torch.cat(attended, dim=-2)


def _outside_clip(frames: int, taps: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """Which taps lie outside the clip for queries of each frame: (taps, 1, T, 1, 1, 1)."""
    offsets = torch.tensor(taps[0], device=device).repeat_interleave(len(taps[1]) * len(taps[2]))
    frame = torch.arange(frames, device=device) + offsets[:, None]
    return ((frame < 0) | (frame >= frames))[:, None, :, None, None, None]


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
        else:
            y = grouped_windows(qkv, self.kernel, self.dilations, self.scale)
        return self.proj(y.flatten(-2))
