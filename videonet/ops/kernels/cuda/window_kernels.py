"""Attention within windows in Triton, on the grid as it lies in memory.

Windows, their cyclic shift and the masks that go with it are arithmetic on the numbers of cells
(:mod:`videonet.ops.windows` is the specification): nobody rolls, cuts or joins a tensor, and one
bias serves all windows. The gradient of the bias is a sum over windows, of which every program
takes a share and that a second sum completes: no atomics, and the same numbers on every run.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from videonet.ops.grid import Grid, volume
from videonet.ops.kernels.cuda.attention_kernels import LOG2_E, _product

BLOCK = 64  # queries, and keys, that a program holds at a time
HALF = 32  # of keys for their gradients, of queries for the bias's, which hold more beside them
OPTIONS = {"num_warps": 4, "num_stages": 2}
LEAST_PROGRAMS = 1024  # shares of the windows are made until the bias's gradient has so many
MASKED = tl.constexpr(-100.0)


@triton.jit
def _cells(window, n, T, H, W, shift_t, shift_h, shift_w,
           WT: tl.constexpr, WH: tl.constexpr, WW: tl.constexpr):  # fmt: skip
    """Cells `n` of a window: their numbers in the batch, their frames, and the part they are of.

    The cyclic shift brings parts of both ends of the grid into the last windows; only cells of
    one part attend to one another.
    """
    rest = window // (W // WW)
    clip = rest // (H // WH) // (T // WT)
    t = rest // (H // WH) % (T // WT) * WT + n // (WH * WW)
    h = rest % (H // WH) * WH + n // WW % WH
    w = window % (W // WW) * WW + n % WW
    part = (
        (t >= T - shift_t).to(tl.int32)
        + 2 * (h >= H - shift_h).to(tl.int32)
        + 4 * (w >= W - shift_w).to(tl.int32)
    )
    t = tl.where(t >= T - shift_t, t - T, t) + shift_t
    h = tl.where(h >= H - shift_h, h - H, h) + shift_h
    w = tl.where(w >= W - shift_w, w - W, w) + shift_w
    return ((clip.to(tl.int64) * T + t) * H + h) * W + w, t, part


@triton.jit
def _rows(x, cells, there, channels, row, D):
    """Vectors (N, BD) of one head, zeros behind the last ones."""
    place = cells[:, None] * row + channels[None, :]
    return tl.load(x + place, there[:, None] & (channels < D)[None, :], 0.0)


@triton.jit
def _logits(queries, keys, bias, at, n, part, key_part, key_t, frames, N, scale,
            MASKS: tl.constexpr):  # fmt: skip
    """Logits (BQ, BK) times log2(e), minus infinity behind the last key.

    A pair that two masks keep apart gets one of them: either way its weight is 0 beside those
    of the query's own part.
    """
    inside = (at < N)[:, None] & (n < N)[None, :]
    added = tl.load(bias + at[:, None] * N + n[None, :], inside, 0.0).to(tl.float32)
    logits = _product(queries, tl.trans(keys)) * scale + added
    if MASKS:
        apart = (part[:, None] != key_part[None, :]) | (key_t >= frames)[None, :]
        logits += tl.where(apart, MASKED, 0.0)
    return tl.where((n < N)[None, :], logits * LOG2_E, float("-inf"))


@triton.jit
def _forward(
    qkv, bias, out, logsums, scale, blocks, heads, T, H, W, frames, shift_t, shift_h, shift_w,
    D: tl.constexpr, WT: tl.constexpr, WH: tl.constexpr, WW: tl.constexpr, MASKS: tl.constexpr,
    BQ: tl.constexpr, BK: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    N: tl.constexpr = WT * WH * WW
    unit = tl.program_id(0) // blocks  # a head of a window
    window, head = unit // heads, unit % heads
    at = tl.program_id(0) % blocks * BQ + tl.arange(0, BQ)
    channels = tl.arange(0, BD)
    width = heads * D
    qkv += head * D
    bias += head.to(tl.int64) * N * N
    cells, _, part = _cells(window, at, T, H, W, shift_t, shift_h, shift_w, WT, WH, WW)
    queries = _rows(qkv, cells, at < N, channels, 3 * width, D)
    highest = tl.full((BQ,), float("-inf"), dtype=tl.float32)
    weight = tl.zeros((BQ,), dtype=tl.float32)
    total = tl.zeros((BQ, BD), dtype=tl.float32)
    for start in range(0, N, BK):
        n = start + tl.arange(0, BK)
        places, t, of_key = _cells(window, n, T, H, W, shift_t, shift_h, shift_w, WT, WH, WW)
        keys = _rows(qkv + width, places, n < N, channels, 3 * width, D)
        logits = _logits(queries, keys, bias, at, n, part, of_key, t, frames, N, scale, MASKS)
        higher = tl.maximum(highest, tl.max(logits, axis=1))
        shares = tl.exp2(logits - higher[:, None])
        shrink = tl.exp2(highest - higher)
        weight = weight * shrink + tl.sum(shares, axis=1)
        values = _rows(qkv + 2 * width, places, n < N, channels, 3 * width, D)
        total = total * shrink[:, None] + _product(shares.to(values.dtype), values)
        highest = higher
    inside = (at < N)[:, None] & (channels < D)[None, :]
    place = cells[:, None] * width + head * D + channels[None, :]
    tl.store(out + place, total / weight[:, None], inside)
    tl.store(logsums + unit.to(tl.int64) * N + at, highest + tl.log2(weight), at < N)


@triton.jit
def _query_gradient(
    qkv, bias, out, grad, logsums, deltas, grad_qkv, scale, blocks, heads, T, H, W, frames,
    shift_t, shift_h, shift_w,
    D: tl.constexpr, WT: tl.constexpr, WH: tl.constexpr, WW: tl.constexpr, MASKS: tl.constexpr,
    BQ: tl.constexpr, BK: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Also writes ``sum(out * grad)`` of every query, which the other gradients need."""
    N: tl.constexpr = WT * WH * WW
    unit = tl.program_id(0) // blocks
    window, head = unit // heads, unit % heads
    at = tl.program_id(0) % blocks * BQ + tl.arange(0, BQ)
    channels = tl.arange(0, BD)
    width = heads * D
    qkv += head * D
    bias += head.to(tl.int64) * N * N
    cells, _, part = _cells(window, at, T, H, W, shift_t, shift_h, shift_w, WT, WH, WW)
    queries = _rows(qkv, cells, at < N, channels, 3 * width, D)
    g = _rows(grad + head * D, cells, at < N, channels, width, D)
    y = _rows(out + head * D, cells, at < N, channels, width, D)
    delta = tl.sum(g.to(tl.float32) * y.to(tl.float32), axis=1)
    place = unit.to(tl.int64) * N + at
    tl.store(deltas + place, delta, at < N)
    logsum = tl.load(logsums + place, at < N, 0.0)
    total = tl.zeros((BQ, BD), dtype=tl.float32)
    for start in range(0, N, BK):
        n = start + tl.arange(0, BK)
        places, t, of_key = _cells(window, n, T, H, W, shift_t, shift_h, shift_w, WT, WH, WW)
        keys = _rows(qkv + width, places, n < N, channels, 3 * width, D)
        values = _rows(qkv + 2 * width, places, n < N, channels, 3 * width, D)
        logits = _logits(queries, keys, bias, at, n, part, of_key, t, frames, N, scale, MASKS)
        weights = tl.exp2(logits - logsum[:, None])
        of_logits = weights * (_product(g, tl.trans(values)) - delta[:, None])
        total += _product(of_logits.to(keys.dtype), keys)
    inside = (at < N)[:, None] & (channels < D)[None, :]
    target = cells[:, None] * 3 * width + head * D + channels[None, :]
    tl.store(grad_qkv + target, total * scale, inside)


