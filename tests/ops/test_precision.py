"""Every operator in every type, alone and under autocast, against the same function in float64.

CUDA's autocast makes layer norms and softmaxes float32, so that operators meet mixed types there;
under the CPU's autocast they meet them here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from videonet.ops.attention import attention
from videonet.ops.chunked_attention import chunked_attention
from videonet.ops.clip_norm import ClipNorm
from videonet.ops.conv import FastConv3d, TokenConv
from videonet.ops.conv_attention import ConvAttention
from videonet.ops.depthwise import depthwise_conv
from videonet.ops.dilated_attention import MultiScaleDilatedAttention
from videonet.ops.gated_conv import RecursiveGatedConv
from videonet.ops.global_filter import GlobalLocalFilter
from videonet.ops.layer_scale import LayerScale
from videonet.ops.linear import fast_linear
from videonet.ops.mlp import Mlp
from videonet.ops.pooling import avg_pool, conv_pool, max_pool
from videonet.ops.pooling_attention import PoolingAttention
from videonet.ops.precision import autocast_inputs
from videonet.ops.relative_position import position_rows
from videonet.ops.self_attention import SelfAttention
from videonet.ops.shift import WIDTH, CycleFC
from videonet.ops.sliding_window import sliding_window_attention
from videonet.ops.window_attention import StageWindows, WindowAttention
from videonet.ops.windows import Windows, relative_rows

GRID = (2, 4, 4)
TOKENS = (2, 32, 8)  # (B, T*H*W, C)
CELLS = (2, *GRID, 8)  # (B, T, H, W, C)
VOLUME = (2, 8, *GRID)  # (B, C, T, H, W)
HEADS = (2, 2, 32, 8)  # (B, heads, T*H*W, D)
TABLES = ((3, 8), (7, 8), (7, 8))
WINDOWS = Windows(GRID, (2, 2, 2), (0, 1, 1))

# Largest error of values and gradients, in units of the largest expected value.
TOLERANCES = {
    torch.float64: 1e-9,
    torch.float32: 5e-5,
    torch.bfloat16: 8e-2,  # where two cells round alike, a maximum's gradient may change its cell
    torch.float16: 2e-2,
}
HALVES = (torch.bfloat16, torch.float16)


class Operator(NamedTuple):
    """A function of tensors, of which the first `activations` are not weights.

    `plain` is the same function of torch's operators alone; None where `run` is that in float64.
    """

    run: Callable[..., Tensor]
    shapes: tuple[tuple[int, ...], ...]
    activations: int = 1
    plain: Callable[..., Tensor] | None = None


def of_module(module: nn.Module, shape: tuple[int, ...], *arguments) -> Operator:
    """A module as a function of its input and its parameters; batch norms normalise the batch."""
    names = [name for name, _ in module.named_parameters()]
    shapes = tuple(tuple(p.shape) for p in module.parameters())

    def run(x: Tensor, *weights: Tensor) -> Tensor:
        given = [a(x) if callable(a) else a for a in arguments]
        state = dict(zip(names, weights, strict=True))
        state |= {n: b.to(weights[0].dtype) for n, b in module.named_buffers() if b.dim()}
        y = torch.func.functional_call(module, state, (x, *given))
        return y[0] if isinstance(y, tuple) else y

    return Operator(run, (shape, *shapes))


def rows_written_out(q: Tensor, *tables: Tensor) -> Tensor:
    """``q(t, h, w) . R_axis[distance]`` for every coordinate of the keys, one at a time."""
    cells, columns = q.unflatten(2, GRID), []  # (B, heads, T, H, W, D)
    for axis, (size, table) in enumerate(zip(GRID, tables, strict=True)):
        for key in range(size):
            shape = [1] * 5 + [q.shape[-1]]
            shape[2 + axis] = size
            vectors = table[torch.arange(size) - key + size - 1].reshape(shape)
            columns.append((cells * vectors).sum(-1))
    return torch.stack(columns, dim=-1).flatten(2, 4)


def attend(q: Tensor, k: Tensor, v: Tensor, *tables: Tensor) -> Tensor:
    return attention(q, k, v, q_grid=GRID, k_grid=GRID, tables=tables)


def attend_written_out(q: Tensor, k: Tensor, v: Tensor, *tables: Tensor) -> Tensor:
    t, h, w = rows_written_out(q, *tables).split(GRID, dim=-1)
    bias = t[..., :, None, None] + h[..., None, :, None] + w[..., None, None, :]
    logits = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5 + bias.flatten(3)
    return logits.softmax(dim=-1) @ v


def conv3d(stride):
    return lambda x, w, b: torch.nn.functional.conv3d(x, w, b, stride, 1, groups=x.shape[1])


def chunked(q: Tensor, k: Tensor, v: Tensor, rows: Tensor) -> Tensor:
    columns = torch.eye(8, dtype=k.dtype).repeat(4, 1).expand(q.shape[0], -1, -1)
    if torch.backends.cpu.get_cpu_capability() == "AVX512" and k.dtype in (
        torch.float32,
        torch.bfloat16,
    ):
        return chunked_attention(*autocast_inputs(q, k, v, rows, columns))
    return chunked_written_out(q, k, v, rows)


def chunked_written_out(q: Tensor, k: Tensor, v: Tensor, rows: Tensor) -> Tensor:
    columns = torch.eye(8, dtype=k.dtype).repeat(4, 1)
    return (q @ k.transpose(-2, -1) + rows @ columns.t()).softmax(dim=-1) @ v


def window_plan(x: Tensor) -> StageWindows:
    return StageWindows.of(WINDOWS, relative_rows(8, WINDOWS.size, WINDOWS.size), x)


def pooling_attention(**arguments) -> PoolingAttention:
    kernels = {f"{n}_kernel": (3, 3, 3) for n in ("q", "kv")}
    strides = {"q_stride": (1, 1, 1), "kv_stride": (1, 2, 2)}
    return PoolingAttention(8, 8, 2, GRID, cls_token=False, **kernels, **strides, **arguments)


WEIGHT = (8, 1, 3, 3, 3)
DENSE = (12, 8), (12,)
OPERATORS = {
    "position_rows": Operator(
        lambda q, *tables: position_rows(q, GRID, GRID, tables),
        (HEADS, *TABLES),
        1,
        rows_written_out,
    ),
    "attention": Operator(attend, (HEADS,) * 3 + TABLES, 3, attend_written_out),
    "chunked_attention": Operator(chunked, (HEADS,) * 4, 4, chunked_written_out),
    "linear": Operator(fast_linear, (TOKENS, *DENSE)),
    "mlp": of_module(Mlp(8, 32, 12), TOKENS),
    "depthwise": Operator(
        lambda x, w, b: depthwise_conv(x, w, b, (1, 1, 1), (1, 1, 1)),
        (VOLUME, WEIGHT, (8,)),
        1,
        conv3d(1),
    ),
    "depthwise_strided": Operator(
        lambda x, w, b: depthwise_conv(x, w, b, (1, 2, 2), (1, 1, 1)),
        (VOLUME, WEIGHT, (8,)),
        1,
        conv3d((1, 2, 2)),
    ),
    "conv_pool": Operator(
        lambda x, w: conv_pool(x, GRID, w, (1, 2, 2))[0], (TOKENS, (4, 1, 3, 3, 3))
    ),
    "max_pool": Operator(lambda x: max_pool(x, GRID, (3, 3, 3), (1, 2, 2))[0], (TOKENS,)),
    "avg_pool": Operator(lambda x: avg_pool(x, GRID, (3, 3, 3), (1, 2, 2))[0], (TOKENS,)),
    "conv": of_module(FastConv3d(8, 6, 3, padding=1), VOLUME),
    "conv_of_one_clip": of_module(FastConv3d(8, 6, 3, padding=1), (1, *VOLUME[1:])),
    "token_conv": of_module(TokenConv(8, 6, 3, padding=1), CELLS),
    "token_linear": of_module(TokenConv(8, 6, 1), CELLS),
    "cycle_fc": of_module(CycleFC(8, 6, 3, WIDTH), CELLS),
    "clip_norm": of_module(ClipNorm(8), CELLS),
    "layer_scale": of_module(LayerScale(8, 1.0), TOKENS),
    "global_filter": of_module(GlobalLocalFilter(8, (2, 4, 3), 3), CELLS),
    "gated_conv": of_module(RecursiveGatedConv(8, 2, 1.0, 3), CELLS),
    "sliding_window": Operator(
        lambda *qkv: sliding_window_attention(
            *qkv, kernel=(3, 3, 3), dilation=(1, 1, 1), scale=0.5
        ),
        ((2, *GRID, 2, 4),) * 3,
        3,
    ),
    "dilated_attention": of_module(
        MultiScaleDilatedAttention(8, 2, (3, 3, 3), [(1, 1, 1), (1, 2, 2)]), CELLS
    ),
    "self_attention": of_module(SelfAttention(8, 2, qk_norm=True), TOKENS, GRID),
    "window_attention": of_module(WindowAttention(8, 2, WINDOWS.size), CELLS, window_plan),
    "pooling_attention": of_module(pooling_attention(), TOKENS, GRID),
    "pooling_attention_max": of_module(pooling_attention(pool_mode="max"), TOKENS, GRID),
    "pooling_attention_avg": of_module(pooling_attention(pool_mode="avg"), TOKENS, GRID),
    "conv_attention": of_module(
        ConvAttention(8, 2, kernel=(3, 3, 3), kv_stride=(1, 2, 2), kv_padding=(1, 1, 1)).eval(),
        TOKENS,
        GRID,
    ),
}


def tensors_of(operator: Operator, dtypes: list[torch.dtype]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    tensors = []
    for i, (shape, dtype) in enumerate(zip(operator.shapes, dtypes, strict=True)):
        x = torch.randn(shape, generator=generator, dtype=torch.float64)
        x = x if i < operator.activations else 0.5 * x
        tensors.append(x.to(dtype).requires_grad_())
    return tensors


def value_and_gradients(run: Callable[..., Tensor], tensors: list[Tensor]) -> list[Tensor]:
    y = run(*tensors)
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(y.shape, generator=generator, dtype=torch.float64)
    return [y.detach(), *torch.autograd.grad((y * weights.to(y.dtype)).sum(), tensors)]


def kinds(activations: int) -> Iterator[tuple]:
    """(types of the activations in turn, type of the weights, type of autocast)."""
    full = torch.float32
    yield from (((dtype,), dtype, None) for dtype in TOLERANCES)
    yield (torch.float64,), torch.float64, torch.bfloat16  # autocast leaves it alone
    for half in HALVES:
        yield from (((full,), full, half), ((half,), full, half), ((half,), half, half))
        if activations > 1:
            yield from (((full, half), full, half), ((half, full), full, half))


def label(value) -> str:
    names = value if isinstance(value, tuple) else (value,)
    return "-".join(str(name).removeprefix("torch.") for name in names)


WITH_KERNELS = ("attention", "linear", "mlp", "depthwise", "conv_pool", "_of_one_clip")
CASES = [
    (name, *kind, kernels)
    for name, operator in OPERATORS.items()
    for kind in kinds(operator.activations)
    for kernels in (False, True)
    if not kernels or any(part in name for part in WITH_KERNELS)
]


@pytest.mark.parametrize("name, activations, weights, autocast, kernels", CASES, ids=label)
def test_values_and_gradients_are_those_of_double_precision(
    name, activations, weights, autocast, kernels, request
):
    if kernels:
        request.getfixturevalue("small_pieces")
    operator = OPERATORS[name]
    dtypes = [activations[i % len(activations)] for i in range(operator.activations)]
    dtypes += [weights] * (len(operator.shapes) - operator.activations)
    tensors = tensors_of(operator, dtypes)
    exact = [x.detach().double().requires_grad_() for x in tensors]
    expected = value_and_gradients(operator.plain or operator.run, exact)
    context = nullcontext() if autocast is None else torch.autocast("cpu", autocast)
    with context:
        y = operator.run(*tensors)
    found = value_and_gradients(lambda *_: y, tensors)
    assert [g.dtype for g in found[1:]] == dtypes
    coarsest = max(TOLERANCES[t] for t in (*dtypes, found[0].dtype, autocast) if t is not None)
    least = 0.05 * max(e.abs().max() for e in expected)  # some gradients cancel to nothing
    for what, f, e in zip(("the value", *operator.shapes), found, expected, strict=True):
        error = (f.double() - e).abs().max() / e.abs().max().clamp_min(least)
        assert error <= coarsest, f"{what}: {error:.1e}"
