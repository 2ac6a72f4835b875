"""The gradient of a layer norm whose means and deviations were kept, in Triton."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS = 16  # vectors that one program holds at a time
STEPS = 16  # times that it takes so many, while it adds up the gradients of gain and offset


@triton.jit
def _norm_gradient(
    grad, x, gain, mean, scale, out, sums, D, rows,
    BD: tl.constexpr, BR: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    channels = tl.arange(0, BD)
    real = channels < D
    gains = tl.load(gain + channels, real, 0.0).to(tl.float32)
    of_gain = tl.zeros((BR, BD), dtype=tl.float32)
    of_offset = tl.zeros((BR, BD), dtype=tl.float32)
    first = tl.program_id(0).to(tl.int64) * STEPS * BR
    for start in range(first, tl.minimum(first + STEPS * BR, rows), BR):
        row = start + tl.arange(0, BR)
        there = (row < rows)[:, None] & real[None, :]
        place = row[:, None] * D + channels[None, :]
        g = tl.load(grad + place, there, 0.0).to(tl.float32)
        means = tl.load(mean + row, row < rows, 0.0)
        scales = tl.load(scale + row, row < rows, 0.0)
        normed = tl.load(x + place, there, 0.0).to(tl.float32) - means[:, None]
        normed = tl.where(there, normed * scales[:, None], 0.0)
        of_gain += g * normed
        of_offset += g
        g = g * gains[None, :]
        along = tl.sum(g * normed, axis=1) / D
        level = tl.sum(g, axis=1) / D
        result = (g - level[:, None] - normed * along[:, None]) * scales[:, None]
        tl.store(out + place, result, there)
    target = sums + tl.program_id(0) * 2 * D + channels
    tl.store(target, tl.sum(of_gain, axis=0), real)
    tl.store(target + D, tl.sum(of_offset, axis=0), real)


def norm_gradient(
    grad: Tensor, x: Tensor, gain: Tensor, moments: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the input, the gain and the offset of a layer norm.

    Args:
        grad: of the output, (..., D), contiguous.
        x: the input, likewise.
        gain: (D,).
        moments: (2, ...) fp32, the means and the reciprocals of the deviations.

    Returns:
        In the type of `x`, (..., D); in fp32, (D,) twice.
    """
    width = x.shape[-1]
    rows = x.numel() // width
    out = torch.empty_like(x)
    programs = triton.cdiv(rows, ROWS * STEPS)
    sums = torch.empty(programs, 2, width, dtype=torch.float32, device=x.device)
    if rows:
        mean, scale = moments.flatten(1)
        _norm_gradient[(programs,)](
            grad, x, gain, mean, scale, out, sums, width, rows,
            triton.next_power_of_2(width), ROWS, STEPS,
        )  # fmt: skip
    of_gain, of_offset = sums.sum(dim=0)
    return out, of_gain, of_offset
