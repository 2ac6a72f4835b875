"""Shifts of channels along an axis by a Triton kernel, as one operator of torch."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import custom_op

from videonet.ops.kernels.cuda.depthwise import runs_triton

ROWS, WIDE = 16, 128  # cells and channels that a program writes


@triton.jit
def _shift(x, offsets, out, cells, C, size, step, BR: tl.constexpr, BC: tl.constexpr):
    cell = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)
    channels = tl.program_id(1) * BC + tl.arange(0, BC)
    offset = tl.load(offsets + channels, channels < C, 0)
    there = (cell < cells)[:, None] & (channels < C)[None, :]
    read = (cell // step % size)[:, None] + offset[None, :]
    source = (cell[:, None] + offset[None, :].to(tl.int64) * step) * C + channels[None, :]
    found = tl.load(x + source, there & (read >= 0) & (read < size), 0.0)
    tl.store(out + cell[:, None] * C + channels[None, :], found, there)


@custom_op("videonet::shift", mutates_args=())
def shift(x: Tensor, offsets: Tensor, axis: int) -> Tensor:
    """Read each channel of every cell at ``position + offset`` along an axis, zero outside.

    Args:
        x: (B, T, H, W, C).
        offsets: (C,) int32.
        axis: of x, from 1 to 3.

    Returns:
        (B, T, H, W, C).
    """
    if not runs_triton(x):
        return plain_shift(x, offsets, axis)
    x, out = x.contiguous(), x.new_empty(x.shape)
    if x.numel():
        cells, channels = x.shape[:4].numel(), x.shape[4]
        sizes = cells, channels, x.shape[axis], x.shape[axis + 1 : 4].numel()
        launch = triton.cdiv(cells, ROWS), triton.cdiv(channels, WIDE)
        _shift[launch](x, offsets, out, *sizes, ROWS, WIDE, num_warps=4)
    return out


def plain_shift(x: Tensor, offsets: Tensor, axis: int) -> Tensor:
    """The same of torch's operators."""
    size = x.shape[axis]
    place = torch.arange(size, device=x.device)[:, None] + offsets  # (size, C)
    inside = (place >= 0) & (place < size)
    shape = [1] * axis + [size] + [1] * (3 - axis) + [-1]
    index = place.clamp(0, max(size - 1, 0)).view(shape).expand(x.shape)
    return x.gather(axis, index) * inside.view(shape)


@shift.register_fake
def _(x, offsets, axis):
    return x.new_empty(x.shape)


def _keep(ctx, inputs, output) -> None:
    _, offsets, ctx.axis = inputs
    ctx.save_for_backward(offsets)


def _gradients(ctx, grad: Tensor):
    (offsets,) = ctx.saved_tensors
    return shift(grad, -offsets, ctx.axis), None, None


shift.register_autograd(_gradients, setup_context=_keep)
