"""Every family on one card beside the fastest peer that is installed, within minutes.

A family and its peer are a group: one process holds both and they take turns (A B A B). While a
group is measured, the process of the next one imports, builds and counts on the CPU.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from videonet.benchmark.candidates import Candidate, parse_candidate
from videonet.benchmark.machine import PeakMemory, describe, product_rate, synchronize
from videonet.benchmark.model import count
from videonet.benchmark.report import table
from videonet.benchmark.steps import DTYPES, Task, inference_step, training_step
from videonet.ops.kernels.replay import CudaGraphs

logger = logging.getLogger(__name__)

GROUPS = (  # the first of several is the peer that the others are compared with
    *("torchvision:mvit_v2_s,mvit_v2_s", "torchvision:swin3d_t,swin_t"),
    *("transformers:videomae_b,vit_b", "hiera:hiera_base_16x224,hiera_b", "mvit_v1_b"),
    *("hornet_t,hornet_gf_t", "cvt_13", "dilateformer_t", "asmlp_t", "cyclemlp_b2", "hrnet_w18"),
    "vjepa2_l",
)
HEADER = (
    *("model", "inference clips/s", "× first", "peak GB", "of rate", "one clip, ms"),
    *("with a graph, ms", "training clips/s", "× first", "peak GB"),
)


@dataclass
class Row:
    """What was measured of one candidate; NaN for what was not.

    Attributes:
        seconds: of a step in each round, by measure ("inference", "single", "graph", "training").
        memory: peak bytes of the first step above what was there before, by measure.
        multiply_adds: of a clip.
        skipped: why a measure is missing, by measure; "all" where the model could not be built.
    """

    candidate: str
    seconds: dict[str, list[float]] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)
    multiply_adds: float = float("nan")
    skipped: dict[str, str] = field(default_factory=dict)

    def time(self, measure: str) -> float:
        """Median seconds of a step."""
        return median(self.seconds[measure]) if measure in self.seconds else float("nan")


def run(args: argparse.Namespace) -> str:
    """Measure all groups while there is time, and return (and write) a Markdown table."""
    end = time.monotonic() + 60 * args.minutes
    task = Task(
        training=False,
        batch=args.batch,
        frames=args.frames,
        size=args.size,
        device=args.device,
        threads=args.threads or torch.get_num_threads(),
    )
    plan = Plan(task, args.train_batch, args.dtype, args.rounds, args.seconds)
    results = list(measure(args.groups or GROUPS, plan, end))
    text = report(results, plan)
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.with_suffix(".md").write_text(text + "\n", encoding="utf-8")
        numbers = {"plan": asdict(plan), "groups": [asdict(result) for result in results]}
        args.output.with_suffix(".json").write_text(json.dumps(numbers, indent=2) + "\n", "utf-8")
    return text


@dataclass(frozen=True)
class Plan:
    """What every group does.

    Attributes:
        task: of inference.
        train_batch: clips of a training step.
        dtype: of weights and clips in inference, of autocast in training.
        rounds: turns of each candidate.
        seconds: of a turn.
    """

    task: Task
    train_batch: int
    dtype: str
    rounds: int
    seconds: float


@dataclass
class Group:
    """What was measured of a group.

    Attributes:
        text: its candidates as they were given.
        rows: one per candidate.
        rate: multiply-adds per second of the largest matrix product.
        machine: names and versions.
        problem: why there are no rows.
    """

    text: str
    rows: list[Row] = field(default_factory=list)
    rate: float = float("nan")
    machine: dict[str, Any] = field(default_factory=dict)
    problem: str = ""


def measure(groups: Sequence[str], plan: Plan, end: float) -> Iterator[Group]:
    """The groups one after the other, each in a process of its own.

    Args:
        groups: candidates with commas between them.
        plan: see :class:`Plan`.
        end: of ``time.monotonic()``; groups that would begin later are left out.
    """
    for text in groups:
        for name in text.split(","):
            parse_candidate(name)  # a mistake is told before anything is measured
    context, pipes = get_context("spawn"), deque[tuple[SpawnProcess, Connection]]()
    for k, text in enumerate(groups):
        for name in groups[0 if k == 0 else k + 1 : k + 2]:  # the next one
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, name, plan), daemon=True)
            process.start()
            theirs.close()
            pipes.append((process, ours))
        process, pipe = pipes.popleft()
        if time.monotonic() > end:
            process.terminate()
            yield Group(text, problem="no time was left")
            continue
        try:
            pipe.send("go")
            yield pipe.recv()
        except (EOFError, BrokenPipeError):
            process.join()
            yield Group(text, problem=f"its process died with code {process.exitcode}")
        process.join()


def _serve(pipe: Connection, text: str, plan: Plan) -> None:
    """Build, wait for the word, measure, and send the group."""
    torch.set_num_threads(plan.task.threads)
    torch.manual_seed(0)
    built = [_build(name, plan) for name in text.split(",")]
    try:
        pipe.recv()
    except EOFError:  # the other side has ended
        return
    pipe.send(measure_group(text, built, plan))


Built = tuple[Row, Candidate, nn.Module | None]


def _build(text: str, plan: Plan) -> Built:
    """A candidate on the CPU, and its multiply-adds; None with a reason where that fails."""
    row, task = Row(text), plan.task
    parsed = parse_candidate(text)
    candidate = replace(parsed, dtype=plan.dtype)
    try:
        row.multiply_adds = count(candidate, replace(task, batch=1))
        return row, candidate, candidate.build(task.frames, task.size)
    except Exception as error:  # of another library, whatever it is
        row.skipped["all"] = _line(error)
        return row, candidate, None


def measure_group(text: str, built: Sequence[Built], plan: Plan) -> Group:
    """Let the candidates of a group take turns in each measure."""
    device = plan.task.device
    group = Group(text, [row for row, _, _ in built], machine=describe(device))
    group.rate = product_rate(device, DTYPES[plan.dtype])
    usable = [(row, candidate, model) for row, candidate, model in built if model is not None]
    single = replace(plan.task, batch=1)
    training = replace(plan.task, training=True, batch=plan.train_batch)
    measures: tuple[tuple[str, Task, Callable, bool], ...] = (
        ("inference", plan.task, inference_step, False),
        ("single", single, inference_step, True),
        ("graph", single, _graph_step, True),
        ("training", training, training_step, False),
    )
    for name, task, make, one_by_one in measures:
        if name == "graph" and device != "cuda":
            continue
        steps = []
        for row, candidate, model in usable:
            step = _first_step(row, name, candidate, model, task, make)
            if step is not None:
                steps.append((row, step))
        for _ in range(plan.rounds):
            for row, step in steps:
                spent = _turn(step, device, plan.seconds, one_by_one)
                row.seconds.setdefault(name, []).append(spent)
        steps.clear()  # the memory of this measure
    return group


def _first_step(
    row: Row, name: str, candidate: Candidate, model: nn.Module, task: Task, make: Callable
) -> Callable[[], object] | None:
    """A step that ran twice, with its peak of memory noted; None with a reason where it fails."""
    try:
        memory = PeakMemory(task.device)
        there = copy.deepcopy(model).to(task.device)
        step = make(there, candidate, task)
        memory.restart()
        for _ in range(2):  # the second one with the optimiser's moments
            step()
        synchronize(task.device)
        row.memory[name] = memory.peak()
        return step
    except Exception as error:  # of another library, or of memory; the others go on
        row.skipped[name] = _line(error)
        return None


def _graph_step(model: nn.Module, candidate: Candidate, task: Task) -> Callable[[], object]:
    """The inference step as a CUDA graph."""
    step, device = inference_step(model, candidate, task), torch.device(task.device)
    step()

    def run(_: Tensor) -> tuple[Tensor, ...]:
        return (step(),)

    nothing = torch.empty(0, device=device)  # the step has its own clips
    graph = CudaGraphs(device)(run, nothing)
    return lambda: graph(nothing)


def _turn(step: Callable[[], object], device: str, seconds: float, one_by_one: bool) -> float:
    """Seconds per step.

    Args:
        step: is called, at least twice.
        device: that it computes on.
        seconds: of the turn.
        one_by_one: wait for the device after every step, else only at the end.
    """
    synchronize(device)
    start = time.perf_counter()
    step()
    synchronize(device)
    first = time.perf_counter() - start
    steps = max(1, min(1000, round((seconds - first) / max(first, 1e-6))))
    start = time.perf_counter()
    for _ in range(steps):
        step()
        if one_by_one:
            synchronize(device)
    synchronize(device)
    return (time.perf_counter() - start) / steps


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def report(groups: Sequence[Group], plan: Plan) -> str:
    """A Markdown table of all candidates, the card and versions, and what is missing and why."""
    task, rows, missing = plan.task, [], []
    for group in groups:
        if group.problem:
            missing.append(f"{group.text}: {group.problem}")
            continue
        measured = [row for row in group.rows if "all" not in row.skipped]
        rows += [_cells(row, measured[0], group, plan) for row in measured]
        missing += [
            f"{row.candidate}{'' if name == 'all' else f', {name}'}: {why}"
            for row in group.rows
            for name, why in row.skipped.items()
        ]
    facts = next((g.machine for g in groups if g.machine), {})
    rates = [g.rate for g in groups if g.rate == g.rate]
    parts = [
        f"{task.frames}×{task.size}² clips, {plan.dtype}; inference in batches of {task.batch}, "
        f"training (autocast, AdamW) of {plan.train_batch}; medians of {plan.rounds} turns.",
        table(HEADER, rows),
        ", ".join(f"{name} {value}" for name, value in facts.items())
        + (f"; matrix products {median(rates) / 1e9:.0f} Gmadd/s" if rates else ""),
    ]
    if missing:
        parts.append("Left out:\n\n" + "\n".join(f"- {line}" for line in missing))
    return "\n\n".join(parts)


def _cells(row: Row, first: Row, group: Group, plan: Plan) -> tuple[str, ...]:
    rate = plan.task.batch / row.time("inference")
    return (
        row.candidate,
        _number(rate, ".1f"),
        _ratio(row, first, "inference"),
        _number(row.memory.get("inference", float("nan")) / 1e9, ".2f"),
        _number(100 * row.multiply_adds * rate / group.rate, ".0f", " %"),
        _number(1e3 * row.time("single"), ".2f"),
        _number(1e3 * row.time("graph"), ".2f"),
        _number(plan.train_batch / row.time("training"), ".1f"),
        _ratio(row, first, "training"),
        _number(row.memory.get("training", float("nan")) / 1e9, ".2f"),
    )


def _ratio(row: Row, first: Row, measure: str) -> str:
    """How many times as fast as the first one: the median over rounds."""
    if row is first or measure not in row.seconds or measure not in first.seconds:
        return "–"
    pairs = zip(first.seconds[measure], row.seconds[measure], strict=True)
    return f"{median(a / b for a, b in pairs):.2f}"


def _number(value: float, form: str, unit: str = "") -> str:
    return f"{value:{form}}{unit}" if value == value else "–"
