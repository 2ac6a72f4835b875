"""Pooling and norm of queries, keys and values by one Triton kernel, as one operator of torch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.library import custom_op
from torch.utils.flop_counter import register_flop_formula

from videonet.ops.grid import as_grid, pooled_grid, same_padding, volume
from videonet.ops.kernels.autograd import differentiable_gradients
from videonet.ops.kernels.cuda import depthwise_kernels as kernels
from videonet.ops.kernels.cuda.depthwise import plain_depthwise_conv, runs_triton
from videonet.ops.kernels.cuda.norm_kernels import norm_gradient

Three = tuple[Tensor, Tensor, Tensor]
Nine = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


@custom_op("videonet::pool_norm", mutates_args=())
def pool_norm(
    x: Tensor, weights: Tensor, gains: Tensor, offsets: Tensor, grid: Sequence[int],
    q_stride: Sequence[int], k_stride: Sequence[int], eps: float, keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Pool queries, keys and values by depth-wise convolutions and normalise each head's vectors.

    Args:
        x: what a qkv layer gives, (B, P + T*H*W, 3, heads, D); P prefix tokens are not pooled.
        weights: (3, D, 1, kt, kh, kw), the heads share one kernel; the padding is ``k // 2``.
        gains, offsets: (3, D), of the layer norms.
        grid: (T, H, W).
        q_stride: of the queries' pooling; k_stride: of the keys' and values'.
        eps: of the norms.
        keep: whether a backward pass will follow.

    Returns:
        Queries, keys and values (B, heads, P + T'*H'*W', D); then, for the backward pass, the same
        three before the norm, and of each the means and the reciprocals of the deviations,
        (2, B, heads, P + T'*H'*W') fp32. Without `keep` these six are empty.
    """
    if not runs_triton(x):
        plain = plain_pool_norm(x, weights, gains, offsets, grid, q_stride, k_stride, eps)
        q, k, v = (t.clone(memory_format=torch.contiguous_format) for t in plain)
        return q, k, v, *_empty_pool_norm(x, weights, grid, q_stride, k_stride, keep)[3:]
    found = _empty_pool_norm(x, weights, grid, q_stride, k_stride, keep)
    kernel = weights.shape[3:]
    kernels.pool_norm(
        x if x.stride(-1) == 1 else x.contiguous(),
        as_grid(grid),
        weights.squeeze(2).permute(0, 2, 3, 4, 1).contiguous(),
        gains.contiguous(),
        offsets.contiguous(),
        list(found[:3]),
        list(found[3:6]) if keep else [],
        list(found[6:]) if keep else [],
        pooled_grid(grid, kernel, q_stride),
        pooled_grid(grid, kernel, k_stride),
        as_grid(q_stride),
        as_grid(k_stride),
        eps,
    )
    return found


@pool_norm.register_fake
def _(x, weights, gains, offsets, grid, q_stride, k_stride, eps, keep):
    return _empty_pool_norm(x, weights, grid, q_stride, k_stride, keep)


