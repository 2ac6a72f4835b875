"""Depth-wise 3D convolution with a backward pass made of operators that are fast on the CPU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from videonet.ops import onednn
from videonet.ops.grid import Grid
from videonet.ops.precision import autocast_inputs


def depthwise_conv(volume: Tensor, weight: Tensor, stride: Grid, padding: Grid) -> Tensor:
    """``F.conv3d`` with one kernel per channel.

    Args:
        volume: (B, C, T, H, W).
        weight: (C, 1, kt, kh, kw).

    Returns:
        (B, C, T', H', W').
    """
    cast = autocast_inputs(volume, weight)
    wants_gradient = torch.is_grad_enabled() and any(x.requires_grad for x in cast)
    if wants_gradient and onednn.preferred(*cast):
        return _DepthwiseConv.apply(*cast, tuple(stride), tuple(padding))
    return F.conv3d(volume, weight, None, stride, padding, groups=volume.shape[1])


class _DepthwiseConv(Function):
    """torch's own backward of a depth-wise 3D convolution is 10 times slower than its forward."""

    @staticmethod
    def forward(volume: Tensor, weight: Tensor, stride: Grid, padding: Grid) -> Tensor:
        return F.conv3d(volume, weight, None, stride, padding, groups=volume.shape[1])

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.stride, ctx.padding = inputs[2:]

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        volume, weight = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last_3d)
        grad_volume = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_volume = _volume_gradient(grad, weight, volume.shape[2:], ctx.stride, ctx.padding)
        if ctx.needs_input_grad[1]:
            grad_weight = _weight_gradient(grad, volume, weight, ctx.stride, ctx.padding)
        return grad_volume, grad_weight, None, None


def _volume_gradient(
    grad: Tensor, weight: Tensor, size: Grid, stride: Grid, padding: Grid
) -> Tensor:
    """Another depth-wise convolution: of the gradient, spread by the stride, with the kernel
    turned round."""
    kernel = tuple(weight.shape[2:])
    if tuple(stride) != (1, 1, 1):
        # Long enough that the convolution below gives `size` with `kernel - 1 - padding`.
        spread = [n + 2 * p - k + 1 for n, p, k in zip(size, padding, kernel, strict=True)]
        sparse = grad.new_zeros(grad.shape[0], *spread, grad.shape[1]).permute(0, 4, 1, 2, 3)
        st, sh, sw = stride
        sparse[:, :, ::st, ::sh, ::sw] = grad
        grad = sparse
    turned = weight.flip(2, 3, 4)
    padding = tuple(k - 1 - p for k, p in zip(kernel, padding, strict=True))
    return F.conv3d(grad, turned, None, 1, padding, groups=grad.shape[1])


def _weight_gradient(
    grad: Tensor, volume: Tensor, weight: Tensor, stride: Grid, padding: Grid
) -> Tensor:
    """One 2D problem, over all frames that meet, for each temporal tap."""
    channels, _, *(taps, kh, kw) = weight.shape
    grad, volume = grad.float(), volume.float()  # bf16 is slower here, and coarser
    kernel = weight.new_empty(channels, 1, kh, kw, dtype=torch.float32)
    total = torch.zeros_like(weight, dtype=torch.float32)
    frames, outputs = volume.shape[2], grad.shape[2]
    for tap in range(taps):
        # Output t reads frame t * stride + tap - padding, where there is one.
        shift = tap - padding[0]
        first = max(0, -(shift // stride[0]))
        last = min(outputs, (frames - 1 - shift) // stride[0] + 1)
        if first >= last:
            continue
        start = first * stride[0] + shift
        read = volume[:, :, start : start + (last - first - 1) * stride[0] + 1 : stride[0]]
        _, total[:, :, tap], _ = torch.ops.aten.convolution_backward(
            _frames(grad[:, :, first:last]),
            _frames(read),
            kernel,
            None,
            stride[1:],
            padding[1:],
            [1, 1],
            False,
            [0, 0],
            channels,
            [False, True, False],
        )
    return total.to(weight.dtype)


def _frames(volume: Tensor) -> Tensor:
    """(B, C, T, H, W) -> (B*T, C, H, W) in channels-last memory."""
    return volume.permute(0, 2, 3, 4, 1).flatten(0, 1).permute(0, 3, 1, 2)
