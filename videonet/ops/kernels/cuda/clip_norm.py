"""The norm of whole clips by Triton kernels, as one operator of torch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.library import custom_op

from videonet.ops.kernels.autograd import differentiable_gradients
from videonet.ops.kernels.cuda import clip_norm_kernels as kernels
from videonet.ops.kernels.cuda.depthwise import runs_triton


@custom_op("videonet::clip_norm", mutates_args=())
def clip_norm(x: Tensor, gain: Tensor, offset: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Layer norm over all axes but the first, with a gain and an offset for each channel.

    Args:
        x: (B, ..., C).
        gain, offset: (C,), of any type.

    Returns:
        (B, ..., C); means and reciprocals of the deviations, (2, B) fp32, for the backward pass,
        zeros where Triton does not run.
    """
    if not runs_triton(x):
        y = plain_clip_norm(x, gain, offset, eps)
        return y.contiguous(), x.new_zeros(2, x.shape[0], dtype=torch.float32)
    return kernels.forward(x.contiguous(), gain, offset, eps)


def plain_clip_norm(x: Tensor, gain: Tensor, offset: Tensor, eps: float) -> Tensor:
    """The same of torch's operators, without the second result."""
    normed = F.layer_norm(x.float(), x.shape[1:], eps=eps)
    return (normed * gain + offset).to(x.dtype)


@clip_norm.register_fake
def _(x, gain, offset, eps):
    return x.new_empty(x.shape), x.new_empty(2, x.shape[0], dtype=torch.float32)


@custom_op("videonet::clip_norm_backward", mutates_args=())
def clip_norm_backward(
    grad: Tensor, x: Tensor, gain: Tensor, moments: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, gain and offset."""
    of_x, *of_channels = kernels.backward(grad.contiguous(), x.contiguous(), gain, moments)
    of_gain, of_offset = (g.to(gain.dtype, copy=True) for g in of_channels)
    return of_x, of_gain, of_offset


@clip_norm_backward.register_fake
def _(grad, x, gain, moments):
    return x.new_empty(x.shape), gain.new_empty(gain.shape), gain.new_empty(gain.shape)


def _keep(ctx, inputs, output) -> None:
    *tensors, ctx.eps = inputs
    ctx.save_for_backward(*tensors, output[1])
    ctx.set_materialize_grads(False)


def _gradients(ctx, grad: Tensor | None, of_moments: Tensor | None):
    *inputs, moments = ctx.saved_tensors
    found: tuple[Tensor | None, ...] = (None, None, None)
    # Gradients that are to be differentiated themselves are made of torch's operators.
    if grad is not None and (torch.is_grad_enabled() or not runs_triton(grad)):
        with torch.enable_grad():
            found = differentiable_gradients(
                lambda x, gain, offset: plain_clip_norm(x, gain, offset, ctx.eps),
                inputs,
                ctx.needs_input_grad[:3],
                grad,
            )
    elif grad is not None:
        found = clip_norm_backward(grad, *inputs[:2], moments)
    pairs = zip(found, ctx.needs_input_grad, strict=False)
    return *(g if need else None for g, need in pairs), None


clip_norm.register_autograd(_gradients, setup_context=_keep)
