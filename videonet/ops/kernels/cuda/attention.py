"""Attention with queries in two parts by Triton kernels, as one operator of torch."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.library import custom_op
from torch.utils.flop_counter import register_flop_formula

from videonet.ops.kernels.autograd import differentiable_gradients
from videonet.ops.kernels.cuda import attention_kernels as kernels
from videonet.ops.kernels.cuda.depthwise import runs_triton


@custom_op("videonet::two_part_attention", mutates_args=())
def two_part_attention(q: Tensor, rows: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """``softmax(cat(q, rows) @ k.T) @ v`` without the joined queries or the logits.

    Args:
        q: (B, heads, M, D).
        rows: (B, heads, M, R).
        k: (B, heads, N, D + R).
        v: (B, heads, N, D).

    Returns:
        (B, heads, M, D), in memory (B, M, heads, D); and the logarithms (base 2) of the sums of
        the weights before they are normalised, (B, heads, M) fp32, for the backward pass.
    """
    out, logsums = _empty_results(q)
    if not runs_triton(q):
        logits = torch.cat((q, rows), dim=-1) @ k.transpose(-2, -1)
        out.copy_(logits.softmax(dim=-1) @ v)
        logsums.copy_(logits.float().logsumexp(dim=-1) / math.log(2))
        return out, logsums
    q, rows, k, v = map(_rows_contiguous, (q, rows, k, v))
    kernels.forward(q, rows, k, v, out, logsums)
    return out, logsums


def plain_two_part_attention(q: Tensor, rows: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The same of torch's operators, without the second result."""
    logits = torch.cat((q, rows), dim=-1) @ k.transpose(-2, -1)
    return logits.float().softmax(dim=-1).to(v.dtype) @ v


@two_part_attention.register_fake
def _(q, rows, k, v):
    return _empty_results(q)


@custom_op("videonet::two_part_attention_backward", mutates_args=())
def two_part_attention_backward(
    grad: Tensor, out: Tensor, logsums: Tensor, q: Tensor, rows: Tensor, k: Tensor, v: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, rows, k and v."""
    q, rows, k, v, out, grad = map(_rows_contiguous, (q, rows, k, v, out, grad))
    return kernels.backward(q, rows, k, v, out, grad, logsums)


@two_part_attention_backward.register_fake
def _(grad, out, logsums, q, rows, k, v):
    return tuple(t.new_empty(t.shape) for t in (q, rows, k, v))


def _keep(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs, *output)
    ctx.set_materialize_grads(False)


def _gradients(ctx, grad: Tensor | None, of_logsums: Tensor | None):
    *inputs, out, logsums = ctx.saved_tensors
    if grad is None:
        return None, None, None, None
    # Gradients that are to be differentiated themselves are made of torch's operators.
    if torch.is_grad_enabled() or not runs_triton(inputs[0]):
        with torch.enable_grad():
            return differentiable_gradients(
                plain_two_part_attention, inputs, ctx.needs_input_grad, grad
            )
    found = two_part_attention_backward(grad, out, logsums, *inputs)
    return tuple(g if need else None for g, need in zip(found, ctx.needs_input_grad, strict=True))


two_part_attention.register_autograd(_gradients, setup_context=_keep)


@register_flop_formula([torch.ops.videonet.two_part_attention])
def _(q, rows, k, v, out_shape=None, **_) -> int:
    return 2 * math.prod(q[:3]) * k[2] * (k[3] + v[3])


@register_flop_formula([torch.ops.videonet.two_part_attention_backward])
def _(grad, out, logsums, q, rows, k, v, out_shape=None, **_) -> int:
    return 2 * math.prod(q[:3]) * k[2] * (3 * k[3] + 2 * v[3])


def _rows_contiguous(tensor: Tensor) -> Tensor:
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def _empty_results(q: Tensor) -> tuple[Tensor, Tensor]:
    clips, heads, queries, width = q.shape
    out = q.new_empty(clips, queries, heads, width).transpose(1, 2)
    return out, q.new_empty(clips, heads, queries, dtype=torch.float32)
