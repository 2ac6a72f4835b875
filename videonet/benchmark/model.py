"""Models side by side: clips per second, memory, and the share of the machine's arithmetic.

Each candidate has a process of its own, and they take turns (A B A B), so that other load on the
machine affects all of them alike. Ratios are medians over the rounds of ratios within a round.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from statistics import median

import torch

from videonet.benchmark.candidates import Candidate, parse_candidate
from videonet.benchmark.flops import multiply_adds, written_out_attention
from videonet.benchmark.report import plot_models, table
from videonet.benchmark.steps import Task
from videonet.benchmark.worker import Turn, Worker
from videonet.errors import ConfigError

logger = logging.getLogger(__name__)

MODES = ("inference", "training")


def run(args: argparse.Namespace) -> str:
    """Measure, write the files asked for, and return the report as text."""
    if args.clock == "cpu" and (args.threads != 1 or args.device != "cpu"):
        raise ConfigError("--clock cpu counts the time of all threads: give --threads 1")
    candidates = [parse_candidate(text) for text in args.candidates]
    args.threads = args.threads or torch.get_num_threads()
    results = {"clock": args.clock, "modes": {}}
    for mode in MODES if args.mode == "both" else (args.mode,):
        training = mode == "training"
        task = Task(
            training=training,
            batch=args.train_batch if training else args.batch,
            frames=args.frames,
            size=args.size,
            device=args.device,
            threads=args.threads,
        )
        results["modes"][mode] = compare(candidates, task, args.rounds, args.seconds, args.clock)
    if args.output:
        write(results, args.output)
    return report(results)


def write(results: dict, prefix: Path) -> None:
    """The numbers as JSON and as a picture."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(results, indent=2)
    prefix.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
    plot_models(results, prefix.with_suffix(".png"))


def compare(
    candidates: Sequence[Candidate], task: Task, rounds: int, seconds: float, clock: str = "wall"
) -> dict:
    """Let the candidates take turns.

    Returns:
        The task, the machine, and under "candidates" one dictionary each: ``clips_per_second``,
        ``times_first`` (speed relative to the first), ``memory`` and ``parameters`` in bytes and
        numbers, ``multiply_adds`` of a step, ``rate`` of the machine's matrix product in the same
        type, the ``share`` of it, and the seconds of every turn.
    """
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(c, task)) for c in candidates]
        facts = []
        for worker in workers:  # one at a time, so that peaks of memory do not coincide
            facts.append(worker.ready())
            logger.info("%s is ready", worker.candidate.text)
        turns: list[list[Turn]] = [[] for _ in workers]
        rates: list[list[float]] = [[] for _ in workers]
        for number in range(rounds):
            for worker, times, rate in zip(workers, turns, rates, strict=True):
                rate.append(worker.rate(clock))
                times.append(worker.turn(seconds))
                logger.info(
                    "round %d: %s %.3f s", number + 1, worker.candidate.text, times[-1].wall
                )
        machine = workers[0].machine()
    first = [getattr(t, clock) for t in turns[0]]
    rows = []
    for candidate, fact, times, rate in zip(candidates, facts, turns, rates, strict=True):
        spent = [getattr(t, clock) for t in times]
        row = {"candidate": candidate.text, **fact}
        row["clips_per_second"] = task.batch / median(spent)
        row["times_first"] = median(a / b for a, b in zip(first, spent, strict=True))
        row["multiply_adds"] = count(candidate, task)
        row["rate"] = median(rate)
        row["share"] = row["multiply_adds"] / median(spent) / row["rate"]
        row["turns"] = [asdict(t) for t in times]
        rows.append(row)
    return {"task": asdict(task), "machine": machine, "candidates": rows}


def count(candidate: Candidate, task: Task) -> int:
    """Multiply-adds of one step, counted as in papers.

    The attention of videonet's models counts with its matrix of logits, however it is computed.
    """
    model = candidate.build(task.frames, task.size)
    with written_out_attention():
        return multiply_adds(model, task.shape, training=task.training)


def report(results: dict) -> str:
    """The table of each mode, and the machine."""
    parts = []
    for mode, result in results["modes"].items():
        task, rows = result["task"], result["candidates"]
        shape = f"{task['frames']}×{task['size']}²"
        parts.append(f"{mode}, batch {task['batch']} of {shape}, {task['device']}")
        parts.append(
            table(
                ("candidate", "clips/s", "× first", "peak MB", "% of first", "Gmadd/clip",
                 "Gmadd/s", "of rate"),
                [
                    (
                        row["candidate"],
                        f"{row['clips_per_second']:.2f}",
                        f"{row['times_first']:.2f}",
                        f"{row['memory'] / 1e6:.0f}",
                        f"{100 * row['memory'] / rows[0]['memory']:.0f}",
                        f"{row['multiply_adds'] / task['batch'] / 1e9:.1f}",
                        f"{row['share'] * row['rate'] / 1e9:.0f}",
                        f"{100 * row['share']:.0f} %",
                    )
                    for row in rows
                ],
            )
        )  # fmt: skip
        facts = ", ".join(f"{k} {v}" for k, v in result["machine"].items())
        parts.append(f"{facts}; matrix products: " + ", ".join(sorted(
            {f"{_dtype(row)} {row['rate'] / 1e9:.0f} Gmadd/s" for row in rows}
        )))  # fmt: skip
    return "\n\n".join(parts)


def _dtype(row: dict) -> str:
    return parse_candidate(row["candidate"]).dtype
