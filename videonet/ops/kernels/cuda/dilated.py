"""Attention to dilated windows by Triton kernels, as one operator of torch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.library import custom_op

from videonet.ops.grid import Grid, as_grid
from videonet.ops.kernels.autograd import differentiable_gradients
from videonet.ops.kernels.cuda import dilated_kernels as kernels
from videonet.ops.kernels.cuda.depthwise import runs_triton
from videonet.ops.sliding_window import grouped_windows


@custom_op("videonet::dilated_attention", mutates_args=())
def dilated_attention(
    qkv: Tensor, kernel: Sequence[int], dilations: Sequence[int], scale: float
) -> tuple[Tensor, Tensor]:
    """Attention of every cell to a dilated window around it.

    Args:
        qkv: (B, T, H, W, 3, heads, D).
        kernel: taps of the windows, (t, h, w).
        dilations: three numbers, (t, h, w), for each of the groups that the heads are cut into.
        scale: of the logits.

    Returns:
        (B, T, H, W, heads, D); and the logarithms (base 2) of the sums of the weights before they
        are normalised, (B, T, H, W, heads) fp32, for the backward pass; zeros where Triton does
        not run.
    """
    out, logsums = _empty_results(qkv)
    if not runs_triton(qkv):
        return out.copy_(plain_dilated_attention(qkv, kernel, dilations, scale)), logsums.zero_()
    kernels.forward(qkv.contiguous(), out, logsums, as_grid(kernel), _groups(dilations), scale)
    return out, logsums


def plain_dilated_attention(
    qkv: Tensor, kernel: Sequence[int], dilations: Sequence[int], scale: float
) -> Tensor:
    """The same of torch's operators, without the second result."""
    return grouped_windows(qkv, as_grid(kernel), _groups(dilations), scale)


@dilated_attention.register_fake
def _(qkv, kernel, dilations, scale):
    return _empty_results(qkv)


@custom_op("videonet::dilated_attention_backward", mutates_args=())
def dilated_attention_backward(
    grad: Tensor, out: Tensor, logsums: Tensor, qkv: Tensor, kernel: Sequence[int],
    dilations: Sequence[int], scale: float,
) -> Tensor:  # fmt: skip
    """The gradient of qkv."""
    qkv, grad, sizes = qkv.contiguous(), grad.contiguous(), (as_grid(kernel), _groups(dilations))
    return kernels.backward(qkv, out, grad, logsums, *sizes, scale)


@dilated_attention_backward.register_fake
def _(grad, out, logsums, qkv, kernel, dilations, scale):
    return qkv.new_empty(qkv.shape)


def _keep(ctx, inputs, output) -> None:
    qkv, *ctx.options = inputs
    ctx.save_for_backward(qkv, *output)
    ctx.set_materialize_grads(False)


def _gradients(ctx, grad: Tensor | None, of_logsums: Tensor | None):
    qkv, out, logsums = ctx.saved_tensors
    found = None
    # Gradients that are to be differentiated themselves are made of torch's operators.
    if grad is not None and (torch.is_grad_enabled() or not runs_triton(qkv)):
        with torch.enable_grad():
            (found,) = differentiable_gradients(
                lambda qkv: plain_dilated_attention(qkv, *ctx.options), (qkv,), (True,), grad
            )
    elif grad is not None:
        found = dilated_attention_backward(grad, out, logsums, qkv, *ctx.options)
    return found, None, None, None


dilated_attention.register_autograd(_gradients, setup_context=_keep)


def _groups(dilations: Sequence[int]) -> list[Grid]:
    return [as_grid(dilations[i : i + 3]) for i in range(0, len(dilations), 3)]


def _empty_results(qkv: Tensor) -> tuple[Tensor, Tensor]:
    *cells, _, heads, width = qkv.shape
    return qkv.new_empty(*cells, heads, width), qkv.new_empty(*cells, heads, dtype=torch.float32)
