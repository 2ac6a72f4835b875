"""A candidate in a process of its own, which waits for its turn."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection

import torch

from videonet.benchmark.machine import PeakMemory, describe, product_rate, synchronize
from videonet.benchmark.steps import DTYPES, Subject, Task
from videonet.errors import VideonetError

logger = logging.getLogger(__name__)


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass(frozen=True)
class Turn:
    """Seconds per step in one turn: of wall-clock time, and of this process's CPU time."""

    wall: float
    cpu: float


class Worker:
    """Drives a process that holds one candidate; use it as a context manager.

    Every method raises :class:`VideonetError` with the error of that process.
    """

    def __init__(self, candidate: Subject, task: Task):
        self.candidate, self.task = candidate, task

    def __enter__(self) -> Worker:
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self.candidate, self.task))
        self._process.start()
        theirs.close()
        return self

    def __exit__(self, *_) -> None:
        self._pipe.close()
        self._process.join()

    def ready(self) -> dict:
        """Build, run once, and return parameters and peak memory of the first step."""
        return self._ask("ready")

    def turn(self, seconds: float) -> Turn:
        """As many steps as fit into `seconds`, but at least one."""
        return self._ask("turn", seconds)

    def rate(self, clock: str = "wall") -> float:
        """Matrix products: multiply-adds per second in the candidate's type."""
        return self._ask("rate", clock)

    def machine(self) -> dict:
        """What :func:`videonet.benchmark.machine.describe` says of the device."""
        return self._ask("machine")

    def _ask(self, what: str, *arguments):
        try:
            self._pipe.send((what, arguments))
            good, answer = self._pipe.recv()
        except (EOFError, BrokenPipeError) as error:
            self._process.join()
            raise VideonetError(
                f"{self.candidate.text}: its process died with code {self._process.exitcode}"
            ) from error
        if not good:
            raise VideonetError(f"{self.candidate.text}: {answer}")
        return answer


def _serve(pipe: Connection, candidate: Subject, task: Task) -> None:
    """Answer questions until the pipe closes."""
    torch.set_num_threads(task.threads)
    torch.manual_seed(0)
    bench = _Bench(candidate, task)
    while True:
        try:
            what, arguments = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((True, getattr(bench, what)(*arguments)))
        except Exception as error:  # told to the parent, which raises it
            logger.debug("%s failed", what, exc_info=True)
            pipe.send((False, f"{type(error).__name__}: {error}"))


class _Bench:
    def __init__(self, candidate: Subject, task: Task):
        self.candidate, self.task = candidate, task

    def ready(self) -> dict:
        memory = PeakMemory(self.task.device)
        model = self.candidate.build(self.task.frames, self.task.size).to(self.task.device)
        parameters = sum(p.numel() for p in model.parameters())
        self.step = self.candidate.step(model, self.task)
        memory.restart()
        self._run()
        return {"parameters": parameters, "memory": memory.peak()}

    def turn(self, seconds: float) -> Turn:
        starts, steps = {name: clock() for name, clock in CLOCKS.items()}, 0
        while steps == 0 or time.perf_counter() - starts["wall"] < seconds:
            self._run()
            steps += 1
        return Turn(**{name: (clock() - starts[name]) / steps for name, clock in CLOCKS.items()})

    def _run(self) -> None:
        with self.candidate.computing():
            self.step()
        synchronize(self.task.device)

    def rate(self, clock: str) -> float:
        return product_rate(self.task.device, DTYPES[self.candidate.dtype], CLOCKS[clock])

    def machine(self) -> dict:
        return describe(self.task.device)
