"""How time and memory grow with the clip: longer at one size, and larger at one length."""

from __future__ import annotations

import argparse
import json
import logging
import math
from collections.abc import Sequence
from dataclasses import asdict
from statistics import median

import torch

from videonet.benchmark.candidates import Candidate, parse_candidate
from videonet.benchmark.model import count
from videonet.benchmark.report import plot_scaling, table
from videonet.benchmark.steps import Task
from videonet.benchmark.worker import Worker
from videonet.errors import VideonetError

logger = logging.getLogger(__name__)


def run(args: argparse.Namespace) -> str:
    """Measure, write the files asked for, and return the report as text."""
    args.threads = args.threads or torch.get_num_threads()
    sweeps = {
        "frames": [(frames, args.size) for frames in args.all_frames],
        "size": [(args.frames, size) for size in args.all_sizes],
    }
    result = {"clock": args.clock, "candidates": {}}
    for candidate in map(parse_candidate, args.candidates):
        measured = {}  # a clip that both sweeps share is measured once
        for frames, size in dict.fromkeys(sum(sweeps.values(), [])):
            task = Task(args.training, 1, frames, size, args.device, args.threads)
            measured[frames, size] = measure(candidate, task, args.rounds, args.seconds, args.clock)
        result["candidates"][candidate.text] = {
            sweep: [measured[clip] for clip in clips] for sweep, clips in sweeps.items()
        }
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(result, indent=2)
        args.output.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
        plot_scaling(result, args.output.with_suffix(".png"))
    return report(result)


def measure(
    candidate: Candidate, task: Task, rounds: int, seconds: float, clock: str = "wall"
) -> dict:
    """Seconds per clip, peak memory and multiply-adds of one clip, or the error that stopped it."""
    point = {"frames": task.frames, "size": task.size, "task": asdict(task)}
    try:
        with Worker(candidate, task) as worker:
            point |= worker.ready()
            turns = [worker.turn(seconds) for _ in range(rounds)]
        point["seconds"] = median(getattr(t, clock) for t in turns)
        point["multiply_adds"] = count(candidate, task)
        logger.info("%s %d×%d²: %.3f s", candidate.text, task.frames, task.size, point["seconds"])
    except VideonetError as error:  # a peer may refuse a size, or run out of memory
        logger.warning("%s", error)
        point["error"] = str(error)
    return point


def exponent(points: Sequence[dict], quantity: str) -> float:
    """Slope of `quantity` over the multiply-adds, both as logarithms: 1 is proportional."""
    xs = [math.log(p["multiply_adds"]) for p in points if quantity in p]
    ys = [math.log(p[quantity]) for p in points if quantity in p]
    if len(xs) < 2:
        return math.nan
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    covariance = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True))
    return covariance / sum((x - mean_x) ** 2 for x in xs)


def report(result: dict) -> str:
    """One table per model, and how time and memory grow with the multiply-adds."""
    parts = []
    for name, sweeps in result["candidates"].items():
        for sweep, points in sweeps.items():
            rows = [
                (
                    f"{p['frames']}×{p['size']}²",
                    *(
                        (p["error"], "", "", "")
                        if "error" in p
                        else (
                            f"{p['multiply_adds'] / 1e9:.1f}",
                            f"{p['seconds']:.3f}",
                            f"{p['multiply_adds'] / p['seconds'] / 1e9:.0f}",
                            f"{p['memory'] / 1e6:.0f}",
                        )
                    ),
                )
                for p in points
            ]
            parts.append(f"{name}, {sweep}")
            parts.append(table(("clip", "Gmadd", "s/clip", "Gmadd/s", "peak MB"), rows))
            parts.append(
                f"over multiply-adds, time grows to the power {exponent(points, 'seconds'):.2f}, "
                f"memory to the power {exponent(points, 'memory'):.2f}"
            )
    return "\n\n".join(parts)
