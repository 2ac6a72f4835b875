"""A candidate in a process of its own, which waits for its turn."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from videonet.benchmark.candidates import DTYPES, Candidate
from videonet.benchmark.machine import PeakMemory, describe, product_rate, synchronize
from videonet.errors import VideonetError

logger = logging.getLogger(__name__)


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass(frozen=True)
class Task:
    """What all candidates do.

    Attributes:
        training: forward, backward and AdamW, else a forward pass alone.
        batch, frames, size: of the clips (batch, 3, frames, size, size).
        device: "cpu" or "cuda".
        threads: of the CPU.
    """

    training: bool
    batch: int
    frames: int
    size: int
    device: str
    threads: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the clips; one frame is an image."""
        side = (self.size, self.size)
        return (self.batch, 3, *((self.frames,) if self.frames > 1 else ()), *side)


@dataclass(frozen=True)
class Turn:
    """Seconds per step in one turn: of wall-clock time, and of this process's CPU time."""

    wall: float
    cpu: float


class Worker:
    """Drives a process that holds one candidate; use it as a context manager.

    Every method raises :class:`VideonetError` with the error of that process.
    """

    def __init__(self, candidate: Candidate, task: Task):
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


def _serve(pipe: Connection, candidate: Candidate, task: Task) -> None:
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
    def __init__(self, candidate: Candidate, task: Task):
        self.candidate, self.task = candidate, task

    def ready(self) -> dict:
        memory = PeakMemory(self.task.device)
        model = self.candidate.build(self.task.frames, self.task.size).to(self.task.device)
        parameters = sum(p.numel() for p in model.parameters())
        prepare = training_step if self.task.training else inference_step
        self.step = prepare(model, self.candidate, self.task)
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


def _clip(task: Task) -> Tensor:
    return torch.randn(task.shape, device=task.device)


def inference_step(model: nn.Module, candidate: Candidate, task: Task) -> Callable[[], Tensor]:
    """A forward pass with weights and clip in the candidate's type."""
    dtype = DTYPES[candidate.dtype]
    model, clip = model.eval().to(dtype), _clip(task).to(dtype)
    forward = torch.compile(model) if candidate.compiled else model

    @torch.inference_mode()
    def step() -> Tensor:
        return forward(clip)

    return step


def training_step(model: nn.Module, candidate: Candidate, task: Task) -> Callable[[], object]:
    """Forward under autocast of the candidate's type, loss, backward, and AdamW in fp32."""
    dtype = DTYPES[candidate.dtype]
    model.train()
    forward = torch.compile(model) if candidate.compiled else model
    optimizer = torch.optim.AdamW(model.parameters())
    clip, labels = _clip(task), torch.zeros(task.batch, dtype=torch.long, device=task.device)

    def step() -> None:
        with torch.autocast(task.device, dtype, enabled=dtype != torch.float32):
            loss = F.cross_entropy(forward(clip).float(), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step
