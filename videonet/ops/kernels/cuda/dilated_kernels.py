"""Attention to a dilated window around every cell in Triton, tap by tap.

A program holds the queries of some cells of one head and walks over the window: neighbouring cells
read the same keys and values, which come from the cache after the first time, and logits stay in
registers. For the gradients of keys and values it walks over the queries that see a cell, so that
each is written once: no atomics.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from videonet.ops.grid import Grid, as_grid, volume
from videonet.ops.kernels.cuda.attention_kernels import LOG2_E

BLOCK = 64  # cells that a program holds at a time
OPTIONS = {"num_warps": 4}


@triton.jit
def _neighbours(cell, tap, SIGN: tl.constexpr, T, H, W, dt, dh, dw,
                KT: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr):  # fmt: skip
    """Cells at a tap of the windows of `cell`, or with a SIGN of -1 cells that have it there.

    Returns:
        Their numbers; whether they are within the clip's frames; and within the grid.
    """
    t = cell // (H * W) % T + SIGN * (tap // (KH * KW) * dt - dt * (KT - 1) // 2)
    of_h = SIGN * (tap // KW % KH * dh - dh * (KH - 1) // 2)
    of_w = SIGN * (tap % KW * dw - dw * (KW - 1) // 2)
    h, w = cell // W % H + of_h, cell % W + of_w
    of_t = t - cell // (H * W) % T
    in_clip = (t >= 0) & (t < T)
    inside = in_clip & (h >= 0) & (h < H) & (w >= 0) & (w < W)
    return cell + (of_t * H + of_h) * W + of_w, in_clip, inside


@triton.jit
def _rows(x, cells, there, channels, row, D):
    """Vectors (BC, BD) of one head in fp32, zeros where there is none."""
    place = cells[:, None] * row + channels[None, :]
    return tl.load(x + place, there[:, None] & (channels < D)[None, :], 0.0).to(tl.float32)


@triton.jit
def _forward(
    qkv, out, logsums, scale, cells, first_head, group, heads, T, H, W, dt, dh, dw,
    D: tl.constexpr, KT: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr,
    BC: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    head = first_head + tl.program_id(0) % group
    cell = (tl.program_id(0) // group).to(tl.int64) * BC + tl.arange(0, BC)
    channels = tl.arange(0, BD)
    there = cell < cells
    width = heads * D
    qkv += head * D
    queries = _rows(qkv, cell, there, channels, 3 * width, D) * (scale * LOG2_E)
    highest = tl.full((BC,), -1e30, dtype=tl.float32)
    weight = tl.zeros((BC,), dtype=tl.float32)
    total = tl.zeros((BC, BD), dtype=tl.float32)
    for tap in range(0, KT * KH * KW):
        n, in_clip, inside = _neighbours(cell, tap, 1, T, H, W, dt, dh, dw, KT, KH, KW)
        inside = inside & there
        keys = _rows(qkv + width, n, inside, channels, 3 * width, D)
        values = _rows(qkv + 2 * width, n, inside, channels, 3 * width, D)
        logits = tl.where(in_clip, tl.sum(queries * keys, axis=1), float("-inf"))
        higher = tl.maximum(highest, logits)
        share, shrink = tl.exp2(logits - higher), tl.exp2(highest - higher)
        weight = weight * shrink + share
        total = total * shrink[:, None] + share[:, None] * values
        highest = higher
    place = cell[:, None] * width + head * D + channels[None, :]
    tl.store(out + place, total / weight[:, None], there[:, None] & (channels < D)[None, :])
    tl.store(logsums + cell * heads + head, highest + tl.log2(weight), there)


@triton.jit
def _query_gradient(
    qkv, out, grad, logsums, deltas, grad_qkv, scale, cells, first_head, group, heads, T, H, W,
    dt, dh, dw,
    D: tl.constexpr, KT: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr,
    BC: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Also writes ``sum(out * grad)`` of every query, which the keys' gradients need."""
    head = first_head + tl.program_id(0) % group
    cell = (tl.program_id(0) // group).to(tl.int64) * BC + tl.arange(0, BC)
    channels = tl.arange(0, BD)
    there = cell < cells
    width = heads * D
    qkv += head * D
    queries = _rows(qkv, cell, there, channels, 3 * width, D) * (scale * LOG2_E)
    g = _rows(grad + head * D, cell, there, channels, width, D)
    delta = tl.sum(g * _rows(out + head * D, cell, there, channels, width, D), axis=1)
    tl.store(deltas + cell * heads + head, delta, there)
    logsum = tl.load(logsums + cell * heads + head, there, 0.0)
    total = tl.zeros((BC, BD), dtype=tl.float32)
    for tap in range(0, KT * KH * KW):
        n, _, inside = _neighbours(cell, tap, 1, T, H, W, dt, dh, dw, KT, KH, KW)
        inside = inside & there  # a key of zero adds nothing here
        keys = _rows(qkv + width, n, inside, channels, 3 * width, D)
        values = _rows(qkv + 2 * width, n, inside, channels, 3 * width, D)
        weights = tl.exp2(tl.sum(queries * keys, axis=1) - logsum)
        total += (weights * (tl.sum(g * values, axis=1) - delta))[:, None] * keys
    place = cell[:, None] * 3 * width + head * D + channels[None, :]
    tl.store(grad_qkv + place, total * scale, there[:, None] & (channels < D)[None, :])


@triton.jit
def _key_gradient(
    qkv, grad, logsums, deltas, grad_qkv, scale, cells, first_head, group, heads, T, H, W,
    dt, dh, dw,
    D: tl.constexpr, KT: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr,
    BC: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Gradients of keys and values, from the queries in whose windows they are."""
    head = first_head + tl.program_id(0) % group
    cell = (tl.program_id(0) // group).to(tl.int64) * BC + tl.arange(0, BC)
    channels = tl.arange(0, BD)
    there = cell < cells
    width = heads * D
    qkv += head * D
    keys = _rows(qkv + width, cell, there, channels, 3 * width, D) * (scale * LOG2_E)
    values = _rows(qkv + 2 * width, cell, there, channels, 3 * width, D)
    of_keys = tl.zeros((BC, BD), dtype=tl.float32)
    of_values = tl.zeros((BC, BD), dtype=tl.float32)
    for tap in range(0, KT * KH * KW):
        n, _, inside = _neighbours(cell, tap, -1, T, H, W, dt, dh, dw, KT, KH, KW)
        inside = inside & there
        queries = _rows(qkv, n, inside, channels, 3 * width, D)
        g = _rows(grad + head * D, n, inside, channels, width, D)
        logsum = tl.load(logsums + n * heads + head, inside, float("inf"))  # no weight
        delta = tl.load(deltas + n * heads + head, inside, 0.0)
        weights = tl.exp2(tl.sum(queries * keys, axis=1) - logsum)
        of_values += weights[:, None] * g
        of_keys += (weights * (tl.sum(g * values, axis=1) - delta))[:, None] * queries
    inside = there[:, None] & (channels < D)[None, :]
    place = cell[:, None] * 3 * width + width + head * D + channels[None, :]
    tl.store(grad_qkv + place, of_keys * scale, inside)
    tl.store(grad_qkv + place + width, of_values, inside)


def forward(
    qkv: Tensor, out: Tensor, logsums: Tensor, kernel: Grid, dilations: list[Grid], scale: float
) -> None:
    """Write the attention to `out`, and the logarithms (base 2) of its weights' sums.

    Args:
        qkv: (B, T, H, W, 3, heads, D), contiguous.
        out: (B, T, H, W, heads, D). logsums: (B, T, H, W, heads) fp32, contiguous both.
        dilations: of consecutive groups of heads.
    """
    if not out.numel():
        return
    for programs, sizes in _launches(qkv, kernel, dilations):
        _forward[(programs,)](qkv, out, logsums, scale, *sizes, **OPTIONS)


def backward(
    qkv: Tensor, out: Tensor, grad: Tensor, logsums: Tensor, kernel: Grid, dilations: list[Grid],
    scale: float,
) -> Tensor:  # fmt: skip
    """The gradient of qkv; shapes as in :func:`forward`."""
    grad_qkv, deltas = torch.empty_like(qkv), torch.empty_like(logsums)
    if not out.numel():
        return grad_qkv
    for programs, sizes in _launches(qkv, kernel, dilations):
        _query_gradient[(programs,)](
            qkv, out, grad, logsums, deltas, grad_qkv, scale, *sizes, **OPTIONS
        )
        _key_gradient[(programs,)](qkv, grad, logsums, deltas, grad_qkv, scale, *sizes, **OPTIONS)
    return grad_qkv


def _launches(qkv: Tensor, kernel: Grid, dilations: list[Grid]) -> list[tuple[int, tuple]]:
    """The programs and the sizes of a launch for each group of heads."""
    clips, *grid, _, heads, width = qkv.shape
    cells, group = clips * volume(as_grid(grid)), heads // len(dilations)
    blocks = max(triton.next_power_of_2(width), 2)
    return [
        (
            triton.cdiv(cells, BLOCK) * group,
            (cells, i * group, group, heads, *grid, *dilation, width, *kernel, BLOCK, blocks),
        )
        for i, dilation in enumerate(dilations)
    ]
