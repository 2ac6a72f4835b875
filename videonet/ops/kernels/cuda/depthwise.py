"""Depth-wise convolution by Triton kernels, as one operator of torch.

Compilers, FLOP counters and autograd see one operator. On other devices than CUDA it computes with
torch's own, so that programs that were compiled on a GPU run there too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.library import custom_op
from torch.utils.flop_counter import register_flop_formula

from videonet.ops.grid import as_grid
from videonet.ops.kernels.autograd import differentiable_gradients
from videonet.ops.kernels.cuda import depthwise_kernels as kernels


def runs_triton(tensor: Tensor) -> bool:
    """Whether Triton runs where the tensor lies: on a GPU, or anywhere in its interpreter."""
    return tensor.is_cuda or kernels.INTERPRETED


@custom_op("videonet::depthwise_conv", mutates_args=())
def depthwise_conv(
    volume: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int],
    padding: Sequence[int],
) -> Tensor:  # fmt: skip
    """``F.conv3d`` with one kernel per channel, in channels-last memory.

    Args:
        volume: (B, C, T, H, W), read as it lies where the channels lie side by side.
        weight: (D, 1, kt, kh, kw), repeated where D is a divisor of C.
        bias: (C,), or None.

    Returns:
        (B, C, T', H', W').
    """
    out = _empty_output(volume, weight, stride, padding)
    if not runs_triton(volume):
        return out.copy_(plain_depthwise_conv(volume, weight, bias, stride, padding))
    width = weight.shape[0]
    x, y = _by_heads(_side_by_side(volume), width), _by_heads(out, width)
    kernels.forward(x, weight, bias, y, as_grid(stride), as_grid(padding))
    return out


def plain_depthwise_conv(
    volume: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int],
    padding: Sequence[int],
) -> Tensor:  # fmt: skip
    """The same of torch's operators."""
    weight = weight.repeat(volume.shape[1] // weight.shape[0], 1, 1, 1, 1)
    return F.conv3d(volume, weight, bias, stride, padding, groups=volume.shape[1])


@depthwise_conv.register_fake
def _(volume, weight, bias, stride, padding):
    return _empty_output(volume, weight, stride, padding)


@custom_op("videonet::depthwise_conv_backward", mutates_args=())
def depthwise_conv_backward(
    grad: Tensor, volume: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int],
    of_volume: bool, of_weight: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Gradients of volume and weight; an empty tensor for one that is not wanted."""
    width = weight.shape[0]
    grad_volume, grad_weight = volume.new_empty(0), weight.new_empty(0)
    grad = _by_heads(_side_by_side(grad), width)
    if of_volume:
        grad_volume = _empty_channels_last(volume, volume.shape[2:])
        out = _by_heads(grad_volume, width)
        kernels.input_gradient(grad, weight, out, as_grid(stride), as_grid(padding))
    if of_weight:
        kernel = as_grid(weight.shape[2:])
        x = _by_heads(_side_by_side(volume), width)
        grad_weight = kernels.weight_gradient(grad, x, kernel, as_grid(stride), as_grid(padding))
        grad_weight = grad_weight.to(weight.dtype)
    return grad_volume, grad_weight


@depthwise_conv_backward.register_fake
def _(grad, volume, weight, stride, padding, of_volume, of_weight):
    return (
        _empty_channels_last(volume, volume.shape[2:]) if of_volume else volume.new_empty(0),
        torch.empty_like(weight, memory_format=torch.contiguous_format)
        if of_weight
        else weight.new_empty(0),
    )


def _keep_for_depthwise(ctx, inputs, output) -> None:
    volume, weight, bias, ctx.stride, ctx.padding = inputs
    ctx.bias_type = None if bias is None else bias.dtype
    ctx.save_for_backward(volume, weight)


def _depthwise_gradients(ctx, grad: Tensor):
    volume, weight = ctx.saved_tensors
    need_volume, need_weight, need_bias, *_ = ctx.needs_input_grad
    # Gradients that are to be differentiated themselves are made of torch's operators.
    if torch.is_grad_enabled() or not runs_triton(volume):
        with torch.enable_grad():
            of_volume, of_weight = differentiable_gradients(
                lambda x, w: plain_depthwise_conv(x, w, None, ctx.stride, ctx.padding),
                (volume, weight),
                (need_volume, need_weight),
                grad,
            )
    else:
        of_volume, of_weight = depthwise_conv_backward(
            grad, volume, weight, ctx.stride, ctx.padding, need_volume, need_weight
        )
    of_bias = grad.sum(dim=(0, 2, 3, 4)).to(ctx.bias_type) if need_bias else None
    return (
        of_volume if need_volume else None,
        of_weight if need_weight else None,
        of_bias,
        None,
        None,
    )


depthwise_conv.register_autograd(_depthwise_gradients, setup_context=_keep_for_depthwise)


@register_flop_formula([torch.ops.videonet.depthwise_conv])
def _(volume, weight, *_, out_shape=None, **__) -> int:
    return 2 * math.prod(out_shape) * math.prod(weight[2:])


@register_flop_formula([torch.ops.videonet.depthwise_conv_backward])
def _(grad, volume, weight, stride, padding, of_volume, of_weight, out_shape=None, **__) -> int:
    return (int(of_volume) + int(of_weight)) * 2 * math.prod(grad) * math.prod(weight[2:])


def _by_heads(volume: Tensor, width: int) -> Tensor:
    """(B, heads * width, T, H, W) -> (B, heads, T, H, W, width), a view."""
    return volume.unflatten(1, (-1, width)).permute(0, 1, 3, 4, 5, 2)


def _side_by_side(tensor: Tensor) -> Tensor:
    """(B, C, T, H, W) with the channels side by side in memory."""
    return tensor if tensor.stride(1) == 1 else _channels_last(tensor)


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.clone(memory_format=torch.channels_last_3d)


def _empty_channels_last(like: Tensor, size: Sequence[int]) -> Tensor:
    shape = (like.shape[0], *size, like.shape[1])
    return like.new_empty(shape).permute(0, 4, 1, 2, 3)


def _empty_output(
    volume: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int]
) -> Tensor:
    sizes = zip(volume.shape[2:], weight.shape[2:], stride, padding, strict=True)
    return _empty_channels_last(volume, [(n + 2 * p - k) // s + 1 for n, k, s, p in sizes])
