"""Depth-wise 3D convolution, with a backward pass made of operators that are fast on the CPU.

On GPUs Triton kernels compute it, :mod:`videonet.ops.kernels.gpu`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

from videonet.ops.grid import Grid, as_grid
from videonet.ops.kernels import cpu, gpu
from videonet.ops.kernels.autograd import FastFunction
from videonet.ops.precision import autocast_inputs

LARGE_KERNEL = 25  # taps in a frame from which oneDNN's gradient of a weight is the slower way


def depthwise_conv(
    volume: Tensor, weight: Tensor, bias: Tensor | None, stride: Grid, padding: Grid
) -> Tensor:
    """``F.conv3d`` with one kernel per channel.

    Args:
        volume: (B, C, T, H, W).
        weight: (D, 1, kt, kh, kw) with D a divisor of C: groups of D channels share the kernels.
        bias: (C,), or None.

    Returns:
        (B, C, T', H', W').
    """
    cast = autocast_inputs(volume, weight)
    if gpu.usable(*cast):
        return gpu.DEPTHWISE(*cast, bias, tuple(stride), tuple(padding))
    if weight.shape[0] != volume.shape[1]:
        weight = weight.repeat(volume.shape[1] // weight.shape[0], 1, 1, 1, 1)
        cast = autocast_inputs(volume, weight)
    wants_gradient = torch.is_grad_enabled() and any(x.requires_grad for x in cast)
    if wants_gradient and cpu.differentiates(*cast):
        bias = None if bias is None else bias.to(cast[0].dtype)
        return _DepthwiseConv.apply(*cast, bias, tuple(stride), tuple(padding))
    volume = depthwise_layout(volume)
    return F.conv3d(volume, weight, bias, stride, padding, groups=volume.shape[1])


def depthwise_sizes(conv: nn.Conv3d) -> tuple[Grid, Grid] | None:
    """Stride and padding where :func:`depthwise_conv` is what the layer computes; else None."""
    if (
        conv.groups == conv.in_channels == conv.out_channels > 1
        and tuple(conv.dilation) == (1, 1, 1)
        and conv.padding_mode == "zeros"
        and not isinstance(conv.padding, str)
    ):
        return as_grid(conv.stride), as_grid(conv.padding)
    return None


def depthwise_layout(volume: Tensor) -> Tensor:
    """(B, C, T, H, W) in the memory order in which its device convolves channels one by one.

    On CUDA channels first: cuDNN takes 3 times as long forward, and 20 times backward, in
    channels-last order.
    """
    return volume.contiguous() if volume.is_cuda else volume


class _DepthwiseConv(FastFunction):
    """torch's own backward of a depth-wise 3D convolution is 10 times slower than its forward."""

    @staticmethod
    def forward(
        volume: Tensor, weight: Tensor, bias: Tensor | None, stride: Grid, padding: Grid
    ) -> Tensor:
        return F.conv3d(volume, weight, bias, stride, padding, groups=volume.shape[1])

    plain = forward

    @staticmethod
    def gradients(inputs, needed, grad: Tensor):
        volume, weight, _, stride, padding = inputs
        grad = grad.contiguous(memory_format=torch.channels_last_3d)
        grad_volume = grad_weight = grad_bias = None
        if needed[0]:
            grad_volume = _volume_gradient(grad, weight, volume.shape[2:], stride, padding)
        if needed[1]:
            grad_weight = _weight_gradient(grad, volume, weight, stride, padding)
        if needed[2]:
            grad_bias = grad.sum(dim=(0, 2, 3, 4))
        return grad_volume, grad_weight, grad_bias, None, None


def _volume_gradient(
    grad: Tensor, weight: Tensor, size: Grid, stride: Grid, padding: Grid
) -> Tensor:
    """A depth-wise convolution of the gradient, spread by the stride, with the flipped kernel."""
    kernel = tuple(weight.shape[2:])
    if tuple(stride) != (1, 1, 1):
        # Long enough that the convolution below gives `size` with `kernel - 1 - padding`.
        spread = [n + 2 * p - k + 1 for n, p, k in zip(size, padding, kernel, strict=True)]
        sparse = grad.new_zeros(grad.shape[0], *spread, grad.shape[1]).permute(0, 4, 1, 2, 3)
        st, sh, sw = stride
        sparse[:, :, ::st, ::sh, ::sw] = grad
        grad = sparse
    turned = weight.flip(2, 3, 4)
    around = tuple(k - 1 - p for k, p in zip(kernel, padding, strict=True))
    return F.conv3d(grad, turned, None, 1, around, groups=grad.shape[1])


def _weight_gradient(
    grad: Tensor, volume: Tensor, weight: Tensor, stride: Grid, padding: Grid
) -> Tensor:
    grad, volume = grad.float(), volume.float()  # bf16 is slower here, and coarser
    in_one = tuple(stride) == (1, 1, 1) and math.prod(weight.shape[3:]) >= LARGE_KERNEL
    total = (
        _gradient_as_kernel(grad, volume, padding)
        if in_one
        else _gradient_by_tap(grad, volume, weight.shape, stride, padding)
    )
    return total.to(weight.dtype)


def _gradient_as_kernel(grad: Tensor, volume: Tensor, padding: Grid) -> Tensor:
    """Each channel of each clip convolved with its gradient: large kernels, without strides."""
    batch, channels, *grid = volume.shape
    planes = volume.permute(2, 3, 4, 0, 1).reshape(1, *grid, batch * channels)
    kernels = grad.flatten(0, 1).unsqueeze(1)  # (B*C, 1, T', H', W')
    per_clip = F.conv3d(
        planes.permute(0, 4, 1, 2, 3), kernels, None, 1, padding, groups=batch * channels
    )  # (1, B*C, kt, kh, kw)
    return per_clip.view(batch, channels, 1, *per_clip.shape[2:]).sum(dim=0)


def _gradient_by_tap(
    grad: Tensor, volume: Tensor, size: Sequence[int], stride: Grid, padding: Grid
) -> Tensor:
    """One 2D problem, over all frames that meet, for each temporal tap of a weight of `size`."""
    channels, _, *(taps, kh, kw) = size
    total = grad.new_zeros(size)
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
        total[:, :, tap] = conv2d_weight(
            _frames(read),
            (channels, 1, kh, kw),
            _frames(grad[:, :, first:last]),
            stride[1:],
            padding[1:],
            groups=channels,
        )
    return total


def _frames(volume: Tensor) -> Tensor:
    """(B, C, T, H, W) -> (B*T, C, H, W) in channels-last memory."""
    return volume.permute(0, 2, 3, 4, 1).flatten(0, 1).permute(0, 3, 1, 2)
