"""The Triton kernels against their twins, in Triton's interpreter: run by test_triton.py."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from triton.runtime.interpreter import InterpreterBuilder

from videonet.ops.kernels.cuda.attention import plain_two_part_attention, two_part_attention
from videonet.ops.kernels.cuda.clip_norm import clip_norm, plain_clip_norm
from videonet.ops.kernels.cuda.depthwise import depthwise_conv, plain_depthwise_conv, runs_triton
from videonet.ops.kernels.cuda.dilated import dilated_attention, plain_dilated_attention
from videonet.ops.kernels.cuda.pool_norm import plain_pool_norm, pool_norm
from videonet.ops.kernels.cuda.shift import plain_shift
from videonet.ops.kernels.cuda.shift import shift as shift_channels
from videonet.ops.kernels.cuda.window import plain_window_attention, window_attention

# Largest error in units of the largest number, against the twin in fp64.
TOLERANCES = {torch.float32: 5e-6, torch.bfloat16: 3e-2, torch.float16: 4e-3}
SLOW = pytest.mark.slow
HALVES = (torch.bfloat16, torch.float16)
TYPES = pytest.mark.parametrize(
    "dtype", [torch.float32, *(pytest.param(t, marks=SLOW) for t in HALVES)]
)


@pytest.fixture(autouse=True)
def conditions_stay_conditions(monkeypatch):
    """Triton 3.9 interprets a condition on a number, spread over a block, as no mask but int32."""
    spread = InterpreterBuilder.create_splat

    def create_splat(self, ret_ty, arg):
        result = spread(self, ret_ty, arg)
        if arg.data.dtype == bool:
            result.data = result.data.astype(bool)
        return result

    monkeypatch.setattr(InterpreterBuilder, "create_splat", create_splat)


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
    largest = max(t.abs().max() for t in expected)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype is dtype and a.shape == b.shape and a.isfinite().all()
        unit = b.abs().max() if b.any() else largest  # a softmax of one key has no gradient
        assert (a - b).abs().max() <= TOLERANCES[dtype] * unit


def test_the_interpreter_is_on():
    assert runs_triton(torch.zeros(1))


@TYPES
@pytest.mark.parametrize(
    "grid, kernel, stride, channels, width",
    [
        ((2, 2, 5), (3, 3, 3), (1, 1, 1), 6, 3),
        pytest.param((3, 4, 5), (3, 3, 3), (2, 2, 2), 5, 5, marks=SLOW),
        ((1, 3, 9), (1, 3, 3), (1, 2, 4), 8, 8),  # an image
        ((1, 2, 3), (3, 3, 5), (1, 1, 1), 35, 35),  # a kernel larger than the grid
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
    qkv, bias = torch.empty(0, 2, 2, 4, 3, 2, 8, requires_grad=True), numbers(2, 4, 4)
    found = [
        window_attention(qkv, bias.requires_grad_(), (2, 2, 1), (0, 1, 0), 2, 1.0)[0],
        dilated_attention(qkv, (3, 3, 3), (1, 1, 1), 1.0)[0],
        shift_channels(qkv[..., 0, 0, :], torch.ones(8, dtype=torch.int32), 1),
        clip_norm(qkv[..., 0, 0, :], torch.ones(8), torch.ones(8), 1e-5)[0],
    ]
    sum(y.sum() for y in found).backward()
    assert [y.shape[0] for y in found] == [0, 0, 0, 0] and not bias.grad.any()


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
        (1, (2, 2, 4), (1, 1, 1), (1, 2, 2)),
        (0, (1, 3, 3), (1, 2, 2), (1, 1, 1)),  # an image; fewer queries than keys
        # more prefix tokens than a line has columns
        pytest.param(9, (2, 2, 2), (2, 1, 1), (1, 2, 1), marks=SLOW),
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


@TYPES
@pytest.mark.parametrize(
    "grid, size, shift, frames",
    [
        ((2, 2, 4), (2, 2, 2), (0, 0, 1), 2),
        # a last frame that is padding: no key
        pytest.param((4, 4, 3), (2, 2, 3), (1, 1, 0), 3, marks=SLOW),
        # an image; windows of more cells than a program takes
        pytest.param((1, 10, 14), (1, 10, 7), (0, 0, 3), 1, marks=SLOW),
    ],
)
def test_attention_in_windows(grid, size, shift, frames, dtype):
    heads, cells = 2, size[0] * size[1] * size[2]
    tensors = [numbers(2, *grid, 3, heads, 6), numbers(heads, cells, cells)]
    options = size, shift, frames, 0.7
    agree(  # what padding attends to is unspecified
        lambda *t: window_attention(*t, *options)[0][:, :frames],
        lambda *t: plain_window_attention(*t, *options)[:, :frames],
        tensors,
        dtype,
    )


@TYPES
@pytest.mark.parametrize(
    "grid, kernel, dilations",
    [
        ((2, 3, 4), (3, 1, 3), (1, 1, 1)),
        pytest.param((1, 5, 4), (1, 3, 3), (1, 1, 1, 1, 2, 2), marks=SLOW),  # an image
        # more cells than a program takes; taps that never meet the clip
        pytest.param((2, 5, 7), (3, 3, 3), (2, 1, 3, 1, 2, 1), marks=SLOW),
    ],
)
def test_attention_in_dilated_windows(grid, kernel, dilations, dtype):
    options = kernel, dilations, 0.7
    agree(
        lambda qkv: dilated_attention(qkv, *options)[0],
        lambda qkv: plain_dilated_attention(qkv, *options),
        [numbers(1, *grid, 3, 2, 6)],
        dtype,
    )


@TYPES
@pytest.mark.parametrize("grid, axis, channels", [((2, 3, 4), 1, 5), ((1, 5, 4), 2, 6),
                                                  ((2, 2, 3), 3, 130)])  # fmt: skip
def test_shift_of_channels(grid, axis, channels, dtype):
    offsets = (torch.arange(channels, dtype=torch.int32) * 5) % 7 - 3
    agree(
        lambda x: shift_channels(x, offsets, axis),
        lambda x: plain_shift(x, offsets, axis),
        [numbers(2, *grid, channels)],
        dtype,
    )


@TYPES
@pytest.mark.parametrize("shape", [(2, 2, 3, 7), pytest.param((3, 5, 9, 8, 140), marks=SLOW)])
def test_norm_of_clips(shape, dtype):
    tensors = [3 + numbers(*shape), numbers(shape[-1]), numbers(shape[-1])]

    def twin(x, gain, offset):  # in fp64, where the twin's norm is fp32
        return plain_clip_norm(x, gain, offset, 1e-5).double()

    agree(lambda *t: clip_norm(*t, 1e-5)[0], twin, tensors, dtype)


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
    tensors = [numbers(1, 40, 1, 2, 12).permute(0, 1, 2, 4, 3), numbers(40, 1, 1, 3, 3)]
    first, second = (
        results(lambda x, w: depthwise_conv(x, w, None, (1, 1, 1), (0, 1, 1)), tensors)
        for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
