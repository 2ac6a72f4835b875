"""Attention within windows by Triton kernels, as one operator of torch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.library import custom_op
from torch.utils.flop_counter import register_flop_formula

from videonet.ops.grid import as_grid, volume
from videonet.ops.kernels.autograd import differentiable_gradients
from videonet.ops.kernels.cuda import window_kernels as kernels
from videonet.ops.kernels.cuda.depthwise import runs_triton
from videonet.ops.windows import MASKED, Windows, cut_windows, edge_masks, join_windows


@custom_op("videonet::window_attention", mutates_args=())
def window_attention(
    qkv: Tensor, bias: Tensor, size: Sequence[int], shift: Sequence[int], frames: int,
    scale: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Attention of each window's cells to one another, with a bias that all windows share.

    Args:
        qkv: (B, T, H, W, 3, heads, D), whose grid whole windows cover.
        bias: (heads, N, N), added to the logits of the N cells of each window.
        size, shift: of the windows, (t, h, w), see :class:`videonet.ops.windows.Windows`.
        frames: the frames behind the first so many are padding and no keys. What they attend to
            as queries is unspecified.
        scale: of the logits.

    Returns:
        (B, T, H, W, heads, D); and the logarithms (base 2) of the sums of the weights before they
        are normalised, (windows, heads, N) fp32, for the backward pass.
    """
    out, logsums = _empty_results(qkv, size)
    if not runs_triton(qkv):
        found, of_sums = _written_out(qkv, bias, size, shift, frames, scale)
        return out.copy_(found), logsums.copy_(of_sums)
    options = as_grid(size), as_grid(shift), frames, scale
    kernels.forward(qkv.contiguous(), bias.contiguous(), out, logsums, *options)
    return out, logsums


def plain_window_attention(
    qkv: Tensor, bias: Tensor, size: Sequence[int], shift: Sequence[int], frames: int,
    scale: float,
) -> Tensor:  # fmt: skip
    """The same of torch's operators, without the second result."""
    return _written_out(qkv, bias, size, shift, frames, scale)[0]


@window_attention.register_fake
def _(qkv, bias, size, shift, frames, scale):
    return _empty_results(qkv, size)


@custom_op("videonet::window_attention_backward", mutates_args=())
def window_attention_backward(
    grad: Tensor, out: Tensor, logsums: Tensor, qkv: Tensor, bias: Tensor, size: Sequence[int],
    shift: Sequence[int], frames: int, scale: float, of_bias: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Gradients of qkv and bias; an empty tensor for the latter if it is not wanted."""
    qkv, bias, grad = qkv.contiguous(), bias.contiguous(), grad.contiguous()
    options = as_grid(size), as_grid(shift), frames, scale, of_bias
    return kernels.backward(qkv, bias, out, grad, logsums, *options)


@window_attention_backward.register_fake
def _(grad, out, logsums, qkv, bias, size, shift, frames, scale, of_bias):
    return qkv.new_empty(qkv.shape), bias.new_empty(bias.shape if of_bias else 0)


def _keep(ctx, inputs, output) -> None:
    qkv, bias, *ctx.options = inputs
    ctx.save_for_backward(qkv, bias, *output)
    ctx.set_materialize_grads(False)


def _gradients(ctx, grad: Tensor | None, of_logsums: Tensor | None):
    qkv, bias, out, logsums = ctx.saved_tensors
    need_qkv, need_bias, *_ = ctx.needs_input_grad
    found: tuple[Tensor | None, ...] = (None, None)
    # Gradients that are to be differentiated themselves are made of torch's operators.
    if grad is not None and (torch.is_grad_enabled() or not runs_triton(qkv)):
        with torch.enable_grad():
            found = differentiable_gradients(
                lambda qkv, bias: plain_window_attention(qkv, bias, *ctx.options),
                (qkv, bias),
                (need_qkv, need_bias),
                grad,
            )
    elif grad is not None:
        found = window_attention_backward(grad, out, logsums, qkv, bias, *ctx.options, need_bias)
    of_qkv, of_bias = found
    return of_qkv if need_qkv else None, of_bias if need_bias else None, *([None] * 4)


window_attention.register_autograd(_gradients, setup_context=_keep)


@register_flop_formula([torch.ops.videonet.window_attention])
def _(qkv, bias, *_, out_shape=None, **__) -> int:
    return 4 * math.prod(qkv[:4]) * qkv[5] * qkv[6] * bias[1]


@register_flop_formula([torch.ops.videonet.window_attention_backward])
def _(grad, out, logsums, qkv, bias, *_, out_shape=None, **__) -> int:
    return 10 * math.prod(qkv[:4]) * qkv[5] * qkv[6] * bias[1]


def _written_out(
    qkv: Tensor, bias: Tensor, size: Sequence[int], shift: Sequence[int], frames: int, scale: float
) -> tuple[Tensor, Tensor]:
    """The attention and the logarithms of the sums, with all logits."""
    windows = Windows(as_grid(qkv.shape[1:4]), as_grid(size), as_grid(shift))
    cells = cut_windows(qkv.flatten(4), windows)  # (B, nt, nh, nw, N, 3*heads*D)
    q, k, v = cells.unflatten(-1, qkv.shape[4:]).permute(5, 0, 1, 2, 3, 6, 4, 7)
    mask = _mask(windows, frames, qkv).unsqueeze(3)  # (nt, nh, nw, 1, N, N)
    logits = (q @ k.transpose(-2, -1) * scale + bias + mask).float()
    y = logits.softmax(dim=-1).to(v.dtype) @ v  # (B, nt, nh, nw, heads, N, D)
    y = join_windows(y.transpose(4, 5).flatten(5), windows).unflatten(-1, qkv.shape[5:])
    return y, logits.logsumexp(dim=-1).flatten(0, 3) / math.log(2)


def _mask(windows: Windows, frames: int, like: Tensor) -> Tensor:
    """What the masks add to the logits: (nt, nh, nw, N, N)."""
    cells = volume(windows.size)
    mask = like.new_zeros(*windows.counts, cells, cells)
    padded = Windows(as_grid((frames, *windows.grid[1:])), windows.size, windows.shift)
    for axis in range(3):
        leave_padding = axis == 0 and frames < windows.grid[0]
        for back, apart in enumerate(
            reversed(edge_masks(padded if leave_padding else windows, axis, like.device,
                                leave_padding)), 1
        ):  # fmt: skip
            mask.select(axis, windows.counts[axis] - back).masked_fill_(apart, MASKED)
    return mask


def _empty_results(qkv: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
    clips, *grid, _, heads, width = qkv.shape
    windows = clips * math.prod(n // s for n, s in zip(grid, size, strict=True))
    logsums = qkv.new_empty(windows, heads, math.prod(size), dtype=torch.float32)
    return qkv.new_empty(clips, *grid, heads, width), logsums
