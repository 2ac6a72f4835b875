"""Softmax attention in Triton whose queries lie in two tensors, so that nobody joins them.

The logits are ``q @ k[:D] + rows @ k[D:]``: what MViTv2's relative position adds to a query
(:mod:`videonet.ops.attention`) stands in `rows`, and only the keys, of which pooling leaves few,
are joined with their coordinates. One pass over the keys, as in FlashAttention (arXiv 2205.14135;
the backward pass is its Algorithm 4). No atomics: gradients are the same on every run.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from videonet.ops.kernels.cuda import depthwise_kernels

BLOCK_Q, BLOCK_K = 64, 64
FORWARD_BLOCK_Q, KEY_BLOCK_Q = 128, 32  # without results of keys beside them, and with them
# Two stages of loads, so that 99 KiB of shared memory, as on smaller cards, are enough.
OPTIONS = {"num_warps": 8, "num_stages": 2}
LEAST_PROGRAMS = 512  # shares of the queries are made until the keys' gradients have so many
LOG2_E = tl.constexpr(1.4426950408889634)


INTERPRETED = tl.constexpr(depthwise_kernels.INTERPRETED)


@triton.jit
def _product(a, b):
    """A product of matrices with fp32 sums; the interpreter multiplies no bf16."""
    if INTERPRETED:
        return tl.dot(a.to(tl.float32), b.to(tl.float32))
    return tl.dot(a, b)


@triton.jit
def _queries(q, rows, at, channels, there, D, R, q_m, r_m):
    """A block of queries and what belongs to them, side by side: (BQ, BD)."""
    first = tl.load(
        q + at[:, None] * q_m + channels[None, :], there[:, None] & (channels < D)[None, :], 0.0
    )
    behind = (channels >= D) & (channels < D + R)
    second = tl.load(
        rows + at[:, None] * r_m + (channels - D)[None, :], there[:, None] & behind[None, :], 0.0
    )
    return tl.where((channels < D)[None, :], first, second)


@triton.jit
def _begin(
    q, rows, k, v, heads, M, D, R, q_b, q_h, q_m, r_b, r_h, r_m, k_b, k_h, v_b, v_h,
    BQ: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """The clip, head and queries of a program, and where the keys and values of the head begin."""
    clip, head = (tl.program_id(1) // heads).to(tl.int64), tl.program_id(1) % heads
    at = tl.program_id(0).to(tl.int64) * BQ + tl.arange(0, BQ)
    there = at < M
    q += clip * q_b + head * q_h
    rows += clip * r_b + head * r_h
    queries = _queries(q, rows, at, tl.arange(0, BD), there, D, R, q_m, r_m)
    return clip, head, at, there, queries, k + clip * k_b + head * k_h, v + clip * v_b + head * v_h


@triton.jit
def _forward(
    q, rows, k, v, out, logsums, heads, M, N, D, R,
    q_b, q_h, q_m, r_b, r_h, r_m, k_b, k_h, k_n, v_b, v_h, v_n, o_b, o_h, o_m,
    BQ: tl.constexpr, BK: tl.constexpr, BD: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    clip, head, at, there, queries, k, v = _begin(
        q, rows, k, v, heads, M, D, R, q_b, q_h, q_m, r_b, r_h, r_m, k_b, k_h, v_b, v_h, BQ, BD
    )
    channels, values = tl.arange(0, BD), tl.arange(0, BV)
    highest = tl.full((BQ,), float("-inf"), dtype=tl.float32)
    weight = tl.zeros((BQ,), dtype=tl.float32)
    total = tl.zeros((BQ, BV), dtype=tl.float32)
    for start in range(0, N, BK):
        n = start + tl.arange(0, BK)
        keys = tl.load(
            k + n[:, None] * k_n + channels[None, :],
            (n < N)[:, None] & (channels < D + R)[None, :],
            0.0,
        )
        logits = _product(queries, tl.trans(keys)) * LOG2_E
        logits = tl.where((n < N)[None, :], logits, float("-inf"))
        higher = tl.maximum(highest, tl.max(logits, axis=1))
        shares = tl.exp2(logits - higher[:, None])
        shrink = tl.exp2(highest - higher)
        weight = weight * shrink + tl.sum(shares, axis=1)
        content = tl.load(
            v + n[:, None] * v_n + values[None, :], (n < N)[:, None] & (values < D)[None, :], 0.0
        )
        total = total * shrink[:, None] + _product(shares.to(content.dtype), content)
        highest = higher
    out += clip * o_b + head * o_h
    tl.store(
        out + at[:, None] * o_m + values[None, :],
        total / weight[:, None],
        there[:, None] & (values < D)[None, :],
    )
    tl.store(logsums + tl.program_id(1).to(tl.int64) * M + at, highest + tl.log2(weight), there)


@triton.jit
def _weights(queries, keys, logsum, n, N):
    """The attention's weights (BQ, BK) again, from the logarithms of their sums."""
    logits = _product(queries, tl.trans(keys)) * LOG2_E
    return tl.where((n < N)[None, :], tl.exp2(logits - logsum[:, None]), 0.0)


