"""Rotary positions on a T×H×W grid: queries and keys turned by angles that grow along an axis.

RoFormer (arXiv 2104.09864) turns pairs of channels by multiples of a position. V-JEPA 2
(arXiv 2506.09985) cuts the channels of a head into three parts, for time, height and
width. In its code, which its weights need, neighbouring channels are a pair, but the list of
frequencies is repeated as a whole instead of channel by channel, so that the two channels of a
pair turn by different angles: logits depend on the positions themselves, not only on differences.
"""

from __future__ import annotations

import torch
from torch import Tensor

from videonet.ops.grid import Grid
from videonet.ops.tracing import once_per_shape

BASE = 10000.0
Rotation = tuple[Tensor, Tensor]  # cosines and sines, (N, R) or (B, 1, N, R)


def channels_per_axis(head_dim: int) -> int:
    """Channels of a head that turn along each of the three axes, an even number."""
    return 2 * (head_dim // 3 // 2)


@once_per_shape
def rotary_angles(grid: Grid, head_dim: int, rotate_time: bool, device: torch.device) -> Tensor:
    """The angle of every cell and channel, (T*H*W, R); R = 3 channels_per_axis(head_dim).

    Args:
        grid: (T, H, W); positions are the cells' numbers along each axis.
        rotate_time: False for the angle 0 in time, at every frame.
    """
    count = channels_per_axis(head_dim) // 2
    rates = BASE ** -(torch.arange(count, dtype=torch.float32, device=device) / max(count, 1))
    rates = rates.repeat(2)
    angles = []
    for axis, size in enumerate(grid):
        positions = torch.arange(size, dtype=torch.float32, device=device)
        if axis == 0 and not rotate_time:
            positions = torch.zeros_like(positions)
        shape = [1, 1, 1, len(rates)]
        shape[axis] = size
        angles.append((positions.unsqueeze(1) * rates).view(shape).expand(*grid, -1))
    return torch.cat(angles, dim=3).flatten(0, 2)


def rotation_of(
    grid: Grid,
    head_dim: int,
    *,
    rotate_time: bool,
    device: torch.device,
    keep: Tensor | None = None,
) -> Rotation:
    """What :func:`rotate` takes, for the cells of a grid or for those of the numbers `keep` (B, K).

    Args:
        grid, rotate_time: see :func:`rotary_angles`.
    """
    angles = rotary_angles(grid, head_dim, rotate_time, device)
    if keep is not None:
        angles = angles[keep].unsqueeze(1)  # (B, 1, K, R)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Turn the first R channels of each head, (B, heads, N, D); the others stay."""
    cosines, sines = (part.to(x.dtype) for part in rotation)
    turning = x[..., : cosines.shape[-1]]
    first, second = turning.unflatten(-1, (-1, 2)).unbind(dim=-1)
    crossed = torch.stack((-second, first), dim=-1).flatten(-2)
    turned = turning * cosines + crossed * sines
    return torch.cat((turned, x[..., cosines.shape[-1] :]), dim=-1)