@custom_op("videonet::pool_norm_backward", mutates_args=())
def pool_norm_backward(
    grads: Sequence[Tensor], x: Tensor, weights: Tensor, gains: Tensor, pooled: Sequence[Tensor],
    moments: Sequence[Tensor], grid: Sequence[int], q_stride: Sequence[int],
    k_stride: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of x, weights, gains and offsets, from those of queries, keys and values."""
    prefix = x.shape[1] - volume(grid)
    of_x = torch.empty_like(x, memory_format=torch.contiguous_format)
    kernel, strides = as_grid(weights.shape[3:]), (q_stride, k_stride, k_stride)
    padding = same_padding(kernel)
    of_weights, of_gains, of_offsets = [], [], []
    for which, (grad, before, kept) in enumerate(zip(grads, pooled, moments, strict=True)):
        stride = as_grid(strides[which])
        grad, of_gain, of_offset = norm_gradient(grad.contiguous(), before, gains[which], kept)
        of_gains.append(of_gain)
        of_offsets.append(of_offset)
        of_x[:, :prefix, which] = grad[:, :, :prefix].transpose(1, 2)
        cells = grad[:, :, prefix:].unflatten(2, pooled_grid(grid, kernel, stride))
        source, target = _cells_of(x, which, grid), _cells_of(of_x, which, grid)
        kernels.input_gradient(cells, weights[which], target, stride, padding)
        of_weights.append(kernels.weight_gradient(cells, source, kernel, stride, padding))
    return (
        of_x,
        torch.stack(of_weights).to(weights.dtype),
        torch.stack(of_gains).to(gains.dtype),
        torch.stack(of_offsets).to(gains.dtype),
    )


@pool_norm_backward.register_fake
def _(grads, x, weights, gains, pooled, moments, grid, q_stride, k_stride):
    return tuple(
        torch.empty_like(t, memory_format=torch.contiguous_format)
        for t in (x, weights, gains, gains)
    )


def plain_pool_norm(
    x: Tensor, weights: Tensor, gains: Tensor, offsets: Tensor, grid: Sequence[int],
    q_stride: Sequence[int], k_stride: Sequence[int], eps: float,
) -> Three:  # fmt: skip
    """Queries, keys and values as :func:`pool_norm` gives them, of torch's operators."""
    found = []
    for which, stride in enumerate((q_stride, k_stride, k_stride)):
        cells = _cells_of(x, which, grid)  # (B, heads, T, H, W, D)
        channels = cells.permute(0, 1, 5, 2, 3, 4).flatten(1, 2)  # (B, heads*D, T, H, W)
        padding = same_padding(as_grid(weights.shape[3:]))
        pooled = plain_depthwise_conv(channels, weights[which], None, stride, padding)
        pooled = pooled.unflatten(1, x.shape[3:]).flatten(3).transpose(2, 3)
        first = x[:, : x.shape[1] - volume(grid), which].transpose(1, 2)
        pooled = torch.cat((first, pooled), dim=2)  # (B, heads, P + T'*H'*W', D)
        gain, offset = gains[which].float(), offsets[which].float()
        normed = F.layer_norm(pooled.float(), gain.shape, gain, offset, eps)
        found.append(normed.to(x.dtype))
    return found[0], found[1], found[2]


def _keep_for_pool_norm(ctx, inputs, output) -> None:
    x, weights, gains, offsets, ctx.grid, ctx.q_stride, ctx.k_stride, ctx.eps, ctx.kept = inputs
    ctx.save_for_backward(x, weights, gains, offsets, *output[3:])
    ctx.set_materialize_grads(False)


def _pool_norm_gradients(ctx, *grads):
    *inputs, pooled_q, pooled_k, pooled_v, moments_q, moments_k, moments_v = ctx.saved_tensors
    pooled, moments = [pooled_q, pooled_k, pooled_v], [moments_q, moments_k, moments_v]
    steps = (ctx.grid, ctx.q_stride, ctx.k_stride)
    given = [g for g in grads[:3] if g is not None]
    if torch.is_grad_enabled() or not ctx.kept or len(given) < 3 or not runs_triton(inputs[0]):
        found = _plain_pool_norm_gradients(inputs, ctx, grads[:3])
    else:
        found = pool_norm_backward(given, *inputs[:3], pooled, moments, *steps)
    of_inputs = (g if need else None for g, need in zip(found, ctx.needs_input_grad, strict=False))
    return *of_inputs, None, None, None, None, None


def _plain_pool_norm_gradients(inputs, ctx, grads):
    def function(x: Tensor, weights: Tensor, gains: Tensor, offsets: Tensor) -> Tensor:
        steps = ctx.grid, ctx.q_stride, ctx.k_stride
        results = plain_pool_norm(x, weights, gains, offsets, *steps, ctx.eps)
        pairs = zip(results, grads, strict=True)
        return sum((result * grad).sum() for result, grad in pairs if grad is not None)

    with torch.enable_grad():
        return differentiable_gradients(
            function, inputs, ctx.needs_input_grad[:4], inputs[0].new_ones(())
        )


pool_norm.register_autograd(_pool_norm_gradients, setup_context=_keep_for_pool_norm)


@register_flop_formula([torch.ops.videonet.pool_norm])
def _(x, weights, *_, out_shape=None, **__) -> int:
    return 2 * sum(map(math.prod, out_shape[:3])) * math.prod(weights[3:])


@register_flop_formula([torch.ops.videonet.pool_norm_backward])
def _(grads, x, weights, *_, out_shape=None, **__) -> int:
    return 4 * sum(map(math.prod, grads)) * math.prod(weights[3:])


def _cells_of(x: Tensor, which: int, grid: Sequence[int]) -> Tensor:
    """(B, P + T*H*W, 3, heads, D) -> (B, heads, T, H, W, D) of one of the three, a view."""
    cells = x[:, x.shape[1] - volume(grid) :, which]
    return cells.unflatten(1, tuple(grid)).permute(0, 4, 1, 2, 3, 5)


def _empty_pool_norm(x, weights, grid, q_stride, k_stride, keep: bool) -> Nine:
    clips, tokens, _, heads, width = x.shape
    sizes = [
        tokens - volume(grid) + volume(pooled_grid(grid, weights.shape[3:], stride))
        for stride in (q_stride, k_stride, k_stride)
    ]
    kept = [n if keep else 0 for n in sizes]
    q, k, v = (x.new_empty(clips, heads, n, width) for n in sizes)
    before_q, before_k, before_v = (x.new_empty(clips, heads, n, width) for n in kept)
    moments_q, moments_k, moments_v = (
        x.new_empty(2, clips, heads, n, dtype=torch.float32) for n in kept
    )
    return q, k, v, before_q, before_k, before_v, moments_q, moments_k, moments_v