@triton.jit
def _query_gradient(
    q, rows, k, v, out, grad, logsums, deltas, grad_q, grad_rows, heads, M, N, D, R,
    q_b, q_h, q_m, r_b, r_h, r_m, k_b, k_h, k_n, v_b, v_h, v_n, o_b, o_h, o_m, g_b, g_h, g_m,
    BQ: tl.constexpr, BK: tl.constexpr, BD: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    """Also writes ``sum(out * grad)`` of every query, which the keys' gradients need."""
    clip, head, at, there, queries, k, v = _begin(
        q, rows, k, v, heads, M, D, R, q_b, q_h, q_m, r_b, r_h, r_m, k_b, k_h, v_b, v_h, BQ, BD
    )
    channels, values = tl.arange(0, BD), tl.arange(0, BV)
    inside = there[:, None] & (values < D)[None, :]
    g = tl.load(grad + clip * g_b + head * g_h + at[:, None] * g_m + values[None, :], inside, 0.0)
    y = tl.load(out + clip * o_b + head * o_h + at[:, None] * o_m + values[None, :], inside, 0.0)
    delta = tl.sum(g.to(tl.float32) * y.to(tl.float32), axis=1)
    place = tl.program_id(1).to(tl.int64) * M + at
    tl.store(deltas + place, delta, there)
    logsum = tl.load(logsums + place, there, 0.0)
    total = tl.zeros((BQ, BD), dtype=tl.float32)
    for start in range(0, N, BK):
        n = start + tl.arange(0, BK)
        keys = tl.load(
            k + n[:, None] * k_n + channels[None, :],
            (n < N)[:, None] & (channels < D + R)[None, :],
            0.0,
        )
        content = tl.load(
            v + n[:, None] * v_n + values[None, :], (n < N)[:, None] & (values < D)[None, :], 0.0
        )
        weights = _weights(queries, keys, logsum, n, N)
        of_logits = weights * (_product(g, tl.trans(content)) - delta[:, None])
        total += _product(of_logits.to(keys.dtype), keys)
    first = tl.program_id(1).to(tl.int64) * M + at[:, None]
    tl.store(
        grad_q + first * D + channels[None, :], total, there[:, None] & (channels < D)[None, :]
    )
    behind = (channels >= D) & (channels < D + R)
    tl.store(
        grad_rows + first * R + (channels - D)[None, :], total, there[:, None] & behind[None, :]
    )


@triton.jit
def _key_gradient(
    q, rows, k, v, grad, logsums, deltas, grad_k, grad_v, heads, M, N, D, R, share,
    q_b, q_h, q_m, r_b, r_h, r_m, k_b, k_h, k_n, v_b, v_h, v_n, g_b, g_h, g_m,
    BQ: tl.constexpr, BK: tl.constexpr, BD: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    """What a share of the queries adds to the gradients of a block of keys and values."""
    clip, head = (tl.program_id(1) // heads).to(tl.int64), tl.program_id(1) % heads
    n = tl.program_id(0) * BK + tl.arange(0, BK)
    channels, values = tl.arange(0, BD), tl.arange(0, BV)
    keys = tl.load(
        k + clip * k_b + head * k_h + n[:, None] * k_n + channels[None, :],
        (n < N)[:, None] & (channels < D + R)[None, :],
        0.0,
    )
    content = tl.load(
        v + clip * v_b + head * v_h + n[:, None] * v_n + values[None, :],
        (n < N)[:, None] & (values < D)[None, :],
        0.0,
    )
    q += clip * q_b + head * q_h
    rows += clip * r_b + head * r_h
    grad += clip * g_b + head * g_h
    of_keys = tl.zeros((BK, BD), dtype=tl.float32)
    of_values = tl.zeros((BK, BV), dtype=tl.float32)
    begin = tl.program_id(2) * share
    for start in range(begin, tl.minimum(begin + share, M), BQ):
        at = start + tl.arange(0, BQ).to(tl.int64)
        there = at < M
        queries = _queries(q, rows, at, channels, there, D, R, q_m, r_m)
        inside = there[:, None] & (values < D)[None, :]
        g = tl.load(grad + at[:, None] * g_m + values[None, :], inside, 0.0)
        place = tl.program_id(1).to(tl.int64) * M + at
        logsum = tl.load(logsums + place, there, float("inf"))  # no weight for what is not there
        delta = tl.load(deltas + place, there, 0.0)
        weights = _weights(queries, keys, logsum, n, N)
        of_values += _product(tl.trans(weights.to(g.dtype)), g)
        of_logits = weights * (_product(g, tl.trans(content)) - delta[:, None])
        of_keys += _product(tl.trans(of_logits.to(queries.dtype)), queries)
    place = (tl.program_id(2).to(tl.int64) * tl.num_programs(1) + tl.program_id(1)) * N + n[:, None]
    tl.store(
        grad_k + place * (D + R) + channels[None, :],
        of_keys,
        (n < N)[:, None] & (channels < D + R)[None, :],
    )
    tl.store(
        grad_v + place * D + values[None, :], of_values, (n < N)[:, None] & (values < D)[None, :]
    )


def forward(q: Tensor, rows: Tensor, k: Tensor, v: Tensor, out: Tensor, logsums: Tensor) -> None:
    """Write the attention to `out`, and the logarithms (base 2) of its weights' sums.

    Args:
        q: (B, heads, M, D). rows: (B, heads, M, R). k: (B, heads, N, D + R).
        v: (B, heads, N, D). out: (B, heads, M, D). All of one type, the last axis contiguous.
        logsums: (B, heads, M) fp32, contiguous.
    """
    clips, heads, queries, width = q.shape
    if not q.numel():
        return
    _forward[(triton.cdiv(queries, FORWARD_BLOCK_Q), clips * heads)](
        q, rows, k, v, out, logsums, heads, queries, k.shape[2], width, rows.shape[3],
        *_strides(q, rows, k, v, out), FORWARD_BLOCK_Q, BLOCK_K, *_blocks(k, v), **OPTIONS,
    )  # fmt: skip


def backward(
    q: Tensor, rows: Tensor, k: Tensor, v: Tensor, out: Tensor, grad: Tensor, logsums: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, rows, k and v, each contiguous; shapes as in :func:`forward`."""
    clips, heads, queries, width = q.shape
    keys = k.shape[2]
    grad_q, grad_rows = q.new_empty(q.shape), rows.new_empty(rows.shape)
    deltas = torch.empty_like(logsums)
    blocks = (BLOCK_K, *_blocks(k, v))
    sizes = (heads, queries, keys, width, rows.shape[3])
    if q.numel():
        _query_gradient[(triton.cdiv(queries, BLOCK_Q), clips * heads)](
            q, rows, k, v, out, grad, logsums, deltas, grad_q, grad_rows, *sizes,
            *_strides(q, rows, k, v, out, grad), BLOCK_Q, *blocks, **OPTIONS,
        )  # fmt: skip
    programs = triton.cdiv(keys, BLOCK_K) * clips * heads
    shares = min(
        triton.cdiv(LEAST_PROGRAMS, max(programs, 1)), max(triton.cdiv(queries, 4 * BLOCK_Q), 1)
    )
    share = triton.cdiv(triton.cdiv(queries, shares), BLOCK_Q) * BLOCK_Q
    shares = triton.cdiv(queries, max(share, 1))
    grad_k = torch.empty(shares, *k.shape, dtype=torch.float32, device=k.device)
    grad_v = torch.empty(shares, *v.shape, dtype=torch.float32, device=k.device)
    if grad_k.numel():
        _key_gradient[(triton.cdiv(keys, BLOCK_K), clips * heads, shares)](
            q, rows, k, v, grad, logsums, deltas, grad_k, grad_v, *sizes, share,
            *_strides(q, rows, k, v, grad), KEY_BLOCK_Q, *blocks, **OPTIONS,
        )  # fmt: skip
    return grad_q, grad_rows, grad_k.sum(dim=0).to(k.dtype), grad_v.sum(dim=0).to(v.dtype)


def _strides(*tensors: Tensor) -> list[int]:
    return [stride for tensor in tensors for stride in tensor.stride()[:3]]


def _blocks(k: Tensor, v: Tensor) -> tuple[int, int]:
    """Widths that hold a key and a value; matrix products want at least 16."""
    return tuple(max(triton.next_power_of_2(t.shape[3]), 16) for t in (k, v))
