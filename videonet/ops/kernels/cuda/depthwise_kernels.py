"""Depth-wise convolution of token grids in Triton: forward, and both gradients.

Tensors are views (B, heads, T, H, W, D) whose channels D lie side by side, so that tokens are read
where they lie: in their own tensor, or as a third of the one that a qkv layer wrote. Weights are
(kt * kh * kw, D), one kernel for all heads. Sums are fp32; offsets that depend on a batch have 64
bits. No atomics, so that gradients are the same on every run.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from videonet.ops.grid import Grid

MOST_COLUMNS = 32  # outputs along the width that one program computes
ROWS_PER_SUM = 64  # rows of outputs whose share of a weight's gradient one program adds up


@triton.jit
def _place(row, T, H):
    """Batch, frame and line of a row of outputs; rows count the lines of all frames and clips."""
    line = row % H
    frame = (row // H) % T
    clip = row // (H * T)
    return clip.to(tl.int64), frame, line


@triton.jit
def _convolve(
    x, weight, frame, line, columns, channels,
    T, H, W, x_t, x_h, x_w,
    D, ST, SH, SW, PT, PH, PW,
    KT: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr, BW: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """fp32 sums (BW, BD) at the outputs (frame, line, columns); `x` points at clip and head."""
    total = tl.zeros((BW, BD), dtype=tl.float32)
    real = channels < D
    for dt in range(KT):
        t = frame * ST + dt - PT
        for dh in range(KH):
            h = line * SH + dh - PH
            inside = (t >= 0) & (t < T) & (h >= 0) & (h < H)
            source = x + t.to(tl.int64) * x_t + h * x_h
            for dw in tl.static_range(KW):
                w = columns * SW + dw - PW
                there = (inside & (w >= 0) & (w < W))[:, None] & real[None, :]
                values = tl.load(source + w[:, None] * x_w + channels[None, :], there, 0.0)
                taps = tl.load(weight + ((dt * KH + dh) * KW + dw) * D + channels, real, 0.0)
                total += values.to(tl.float32) * taps.to(tl.float32)[None, :]
    return total


@triton.jit
def _forward(
    x, weight, bias, y,
    T, H, W, TO, HO, WO, D, heads,
    x_b, x_n, x_t, x_h, x_w,
    y_b, y_n, y_t, y_h, y_w,
    ST, SH, SW, PT, PH, PW,
    KT: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr, BW: tl.constexpr, BD: tl.constexpr,
    HAS_BIAS: tl.constexpr,
):  # fmt: skip
    clip, frame, line = _place(tl.program_id(0), TO, HO)
    head, part = tl.program_id(2) % heads, tl.program_id(2) // heads
    columns = tl.program_id(1) * BW + tl.arange(0, BW)
    channels = part * BD + tl.arange(0, BD)
    total = _convolve(
        x + clip * x_b + head * x_n, weight, frame, line, columns, channels,
        T, H, W, x_t, x_h, x_w, D, ST, SH, SW, PT, PH, PW, KT, KH, KW, BW, BD,
    )  # fmt: skip
    if HAS_BIAS:
        own = tl.load(bias + head * D + channels, channels < D, 0.0)
        total += own.to(tl.float32)[None, :]
    target = y + clip * y_b + head * y_n + frame.to(tl.int64) * y_t + line * y_h
    there = (columns < WO)[:, None] & (channels < D)[None, :]
    tl.store(target + columns[:, None] * y_w + channels[None, :], total, there)


@triton.jit
def _input_gradient(
    grad, weight, out,
    T, H, W, TO, HO, WO, D, heads,
    g_b, g_n, g_t, g_h, g_w,
    o_b, o_n, o_t, o_h, o_w,
    ST, SH, SW, PT, PH, PW,
    KT: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr, BW: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """An input gathers the outputs that read it: output o reads input ``o * stride + d - pad``."""
    clip, frame, line = _place(tl.program_id(0), T, H)
    head, part = tl.program_id(2) % heads, tl.program_id(2) // heads
    columns = tl.program_id(1) * BW + tl.arange(0, BW)
    channels = part * BD + tl.arange(0, BD)
    real = channels < D
    grad += clip * g_b + head * g_n
    total = tl.zeros((BW, BD), dtype=tl.float32)
    for dt in range(KT):
        t = frame + PT - dt
        for dh in range(KH):
            h = line + PH - dh
            inside = (t >= 0) & (t % ST == 0) & (t // ST < TO)
            inside = inside & (h >= 0) & (h % SH == 0) & (h // SH < HO)
            source = grad + (t // ST).to(tl.int64) * g_t + (h // SH) * g_h
            for dw in tl.static_range(KW):
                w = columns + PW - dw
                there = inside & (w >= 0) & (w % SW == 0) & (w // SW < WO)
                there = there[:, None] & real[None, :]
                values = tl.load(source + (w // SW)[:, None] * g_w + channels[None, :], there, 0.0)
                taps = tl.load(weight + ((dt * KH + dh) * KW + dw) * D + channels, real, 0.0)
                total += values.to(tl.float32) * taps.to(tl.float32)[None, :]
    target = out + clip * o_b + head * o_n + frame.to(tl.int64) * o_t + line * o_h
    there = (columns < W)[:, None] & real[None, :]
    tl.store(target + columns[:, None] * o_w + channels[None, :], total, there)


@triton.jit
def _weight_gradient(
    grad, x, sums,
    T, H, W, TO, HO, WO, D, rows,
    g_b, g_n, g_t, g_h, g_w,
    x_b, x_n, x_t, x_h, x_w,
    ST, SH, SW, PT, PH, PW, parts,
    KH: tl.constexpr, KW: tl.constexpr, BK: tl.constexpr, BW: tl.constexpr, BD: tl.constexpr,
    BR: tl.constexpr,
):  # fmt: skip
    """The share of BR rows of outputs in the gradient of one line of taps, (BK >= KW, BD)."""
    head, part = tl.program_id(1) // parts, tl.program_id(1) % parts
    dt, dh = tl.program_id(2) // KH, tl.program_id(2) % KH
    taps = tl.arange(0, BK)
    channels = part * BD + tl.arange(0, BD)
    real = channels < D
    total = tl.zeros((BK, BW, BD), dtype=tl.float32)
    first = tl.program_id(0) * BR
    for row in range(first, tl.minimum(first + BR, rows)):
        clip, frame, line = _place(row, TO, HO)
        t = frame * ST + dt - PT
        h = line * SH + dh - PH
        inside = (t >= 0) & (t < T) & (h >= 0) & (h < H)
        of_grad = grad + clip * g_b + head * g_n + frame.to(tl.int64) * g_t + line * g_h
        of_x = x + clip * x_b + head * x_n + t.to(tl.int64) * x_t + h * x_h
        for start in range(0, WO, BW):
            columns = start + tl.arange(0, BW)
            there = (inside & (columns < WO))[:, None] & real[None, :]
            g = tl.load(of_grad + columns[:, None] * g_w + channels[None, :], there, 0.0)
            w = columns[None, :] * SW + taps[:, None] - PW  # (BK, BW)
            there_x = (w >= 0) & (w < W) & (taps < KW)[:, None] & inside
            there_x = there_x[:, :, None] & real[None, None, :]
            values = tl.load(of_x + w[:, :, None] * x_w + channels[None, None, :], there_x, 0.0)
            total += g.to(tl.float32)[None, :, :] * values.to(tl.float32)
    total = tl.sum(total, axis=1)  # (BK, BD)
    heads_parts = tl.num_programs(1) // parts
    place = (tl.program_id(0) * heads_parts + head).to(tl.int64) * tl.num_programs(2)
    target = sums + (place + tl.program_id(2)) * KW * D
    there = (taps < KW)[:, None] & real[None, :]
    tl.store(target + taps[:, None] * D + channels[None, :], total, there)


@triton.jit
def _pool_norm(
    x, weights, gains, offsets,
    q, k, v, pooled_q, pooled_k, pooled_v, moments_q, moments_k, moments_v,
    T, H, W, D, heads, prefix, most_lines,
    TQ, HQ, WQ, TK, HK, WK,
    x_b, x_n, x_s, x_which,
    SQT, SQH, SQW, SKT, SKH, SKW, PT, PH, PW, eps,
    KT: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr, BW: tl.constexpr, BD: tl.constexpr,
    SAVE: tl.constexpr,
):  # fmt: skip
    """Pool a line of one head of the queries, keys or values, and normalise its vectors.

    The last lines of a clip are those of its prefix tokens, which are normalised only.
    """
    head, which = tl.program_id(2) % heads, tl.program_id(2) // heads
    if which == 0:
        TO, HO, WO, ST, SH, SW = TQ, HQ, WQ, SQT, SQH, SQW
        y, pooled, moments = q, pooled_q, moments_q
    elif which == 1:
        TO, HO, WO, ST, SH, SW = TK, HK, WK, SKT, SKH, SKW
        y, pooled, moments = k, pooled_k, moments_k
    else:
        TO, HO, WO, ST, SH, SW = TK, HK, WK, SKT, SKH, SKW
        y, pooled, moments = v, pooled_v, moments_v
    lines_of_prefix = tl.cdiv(prefix, tl.num_programs(1) * BW)
    lines = TO * HO + lines_of_prefix
    row = tl.program_id(0) % most_lines
    clip = (tl.program_id(0) // most_lines).to(tl.int64)
    if row < lines:
        columns = tl.program_id(1) * BW + tl.arange(0, BW)
        channels = tl.arange(0, BD)
        real = channels < D
        x += clip * x_b + head * x_n + which * x_which
        of_cells = row < TO * HO
        # The tokens that this line writes, of which there are `end` before the next line.
        first = (row - TO * HO) * tl.num_programs(1) * BW
        end = prefix
        total = tl.zeros((BW, BD), dtype=tl.float32)
        if of_cells:
            first = prefix + row * WO
            end = first + WO
            total = _convolve(
                x + prefix * x_s, weights + which * KT * KH * KW * D,
                row // HO, row % HO, columns, channels,
                T, H, W, H * W * x_s, W * x_s, x_s,
                D, ST, SH, SW, PT, PH, PW, KT, KH, KW, BW, BD,
            )  # fmt: skip
        else:
            there = (first + columns < prefix)[:, None] & real[None, :]
            values = tl.load(x + (first + columns)[:, None] * x_s + channels[None, :], there, 0.0)
            total = values.to(tl.float32)
        tokens = first + columns
        place = (clip * heads + head) * (prefix + TO * HO * WO) + tokens  # (BW,) int64
        there = (tokens < end)[:, None] & real[None, :]
        total = total.to(y.dtype.element_ty).to(tl.float32)  # as two operators would round
        mean = tl.sum(total, axis=1) / D
        centred = tl.where(real[None, :], total - mean[:, None], 0.0)
        scale = tl.rsqrt(tl.sum(centred * centred, axis=1) / D + eps)
        gain = tl.load(gains + which * D + channels, real, 0.0).to(tl.float32)
        offset = tl.load(offsets + which * D + channels, real, 0.0).to(tl.float32)
        result = centred * scale[:, None] * gain[None, :] + offset[None, :]
        tl.store(y + place[:, None] * D + channels[None, :], result, there)
        if SAVE:
            tl.store(pooled + place[:, None] * D + channels[None, :], total, there)
            count = tl.num_programs(0) // most_lines
            second = (prefix + TO * HO * WO).to(tl.int64) * count * heads
            tl.store(moments + place, mean, tokens < end)
            tl.store(moments + second + place, scale, tokens < end)


# Whether the kernels run in Triton's interpreter, on any device.
INTERPRETED = not isinstance(_place, triton.runtime.JITFunction)


def forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, y: Tensor, stride: Grid, padding: Grid
) -> None:
    """Write the convolution of `x` (B, heads, T, H, W, D) to `y` (B, heads, T', H', W', D).

    Args:
        weight: (D, 1, kt, kh, kw).
        bias: (heads * D,), or None.
    """
    if not y.numel():
        return
    taps, block = _taps(weight), _channel_block(x.shape[-1])
    clips, heads, *size, width = y.shape
    programs = (
        clips * size[0] * size[1],
        triton.cdiv(size[2], columns := _columns(size[2])),
        heads * triton.cdiv(width, block),
    )
    _forward[programs](
        x, taps, taps if bias is None else bias, y,
        *x.shape[2:5], *size, width, heads,
        *x.stride()[:5], *y.stride()[:5], *stride, *padding,
        *weight.shape[2:], columns, block, bias is not None,
    )  # fmt: skip


def input_gradient(grad: Tensor, weight: Tensor, out: Tensor, stride: Grid, padding: Grid) -> None:
    """Write the gradient of the input to `out` (B, heads, T, H, W, D).

    Args:
        grad: of the output, (B, heads, T', H', W', D).
        weight: (D, 1, kt, kh, kw).
    """
    if not out.numel():
        return
    block = _channel_block(out.shape[-1])
    clips, heads, *size, width = out.shape
    programs = (
        clips * size[0] * size[1],
        triton.cdiv(size[2], columns := _columns(size[2])),
        heads * triton.cdiv(width, block),
    )
    _input_gradient[programs](
        grad, _taps(weight), out,
        *size, *grad.shape[2:5], width, heads,
        *grad.stride()[:5], *out.stride()[:5], *stride, *padding,
        *weight.shape[2:], columns, block,
    )  # fmt: skip


def weight_gradient(grad: Tensor, x: Tensor, kernel: Grid, stride: Grid, padding: Grid) -> Tensor:
    """The gradient of the weight, fp32 (D, 1, kt, kh, kw).

    Args:
        grad: of the output, (B, heads, T', H', W', D).
        x: the input, (B, heads, T, H, W, D).
    """
    clips, heads, *size, width = grad.shape
    kt, kh, kw = kernel
    rows, block = clips * size[0] * size[1], min(_channel_block(width), 32)
    parts, shares = triton.cdiv(width, block), triton.cdiv(rows, ROWS_PER_SUM)
    sums = torch.empty(shares, heads, kt * kh * kw, width, dtype=torch.float32, device=x.device)
    if sums.numel():
        _weight_gradient[(shares, heads * parts, kt * kh)](
            grad, x, sums,
            *x.shape[2:5], *size, width, rows,
            *grad.stride()[:5], *x.stride()[:5], *stride, *padding, parts,
            kh, kw, triton.next_power_of_2(kw), min(_columns(size[2]), 16), block, ROWS_PER_SUM,
        )  # fmt: skip
    return sums.sum(dim=(0, 1)).t().reshape(width, 1, kt, kh, kw)


def pool_norm(
    x: Tensor,
    grid: Grid,
    weights: Tensor,
    gains: Tensor,
    offsets: Tensor,
    outputs: list[Tensor],
    pooled: list[Tensor],
    moments: list[Tensor],
    q_grid: Grid,
    k_grid: Grid,
    q_stride: Grid,
    k_stride: Grid,
    eps: float,
) -> None:
    """Pool and normalise queries, keys and values in one launch.

    Args:
        x: (B, P + T*H*W, 3, heads, D), channels side by side; the P prefix tokens first.
        weights: (3, kt, kh, kw, D), zeros being around the grid, ``k // 2`` on each side.
        gains, offsets: (3, D), of the layer norms.
        outputs: of queries, keys and values, (B, heads, P + T'*H'*W', D) each, contiguous.
        pooled: the same before the norm; none to leave them out.
        moments: (2, B, heads, P + T'*H'*W') fp32 each, the means and the reciprocals of the
            deviations; none to leave them out.
    """
    clips, tokens, _, heads, width = x.shape
    prefix = tokens - grid[0] * grid[1] * grid[2]
    columns = min(_columns(max(q_grid[2], k_grid[2])), 16)
    across = triton.cdiv(max(q_grid[2], k_grid[2]), columns)
    lines = max(q_grid[0] * q_grid[1], k_grid[0] * k_grid[1])
    lines += triton.cdiv(prefix, across * columns)
    if not x.numel():
        return
    _pool_norm[(clips * lines, across, 3 * heads)](
        x, weights, gains, offsets,
        *outputs, *(pooled or outputs), *(moments or outputs),
        *grid, width, heads, prefix, lines, *q_grid, *k_grid,
        x.stride(0), x.stride(3), x.stride(1), x.stride(2),
        *q_stride, *k_stride, *(k // 2 for k in weights.shape[1:4]), eps,
        *weights.shape[1:4], columns, triton.next_power_of_2(width), bool(pooled),
    )  # fmt: skip


def _taps(weight: Tensor) -> Tensor:
    """(D, 1, kt, kh, kw) -> (kt * kh * kw, D), so that channels lie side by side."""
    return weight.flatten(1).t().contiguous()


def _columns(width: int) -> int:
    """Outputs along a line of this many that one program computes, a power of two."""
    return min(max(triton.next_power_of_2(width), 8), MOST_COLUMNS)


def _channel_block(width: int) -> int:
    """Channels that one program computes: a power of two, without idle lanes where that can be."""
    for block in (64, 32):
        if width % block == 0:
            return block
    return min(triton.next_power_of_2(width), 64)
