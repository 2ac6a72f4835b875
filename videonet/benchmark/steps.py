"""What a benchmark repeats: a forward pass, or a step of training."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


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


class Subject(Protocol):
    """Whatever can be measured beside others."""

    @property
    def text(self) -> str:
        """Its name in tables."""

    @property
    def dtype(self) -> str:
        """A name of :data:`DTYPES`."""

    def build(self, frames: int, size: int) -> nn.Module:
        """The model with random weights."""

    def step(self, model: nn.Module, task: Task) -> Callable[[], object]:
        """What is repeated."""

    def computing(self) -> AbstractContextManager:
        """The context in which its passes run."""


class Computed(Protocol):
    """How a model computes: see the attributes of the same names of a candidate."""

    @property
    def dtype(self) -> str:
        """A name of :data:`DTYPES`."""

    @property
    def compiled(self) -> bool:
        """By ``torch.compile``."""


def _clip(task: Task) -> Tensor:
    return torch.randn(task.shape, device=task.device)


def inference_step(model: nn.Module, candidate: Computed, task: Task) -> Callable[[], Tensor]:
    """A forward pass with weights and clip in the candidate's type."""
    dtype = DTYPES[candidate.dtype]
    model, clip = model.eval().to(dtype), _clip(task).to(dtype)
    forward = torch.compile(model) if candidate.compiled else model

    @torch.inference_mode()
    def step() -> Tensor:
        return forward(clip)

    return step


def training_step(model: nn.Module, candidate: Computed, task: Task) -> Callable[[], object]:
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
