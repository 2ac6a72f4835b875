"""Attention of every token to a dilated window around it (DilateFormer, arXiv 2302.01791).

The window is walked tap by tap over shifted views of the keys and values. Beside them only the
logits are kept, one number per head and tap, where unfolding would copy every key and value as
often as there are taps.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from videonet.errors import ConfigError
from videonet.ops.grid import Grid


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
