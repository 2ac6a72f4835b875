"""One mean and one deviation for each clip as a whole, in Triton.

torch's layer norm gives a row to a block of threads: of a clip's millions of numbers, on one of a
GPU's many processors. Here many programs take a piece of a clip each, and sums are completed in a
second step, always in the same order.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

PIECE = 4096  # numbers of a clip that a program holds at a time
ROWS, WIDE = 32, 128  # cells and channels, where channels matter
LEAST_PROGRAMS = 1024  # shares of the cells are made until the channels' sums have so many


@triton.jit
def _moments(x, sums, numbers, pieces, PIECE: tl.constexpr):
    """The sum of a piece of a clip, and of the squares of distances to its mean."""
    clip, piece = (tl.program_id(0) // pieces).to(tl.int64), tl.program_id(0) % pieces
    at = piece.to(tl.int64) * PIECE + tl.arange(0, PIECE)
    there = at < numbers
    values = tl.load(x + clip * numbers + at, there, 0.0).to(tl.float32)
    total = tl.sum(values, axis=0)
    count = tl.minimum(numbers - piece.to(tl.int64) * PIECE, PIECE).to(tl.float32)
    apart = tl.where(there, values - total / count, 0.0)
    target = sums + (clip * pieces + piece) * 2
    tl.store(target, total)
    tl.store(target + 1, tl.sum(apart * apart, axis=0))


@triton.jit
def _join(sums, moments, clips, numbers, pieces, eps, PIECE: tl.constexpr, BLOCK: tl.constexpr):
    """Mean and reciprocal deviation of a clip from its pieces (Chan et al., 1979)."""
    clip = tl.program_id(0)
    sums += clip.to(tl.int64) * pieces * 2
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    for start in range(0, pieces, BLOCK):
        at = start + tl.arange(0, BLOCK)
        total += tl.load(sums + at * 2, at < pieces, 0.0)
    mean = tl.sum(total, axis=0) / numbers
    squares = tl.zeros((BLOCK,), dtype=tl.float32)
    for start in range(0, pieces, BLOCK):
        at = start + tl.arange(0, BLOCK)
        count = tl.minimum(numbers - at.to(tl.int64) * PIECE, PIECE).to(tl.float32)
        apart = tl.load(sums + at * 2, at < pieces, 0.0) / count - mean
        within = tl.load(sums + at * 2 + 1, at < pieces, 0.0)
        squares += tl.where(at < pieces, within + count * apart * apart, 0.0)
    tl.store(moments + clip, mean)
    tl.store(moments + clips + clip, 1 / tl.sqrt(tl.sum(squares, axis=0) / numbers + eps))


@triton.jit
def _tile(cells, blocks, C, BR: tl.constexpr, BC: tl.constexpr):
    """The clip of a program, channels, and where a tile of cells and channels lies in memory."""
    clip = (tl.program_id(0) // blocks).to(tl.int64)
    row = (tl.program_id(0) % blocks).to(tl.int64) * BR + tl.arange(0, BR)
    channels = tl.program_id(1) * BC + tl.arange(0, BC)
    there = (row < cells)[:, None] & (channels < C)[None, :]
    return clip, channels, (clip * cells + row[:, None]) * C + channels[None, :], there


@triton.jit
def _apply(
    x, gain, offset, moments, out, clips, cells, blocks, C, BR: tl.constexpr, BC: tl.constexpr
):
    clip, channels, place, there = _tile(cells, blocks, C, BR, BC)
    mean, scale = tl.load(moments + clip), tl.load(moments + clips + clip)
    gains = tl.load(gain + channels, channels < C, 0.0).to(tl.float32)
    offsets = tl.load(offset + channels, channels < C, 0.0).to(tl.float32)
    normed = (tl.load(x + place, there, 0.0).to(tl.float32) - mean) * scale
    tl.store(out + place, normed * gains[None, :] + offsets[None, :], there)


@triton.jit
def _channel_sums(
    grad, x, moments, sums, clips, cells, share, shares, C, BR: tl.constexpr, BC: tl.constexpr
):
    """Of each channel, over a share of a clip's cells: sums of the gradient, and of it × norm."""
    clip, part = (tl.program_id(0) // shares).to(tl.int64), tl.program_id(0) % shares
    channels = tl.program_id(1) * BC + tl.arange(0, BC)
    mean, scale = tl.load(moments + clip), tl.load(moments + clips + clip)
    plain = tl.zeros((BR, BC), dtype=tl.float32)
    times = tl.zeros((BR, BC), dtype=tl.float32)
    first = part * share
    for start in range(0, tl.minimum(share, cells - first), BR):
        row = start + tl.arange(0, BR)
        there = ((row < share) & (first + row < cells))[:, None] & (channels < C)[None, :]
        place = (clip * cells + first + row[:, None]) * C + channels[None, :]
        g = tl.load(grad + place, there, 0.0).to(tl.float32)
        normed = (tl.load(x + place, there, 0.0).to(tl.float32) - mean) * scale
        plain += g
        times += tl.where(there, g * normed, 0.0)
    target = sums + (clip * shares + part) * 2 * C + channels
    tl.store(target, tl.sum(plain, axis=0), channels < C)
    tl.store(target + C, tl.sum(times, axis=0), channels < C)


@triton.jit
def _input_gradient(
    grad, x, gain, moments, levels, out, clips, cells, blocks, C,
    BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    clip, channels, place, there = _tile(cells, blocks, C, BR, BC)
    mean, scale = tl.load(moments + clip), tl.load(moments + clips + clip)
    level, along = tl.load(levels + 2 * clip), tl.load(levels + 2 * clip + 1)
    gains = tl.load(gain + channels, channels < C, 0.0).to(tl.float32)
    g = tl.load(grad + place, there, 0.0).to(tl.float32) * gains[None, :]
    normed = (tl.load(x + place, there, 0.0).to(tl.float32) - mean) * scale
    tl.store(out + place, (g - level - normed * along) * scale, there)


def forward(x: Tensor, gain: Tensor, offset: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The normed clips, and their moments.

    Args:
        x: (B, ..., C), contiguous. gain, offset: (C,).

    Returns:
        (B, ..., C); means and reciprocals of the deviations, (2, B) fp32.
    """
    clips, out = x.shape[0], torch.empty_like(x)
    moments = torch.empty(2, clips, dtype=torch.float32, device=x.device)
    if x.numel():
        numbers = x.numel() // clips
        pieces = triton.cdiv(numbers, PIECE)
        sums = torch.empty(clips, pieces, 2, dtype=torch.float32, device=x.device)
        _moments[(clips * pieces,)](x, sums, numbers, pieces, PIECE, num_warps=8)
        _join[(clips,)](sums, moments, clips, numbers, pieces, eps, PIECE, 1024, num_warps=4)
        launch, *sizes = _tiles(x)
        _apply[launch](x, gain, offset, moments, out, *sizes, num_warps=8)
    return out, moments


def backward(
    grad: Tensor, x: Tensor, gain: Tensor, moments: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the input, in its type, and of gain and offset, in fp32."""
    clips, channels = x.shape[0], x.shape[-1]
    out = torch.empty_like(x)
    if not x.numel():
        return out, *torch.zeros(2, channels, dtype=torch.float32, device=x.device)
    numbers, blocks = x.numel() // clips, triton.cdiv(channels, WIDE)
    cells = numbers // channels
    shares = min(triton.cdiv(LEAST_PROGRAMS, clips * blocks), triton.cdiv(cells, ROWS))
    share = triton.cdiv(cells, shares)
    shares = triton.cdiv(cells, share)
    sums = torch.empty(clips, shares, 2, channels, dtype=torch.float32, device=x.device)
    _channel_sums[(clips * shares, blocks)](
        grad, x, moments, sums, clips, cells, share, shares, channels, ROWS, WIDE, num_warps=8
    )
    of_channels = sums.sum(dim=1)  # (B, 2, C)
    levels = (of_channels * gain.float()).sum(dim=2) / numbers  # (B, 2)
    launch, *sizes = _tiles(x)
    _input_gradient[launch](grad, x, gain, moments, levels, out, *sizes, num_warps=8)
    of_offset, of_gain = of_channels.sum(dim=0)
    return out, of_gain, of_offset


def _tiles(x: Tensor) -> tuple[tuple[int, int], int, int, int, int, int, int]:
    """A launch with a program for each tile of (B, ..., C), and its sizes."""
    clips, channels = x.shape[0], x.shape[-1]
    cells = x[0, ..., 0].numel()
    blocks = triton.cdiv(cells, ROWS)
    launch = clips * blocks, triton.cdiv(channels, WIDE)
    return launch, clips, cells, blocks, channels, ROWS, WIDE
