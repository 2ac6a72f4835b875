"""Operators and families in every precision and under every kind of differentiation.

    python -m tests.precision_table [--rows mlp mvit ...] [--columns fp32 ...] [--output FILE]

prints a table (Markdown) of errors: the largest one of values and gradients, relative to the
value's or gradient's norm, against the same in float64. On every CPU the fast paths are taken.
"""

from __future__ import annotations

import argparse
import socket
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from tests.fast_paths import force_fast_paths
from tests.models.families import ARCHITECTURES, small_model, smallest_of
from tests.models.invariants import randomise
from tests.ops.test_precision import OPERATORS, Operator, of_module

BATCH = 2


def of_family(pattern: str) -> Operator:
    """A family's smallest model as a function of clips and of its parameters."""
    model = randomise(small_model(smallest_of(pattern)))
    return of_module(model, (BATCH, 3, 4, 64, 64))


ROWS: dict[str, Callable[[], Operator]] = {
    **{name: partial(OPERATORS.get, name) for name in OPERATORS},
    **{pattern.removesuffix("_*"): partial(of_family, pattern) for pattern in ARCHITECTURES},
}


def draw(operator: Operator, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Activations and weights, the weights as large as layers start with."""
    generator = torch.Generator().manual_seed(0)
    tensors = []
    for i, shape in enumerate(operator.shapes):
        x = torch.randn(shape, generator=generator, dtype=torch.float64)
        if i >= operator.activations:
            x = 1 + 0.2 * x if len(shape) == 1 else x / max(x[0].numel(), 1) ** 0.5
        tensors.append(x.to(dtype).requires_grad_())
    return tensors


def exact(operator: Operator, tensors: Sequence[Tensor]) -> tuple[Callable, list[Tensor]]:
    """The plain function, and the tensors in float64."""
    return operator.plain or operator.run, [x.detach().double().requires_grad_() for x in tensors]


def loss(y: Tensor) -> Tensor:
    """A sum with fixed weights, in at least single precision."""
    y = y.to(torch.promote_types(y.dtype, torch.float32))
    generator = torch.Generator().manual_seed(1)
    return (y * torch.randn(y.shape, generator=generator, dtype=torch.float64).to(y.dtype)).sum()


def gradients(run: Callable[..., Tensor], tensors: Sequence[Tensor]) -> list[Tensor]:
    y = run(*tensors)
    found = torch.autograd.grad(loss(y), tensors, allow_unused=True)
    none = [torch.zeros_like(x) if g is None else g for g, x in zip(found, tensors, strict=True)]
    return [y.detach(), *none]


def error(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest error of a tensor by Euclid's norm, relative to its own or to a tenth of the
    largest one: gradients that cancel consist of roundings alone."""
    least = 0.1 * max(e.norm().item() for e in expected[1:] or expected)
    worst = 0.0
    for f, e in zip(found, expected, strict=True):
        worst = max(worst, (f.double() - e.double()).norm().item() / max(e.norm().item(), least))
    return worst


def in_type(operator: Operator, dtype: torch.dtype) -> float:
    tensors = draw(operator, dtype)
    return error(gradients(operator.run, tensors), gradients(*exact(operator, tensors)))


def under_autocast(operator: Operator, dtype: torch.dtype) -> float:
    tensors = draw(operator)
    scaler = torch.amp.GradScaler("cpu", enabled=dtype is torch.float16, init_scale=1024.0)
    sgd = torch.optim.SGD(tensors, lr=0.0)
    for _ in range(12):  # the scale halves where a gradient overflows
        sgd.zero_grad()
        with torch.autocast("cpu", dtype):
            y = operator.run(*tensors)
        scaler.scale(loss(y)).backward()
        scaler.unscale_(sgd)
        found = [torch.zeros_like(x) if x.grad is None else x.grad for x in tensors]
        if all(g.isfinite().all() for g in found):
            break
        scaler.step(sgd)
        scaler.update()
    return error([y.detach(), *found], gradients(*exact(operator, tensors)))


def recomputed(operator: Operator) -> float:
    tensors = draw(operator)
    run = partial(checkpoint, operator.run, use_reentrant=False)
    return error(gradients(run, tensors), gradients(*exact(operator, tensors)))


class Holder(nn.Module):
    """An operator's weights as a module's."""

    def __init__(self, operator: Operator, weights: Sequence[Tensor]):
        super().__init__()
        self.run = operator.run
        self.weights = nn.ParameterList(w.detach() for w in weights)

    def forward(self, *activations: Tensor) -> Tensor:
        return self.run(*activations, *self.weights)


def in_ddp(operator: Operator) -> float:
    """Of one process: the wrapper, its hooks and its buckets."""
    tensors, n = draw(operator), operator.activations
    if len(tensors) == n:
        return in_type(operator, torch.float32)  # no weights to be reduced
    if not dist.is_initialized():
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        address = f"tcp://127.0.0.1:{port}"
        dist.init_process_group("gloo", init_method=address, rank=0, world_size=1)
    module = DistributedDataParallel(
        Holder(operator, tensors[n:]), find_unused_parameters=True, gradient_as_bucket_view=True
    )
    y = module(*tensors[:n])
    loss(y).backward()
    found = [x.grad for x in (*tensors[:n], *module.module.weights)]
    return error([y.detach(), *found], gradients(*exact(operator, tensors)))


def per_sample(operator: Operator) -> float:
    tensors, n = draw(operator), operator.activations
    batch = tensors[0].shape[0]

    def of_one(*given: Tensor) -> Tensor:
        return operator.run(*(x[None] for x in given[:n]), *given[n:]).square().sum()

    places = tuple(range(len(tensors)))
    found = torch.func.vmap(
        torch.func.grad(of_one, places), (0,) * n + (None,) * (len(places) - n)
    )(*(x.detach() for x in tensors))
    run, doubles = exact(operator, tensors)
    worst = 0.0
    for i in range(batch):
        given = [x[i : i + 1] for x in doubles[:n]] + doubles[n:]
        wanted = torch.autograd.grad(run(*given).square().sum(), given, allow_unused=True)
        wanted = [
            torch.zeros_like(x) if g is None else g for g, x in zip(wanted, given, strict=True)
        ]
        ours = [f[i][None] if k < n else f[i] for k, f in enumerate(found)]
        worst = max(worst, error(ours, wanted))
    return worst


def along_a_direction(operator: Operator) -> float:
    """``<w, J v>`` of forward mode is ``<w J, v>`` of backward mode."""
    tensors = [x.detach() for x in draw(operator)]
    generator = torch.Generator().manual_seed(2)
    direction = [torch.randn(x.shape, generator=generator) * x.abs().mean() for x in tensors]
    _, slope = torch.func.jvp(operator.run, tuple(tensors), tuple(direction))
    run, doubles = exact(operator, tensors)
    parts = [
        (g * v.double()).sum() for g, v in zip(gradients(run, doubles)[1:], direction, strict=True)
    ]
    scale = sum(p.abs() for p in parts)
    return ((loss(slope).double() - sum(parts)).abs() / scale).item()


def compiled(operator: Operator) -> float:
    torch.compiler.reset()
    tensors = draw(operator)
    run = torch.compile(operator.run, backend="inductor")
    return error(gradients(run, tensors), gradients(*exact(operator, tensors)))


def twice(operator: Operator) -> float:
    """The gradient of a penalty on the gradient."""

    def penalty(run: Callable[..., Tensor], tensors: list[Tensor]) -> list[Tensor]:
        first = torch.autograd.grad(
            loss(run(*tensors).square()), tensors, create_graph=True, allow_unused=True
        )
        total = sum(g.square().sum() for g in first if g is not None)
        second = torch.autograd.grad(total, tensors, allow_unused=True)
        return [
            torch.zeros_like(x) if g is None else g for g, x in zip(second, tensors, strict=True)
        ]

    tensors = draw(operator)
    return error(penalty(operator.run, tensors), penalty(*exact(operator, tensors)))


# What is done, and the largest error that is right.
COLUMNS: dict[str, tuple[Callable[[Operator], float], float]] = {
    "fp32": (partial(in_type, dtype=torch.float32), 1e-3),
    "autocast bf16": (partial(under_autocast, dtype=torch.bfloat16), 0.3),
    "autocast fp16 + scaler": (partial(under_autocast, dtype=torch.float16), 0.1),
    "weights fp64": (partial(in_type, dtype=torch.float64), 1e-6),
    "weights bf16": (partial(in_type, dtype=torch.bfloat16), 0.3),
    "weights fp16": (partial(in_type, dtype=torch.float16), 0.1),
    "recompute": (recomputed, 1e-3),
    "DDP": (in_ddp, 1e-3),
    "vmap(grad)": (per_sample, 1e-3),
    "jvp": (along_a_direction, 1e-3),
    "inductor": (compiled, 1e-3),
    "double backward": (twice, 1e-2),
}


def cell(row: str, column: str) -> float | str:
    """The error, or what went wrong in a word."""
    function, _ = COLUMNS[column]
    try:
        return function(ROWS[row]())
    except Exception as problem:  # a table says what crashes
        first = (str(problem).strip().splitlines() or [""])[0]
        return f"crash: {type(problem).__name__}: {first[:80]}"


def table(rows: Sequence[str], columns: Sequence[str]) -> dict[tuple[str, str], float | str]:
    """All cells, computed with the fast paths; a line per row goes to stderr as it is done."""
    cells = {}
    with pytest.MonkeyPatch.context() as monkeypatch:
        force_fast_paths(monkeypatch)
        for row in rows:
            cells |= {(row, column): cell(row, column) for column in columns}
            print(row, *(shown(cells[row, c]) for c in columns), file=sys.stderr, flush=True)
    return cells


def shown(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.0e}"


def markdown(cells: dict, rows: Sequence[str], columns: Sequence[str]) -> str:
    lines = [f"| | {' | '.join(columns)} |", f"|---|{'---:|' * len(columns)}"]
    lines += [f"| {row} | {' | '.join(shown(cells[row, c]) for c in columns)} |" for row in rows]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="errors in every precision, as a table")
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=ROWS, metavar="ROW")
    parser.add_argument("--columns", nargs="+", default=list(COLUMNS), choices=COLUMNS)
    parser.add_argument("--output", type=Path, help="a file for the table, besides the screen")
    arguments = parser.parse_args()
    text = markdown(table(arguments.rows, arguments.columns), arguments.rows, arguments.columns)
    print(text)
    if arguments.output is not None:
        arguments.output.write_text(text)


if __name__ == "__main__":
    main()
