"""The Triton kernels against their twins, in Triton's interpreter: run by test_triton.py."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from videonet.ops.kernels.cuda.attention import plain_two_part_attention, two_part_attention
from videonet.ops.kernels.cuda.depthwise import depthwise_conv, plain_depthwise_conv, runs_triton
from videonet.ops.kernels.cuda.pool_norm import plain_pool_norm, pool_norm

# Largest error in units of the largest number, against the twin in fp64.
TOLERANCES = {torch.float32: 5e-6, torch.bfloat16: 3e-2, torch.float16: 4e-3}
HALVES = (torch.bfloat16, torch.float16)
TYPES = pytest.mark.parametrize(
    "dtype", [torch.float32, *(pytest.param(t, marks=pytest.mark.slow) for t in HALVES)]
)


def numbers(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def results(function, tensors: list[Tensor], outputs: int = 1) -> list[Tensor]:
    """The outputs of a function, and the gradients of a weighted sum of them."""
    leaves = [t.detach().requires_grad_() for t in tensors]
    found = function(*leaves)
    found = [found] if isinstance(found, Tensor) else list(found[:outputs])
    total = sum((y * numbers(*y.shape).to(y)).sum() for y in found)
    return [*found, *torch.autograd.grad(total, leaves)]


def agree(function, twin, tensors: list[Tensor], dtype: torch.dtype, outputs: int = 1) -> None:
    tensors = [t.to(dtype) for t in tensors]
    found = results(function, tensors, outputs)
    expected = results(twin, [t.double() for t in tensors], outputs)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype is dtype and a.shape == b.shape and a.isfinite().all()
        assert (a - b).abs().max() <= TOLERANCES[dtype] * b.abs().max()


def test_the_interpreter_is_on():
    assert runs_triton(torch.zeros(1))


@TYPES
@pytest.mark.parametrize(
    "grid, kernel, stride, channels, width",
    [
        ((2, 3, 5), (3, 3, 3), (1, 1, 1), 6, 3),
        pytest.param((3, 4, 5), (3, 3, 3), (2, 2, 2), 5, 5, marks=pytest.mark.slow),
        ((1, 3, 9), (1, 3, 3), (1, 2, 4), 8, 8),  # an image
        ((1, 4, 3), (3, 3, 5), (1, 1, 1), 35, 35),  # a kernel larger than the grid
    ],
)
def test_depthwise_convolution(grid, kernel, stride, channels, width, dtype):
    volume = numbers(2, *grid, channels).permute(0, 4, 1, 2, 3)
    padding = tuple(k // 2 for k in kernel)
    tensors = [volume, numbers(width, 1, *kernel), numbers(channels)]
    agree(
        lambda *t: depthwise_conv(*t, stride, padding),
        lambda *t: plain_depthwise_conv(*t, stride, padding),
        tensors,
        dtype,
    )


def test_a_convolution_of_channels_first_memory_and_uneven_padding():
    tensors = [numbers(1, 4, 2, 4, 4), numbers(4, 1, 1, 2, 2)]
    agree(
        lambda x, w: depthwise_conv(x, w, None, (1, 2, 2), (0, 0, 1)),
        lambda x, w: plain_depthwise_conv(x, w, None, (1, 2, 2), (0, 0, 1)),
        tensors,
        torch.float32,
    )


def test_an_empty_batch():
    weight = numbers(4, 1, 3, 3, 3).requires_grad_()
    volume = torch.empty(0, 4, 2, 4, 4, requires_grad=True)
    y = depthwise_conv(volume, weight, None, (1, 2, 2), (1, 1, 1))
    y.sum().backward()
    assert y.shape == (0, 4, 2, 2, 2) and not weight.grad.any()
    empty = torch.empty(0, 2, 5, 8)
    y, _ = two_part_attention(empty, empty[..., :3], torch.empty(0, 2, 4, 11), empty[:, :, :4])
    assert y.shape == (0, 2, 5, 8)


@pytest.mark.parametrize("dtype", HALVES)
def test_depthwise_convolution_of_halves(dtype):
    tensors = [numbers(1, 1, 2, 3, 4).permute(0, 4, 1, 2, 3), numbers(4, 1, 1, 3, 3)]
    agree(
        lambda x, w: depthwise_conv(x, w, None, (1, 1, 1), (0, 1, 1)),
        lambda x, w: plain_depthwise_conv(x, w, None, (1, 1, 1), (0, 1, 1)),
        tensors,
        dtype,
    )


@TYPES
@pytest.mark.parametrize(
    "prefix, grid, q_stride, k_stride",
    [
        (1, (2, 3, 4), (1, 1, 1), (1, 2, 2)),
        (0, (1, 4, 3), (1, 2, 2), (1, 1, 1)),  # an image; fewer queries than keys
        # more prefix tokens than a line has columns
        pytest.param(9, (2, 2, 2), (2, 1, 1), (1, 2, 1), marks=pytest.mark.slow),
    ],
)
def test_pooling_with_norms(prefix, grid, q_stride, k_stride, dtype):
    tokens = prefix + grid[0] * grid[1] * grid[2]
    tensors = [numbers(1, tokens, 3, 2, 6), numbers(3, 6, 1, 3, 3, 3)]
    tensors += [1 + 0.3 * numbers(3, 6), numbers(3, 6)]
    steps = grid, q_stride, k_stride, 1e-6

    def twin(x, weights, gains, offsets):  # in fp64, where the twin's norm is fp32
        return [y.double() for y in plain_pool_norm(x, weights, gains, offsets, *steps)]

    agree(lambda *t: pool_norm(*t, *steps, True), twin, tensors, dtype, outputs=3)


@pytest.mark.parametrize("dtype", list(TOLERANCES))
@pytest.mark.parametrize(
    "queries, keys, width, rows", [(70, 75, 12, 5), (130, 20, 16, 9), (1, 1, 3, 1), (9, 130, 20, 7)]
)
def test_attention_with_queries_in_two_parts(queries, keys, width, rows, dtype):
    tensors = [numbers(1, 2, queries, width), numbers(1, 2, queries, rows)]
    tensors += [0.5 * numbers(1, 2, keys, width + rows), numbers(1, 2, keys, width)]
    agree(two_part_attention, plain_two_part_attention, tensors, dtype)


def test_attention_of_tensors_that_lie_otherwise_in_memory():
    q, k, v = (numbers(2, n, 3, 8).transpose(1, 2) for n in (5, 7, 6))
    rows = numbers(2, 3, 4, 5).transpose(2, 3)  # (2, 3, 5, 4)
    tensors = [q, rows, torch.cat((k, numbers(2, 3, 7, 4)), dim=3), v[:, :, :6]]
    tensors[2] = tensors[2][:, :, :6]
    agree(two_part_attention, plain_two_part_attention, tensors, torch.float32)


@pytest.mark.parametrize(
    "function, twin, tensors",
    [
        (
            lambda *t: two_part_attention(*t)[0],
            plain_two_part_attention,
            [numbers(1, 1, 3, 2), numbers(1, 1, 3, 1), numbers(1, 1, 4, 3), numbers(1, 1, 4, 2)],
        ),
        (
            lambda x, w: depthwise_conv(x, w, None, (1, 1, 1), (0, 1, 1)).square(),
            lambda x, w: plain_depthwise_conv(x, w, None, (1, 1, 1), (0, 1, 1)).square(),
            [numbers(1, 2, 1, 3, 3), numbers(2, 1, 1, 3, 3)],
        ),
    ],
)
def test_gradients_can_be_differentiated_again(function, twin, tensors):
    found = []
    for f in (function, twin):
        leaves = [t.clone().requires_grad_() for t in tensors]
        y = f(*leaves)
        grads = torch.autograd.grad((y * numbers(*y.shape)).sum(), leaves, create_graph=True)
        total = sum((g * numbers(*g.shape)).sum() for g in grads)
        found.append(torch.autograd.grad(total, leaves))
    for a, b in zip(*found, strict=True):
        assert (a - b).abs().max() <= 1e-5 * b.abs().max() and b.any()


def test_results_are_the_same_on_every_run():
    tensors = [numbers(1, 40, 1, 4, 12).permute(0, 1, 2, 4, 3), numbers(40, 1, 1, 3, 3)]
    first, second = (
        results(lambda x, w: depthwise_conv(x, w, None, (1, 1, 1), (0, 1, 1)), tensors)
        for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