@triton.jit
def _key_gradient(
    qkv, bias, grad, logsums, deltas, grad_qkv, scale, blocks, heads, T, H, W, frames,
    shift_t, shift_h, shift_w,
    D: tl.constexpr, WT: tl.constexpr, WH: tl.constexpr, WW: tl.constexpr, MASKS: tl.constexpr,
    BQ: tl.constexpr, BK: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Gradients of a block of keys and of their values."""
    N: tl.constexpr = WT * WH * WW
    unit = tl.program_id(0) // blocks
    window, head = unit // heads, unit % heads
    n = tl.program_id(0) % blocks * BK + tl.arange(0, BK)
    channels = tl.arange(0, BD)
    width = heads * D
    qkv += head * D
    bias += head.to(tl.int64) * N * N
    places, t, of_key = _cells(window, n, T, H, W, shift_t, shift_h, shift_w, WT, WH, WW)
    keys = _rows(qkv + width, places, n < N, channels, 3 * width, D)
    values = _rows(qkv + 2 * width, places, n < N, channels, 3 * width, D)
    of_keys = tl.zeros((BK, BD), dtype=tl.float32)
    of_values = tl.zeros((BK, BD), dtype=tl.float32)
    for start in range(0, N, BQ):
        at = start + tl.arange(0, BQ)
        cells, _, part = _cells(window, at, T, H, W, shift_t, shift_h, shift_w, WT, WH, WW)
        queries = _rows(qkv, cells, at < N, channels, 3 * width, D)
        g = _rows(grad + head * D, cells, at < N, channels, width, D)
        place = unit.to(tl.int64) * N + at
        logsum = tl.load(logsums + place, at < N, float("inf"))  # no weight behind the last query
        delta = tl.load(deltas + place, at < N, 0.0)
        logits = _logits(queries, keys, bias, at, n, part, of_key, t, frames, N, scale, MASKS)
        weights = tl.exp2(logits - logsum[:, None])
        of_values += _product(tl.trans(weights.to(g.dtype)), g)
        of_logits = weights * (_product(g, tl.trans(values)) - delta[:, None])
        of_keys += _product(tl.trans(of_logits.to(queries.dtype)), queries)
    inside = (n < N)[:, None] & (channels < D)[None, :]
    target = places[:, None] * 3 * width + width + head * D + channels[None, :]
    tl.store(grad_qkv + target, of_keys * scale, inside)
    tl.store(grad_qkv + target + width, of_values, inside)


@triton.jit
def _bias_gradient(
    qkv, bias, grad, logsums, deltas, sums, scale, blocks, windows, share, heads, T, H, W,
    frames, shift_t, shift_h, shift_w,
    D: tl.constexpr, WT: tl.constexpr, WH: tl.constexpr, WW: tl.constexpr, MASKS: tl.constexpr,
    BQ: tl.constexpr, BK: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """What a share of the windows adds to a block of the bias's gradient."""
    N: tl.constexpr = WT * WH * WW
    head = tl.program_id(1)
    at = tl.program_id(0) // blocks * BQ + tl.arange(0, BQ)
    n = tl.program_id(0) % blocks * BK + tl.arange(0, BK)
    channels = tl.arange(0, BD)
    width = heads * D
    qkv += head * D
    bias += head.to(tl.int64) * N * N
    total = tl.zeros((BQ, BK), dtype=tl.float32)
    first = tl.program_id(2) * share
    for number in range(0, tl.minimum(share, windows - first)):
        window = first + number
        cells, _, part = _cells(window, at, T, H, W, shift_t, shift_h, shift_w, WT, WH, WW)
        places, t, of_key = _cells(window, n, T, H, W, shift_t, shift_h, shift_w, WT, WH, WW)
        queries = _rows(qkv, cells, at < N, channels, 3 * width, D)
        keys = _rows(qkv + width, places, n < N, channels, 3 * width, D)
        values = _rows(qkv + 2 * width, places, n < N, channels, 3 * width, D)
        g = _rows(grad + head * D, cells, at < N, channels, width, D)
        place = (window.to(tl.int64) * heads + head) * N + at
        logsum = tl.load(logsums + place, at < N, float("inf"))
        delta = tl.load(deltas + place, at < N, 0.0)
        logits = _logits(queries, keys, bias, at, n, part, of_key, t, frames, N, scale, MASKS)
        weights = tl.exp2(logits - logsum[:, None])
        total += weights * (_product(g, tl.trans(values)) - delta[:, None])
    target = (tl.program_id(2).to(tl.int64) * heads + head) * N * N
    inside = (at < N)[:, None] & (n < N)[None, :]
    tl.store(sums + target + at[:, None] * N + n[None, :], total, inside)


def forward(
    qkv: Tensor, bias: Tensor, out: Tensor, logsums: Tensor,
    size: Grid, shift: Grid, frames: int, scale: float,
) -> None:  # fmt: skip
    """Write the attention to `out`, and the logarithms (base 2) of its weights' sums.

    Args:
        qkv: (B, T, H, W, 3, heads, D), whose grid whole windows cover, contiguous.
        bias: (heads, N, N) with N the cells of a window, contiguous.
        out: (B, T, H, W, heads, D). logsums: (windows, heads, N) fp32, contiguous both.
        size, shift: of the windows. frames: those behind the first so many are no keys.
    """
    if not out.numel():
        return
    block, blocks = _blocks(size, BLOCK)
    _forward[(blocks * logsums.shape[0] * logsums.shape[1],)](
        qkv, bias, out, logsums, scale, blocks, *_sizes(qkv, size, shift, frames),
        block, block, _width(qkv), **OPTIONS,
    )  # fmt: skip


def backward(
    qkv: Tensor, bias: Tensor, out: Tensor, grad: Tensor, logsums: Tensor,
    size: Grid, shift: Grid, frames: int, scale: float, of_bias: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Gradients of qkv and of the bias (empty if not wanted); shapes as in :func:`forward`."""
    windows, heads, cells = logsums.shape
    sizes, width = _sizes(qkv, size, shift, frames), _width(qkv)
    block, blocks = _blocks(size, BLOCK)
    half, halves = _blocks(size, HALF)
    deltas, grad_qkv = torch.empty_like(logsums), torch.empty_like(qkv)
    if not out.numel():
        return grad_qkv, torch.zeros_like(bias) if of_bias else bias.new_empty(0)
    _query_gradient[(blocks * windows * heads,)](
        qkv, bias, out, grad, logsums, deltas, grad_qkv, scale, blocks, *sizes,
        block, block, width, **OPTIONS,
    )  # fmt: skip
    _key_gradient[(halves * windows * heads,)](
        qkv, bias, grad, logsums, deltas, grad_qkv, scale, halves, *sizes,
        block, half, width, **OPTIONS,
    )  # fmt: skip
    if not of_bias:
        return grad_qkv, bias.new_empty(0)
    shares = min(triton.cdiv(LEAST_PROGRAMS, halves * blocks * heads), windows)
    share = triton.cdiv(windows, shares)
    shares = triton.cdiv(windows, share)
    sums = torch.empty(shares, heads, cells, cells, dtype=torch.float32, device=qkv.device)
    _bias_gradient[(halves * blocks, heads, shares)](
        qkv, bias, grad, logsums, deltas, sums, scale, blocks, windows, share, *sizes,
        half, block, width, **OPTIONS,
    )  # fmt: skip
    return grad_qkv, sums.sum(dim=0).to(bias.dtype)


def _blocks(size: Grid, most: int) -> tuple[int, int]:
    """How many cells a program takes, at least the 16 of a matrix product; programs per window."""
    block = min(most, max(triton.next_power_of_2(volume(size)), 16))
    return block, triton.cdiv(volume(size), block)


def _sizes(qkv: Tensor, size: Grid, shift: Grid, frames: int) -> tuple:
    grid = qkv.shape[1:4]
    masks = any(shift) or frames < grid[0]
    return qkv.shape[5], *grid, frames, *shift, qkv.shape[6], *size, masks


def _width(qkv: Tensor) -> int:
    return max(triton.next_power_of_2(qkv.shape[6]), 16)
