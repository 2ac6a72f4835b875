"""Shifts of channel groups along one axis of a T×H×W grid, zero outside of it.

Cycle-FC (CycleMLP, arXiv 2107.10224, Eq. 3) and the axial shift (AS-MLP, arXiv 2107.08391,
Sec. 3.2) are both a plan that says which channels read from which neighbour, followed by a linear
layer. An axis shifts the same way whether it is time, height or width. On GPUs one Triton kernel
shifts all groups, :mod:`videonet.ops.kernels.gpu`.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from videonet.ops.conv import TokenConv
from videonet.ops.kernels import gpu
from videonet.ops.precision import autocast_input
from videonet.ops.tracing import once_per_shape

TIME, HEIGHT, WIDTH = 1, 2, 3  # axes of (B, T, H, W, C)

Plan = tuple[tuple[slice, int], ...]  # channels, and how far along the axis they are read


def block_plan(channels: int, size: int, dilation: int = 1) -> Plan:
    """Consecutive blocks of ``ceil(channels / size)`` read at ``size // 2, …, -(size // 2)``.

    Where rounding up leaves fewer blocks than `size`, the last offsets are unused.
    """
    width = math.ceil(channels / size)
    return tuple(
        (slice(start, start + width), (size // 2 - i) * dilation)
        for i, start in enumerate(range(0, channels, width))
    )


def cyclic_plan(channels: int, size: int) -> Plan:
    """Channel ``i`` reads at ``(i + size // 2) % size - size // 2``: 0, 1, -1, 0, … for size 3."""
    return tuple(
        (slice(first, None, size), (first + size // 2) % size - size // 2)
        for first in range(min(size, channels))
    )


def shift(x: Tensor, offset: int, axis: int) -> Tensor:
    """Read every position at ``position + offset`` along `axis`; what lies outside is zero."""
    if offset == 0:
        return x
    if abs(offset) >= x.shape[axis]:
        return torch.zeros_like(x)
    padding = [0, 0] * (x.dim() - axis)  # F.pad counts from the last axis
    padding[-2:] = [-offset, offset]  # less than zero crops
    return F.pad(x, padding)


def shift_channels(x: Tensor, plan: Plan, axis: int) -> Tensor:
    """Shift groups of channels, each by its own offset.

    Args:
        x: (B, T, H, W, C).
        plan: of C channels.
        axis: ``TIME``, ``HEIGHT`` or ``WIDTH``.

    Returns:
        (B, T, H, W, C) with the channels in the order of the plan.
    """
    in_order = all(channels.step is None for channels, _ in plan)
    if in_order and gpu.usable(x):
        return shift_at_once(x, plan, axis)
    return torch.cat([shift(x[..., channels], offset, axis) for channels, offset in plan], dim=-1)


def shift_at_once(x: Tensor, plan: Plan, axis: int) -> Tensor:
    """The same on a GPU, with the channels in their own order."""
    numbers = tuple((c.start, c.stop, c.step, offset) for c, offset in plan)
    return gpu.SHIFT(autocast_input(x), _offsets(numbers, x.shape[-1], x.device), axis)


@once_per_shape
def _offsets(plan: tuple[tuple, ...], channels: int, device: torch.device) -> Tensor:
    """How far along the axis each channel is read, (C,) int32."""
    offsets = [0] * channels
    for *place, offset in plan:
        for channel in range(channels)[slice(*place)]:
            offsets[channel] = offset
    return torch.tensor(offsets, dtype=torch.int32, device=device)


class CycleFC(TokenConv):
    """A linear layer whose input channels are read at cyclically changing neighbours.

    Args:
        dim, dim_out: width of the input and of the output.
        size: number of neighbours, the position itself included.
        axis: ``TIME``, ``HEIGHT`` or ``WIDTH``.
    """

    def __init__(self, dim: int, dim_out: int, size: int, axis: int):
        super().__init__(dim, dim_out, 1)
        self.plan = cyclic_plan(dim, size)
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, H, W, dim) -> (B, T, H, W, dim_out)."""
        weight = self.weight.flatten(1)  # (dim_out, dim)
        if gpu.usable(x):
            return F.linear(shift_at_once(x, self.plan, self.axis), weight, self.bias)
        in_plan_order = torch.cat([weight[:, channels] for channels, _ in self.plan], dim=1)
        return F.linear(shift_channels(x, self.plan, self.axis), in_plan_order, self.bias)
