"""Numbers of training steps on their way from the device to the host."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

Note = TypeVar("Note")


class StepNote(NamedTuple):
    """What is known of a step before its numbers arrive; errors say it."""

    number: int  # from 1
    epoch: int  # from 1
    rate: float
    videos: Tensor  # (n,) on the CPU
    losses: tuple[str, ...] = ()  # names of what the loss is the sum of


class StepResult(NamedTuple):
    """The loss and the norm of the gradient of a step, and whether any process was to stop."""

    loss: float = math.nan
    norm: float = math.nan
    stop: bool = False
    losses: Mapping[str, float] = {}  # what the loss is the sum of, by name


@dataclass(frozen=True)
class _Sent(Generic[Note]):
    """Numbers that a copy is on its way for; None for the event of a copy that is done."""

    host: Tensor
    done: torch.cuda.Event | None
    note: Note


class StepNumbers(Generic[Note]):
    """Brings a few numbers of every step to the host without making the host wait for its step.

    A GPU computes behind the program that feeds it, and reading a number waits for all of its work.
    Here the copy of a step's numbers is only begun, and read when the next step has been queued: by
    then the GPU has something to do while the host waits for the copy.

    Args:
        device: where the numbers are computed.

    Attributes:
        lag: steps that may be on their way after :meth:`arrived`; 0 where the device is the host.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.lag = 1 if device.type == "cuda" else 0
        self._sent: deque[_Sent[Note]] = deque()

    def put(self, numbers: Tensor, note: Note) -> None:
        """Begin to copy the numbers of a step.

        Args:
            numbers: float (n,), on the device.
            note: what :meth:`arrived` gives back with them.
        """
        on_gpu = self.device.type == "cuda"
        host = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=on_gpu)
        host.copy_(numbers, non_blocking=on_gpu)
        done = None
        if on_gpu:
            done = torch.cuda.Event()
            done.record()
        self._sent.append(_Sent(host, done, note))

    def arrived(self, *, everything: bool = False) -> list[tuple[list[float], Note]]:
        """The numbers of the steps that were put in and not given back yet, oldest first.

        Args:
            everything: also those of the last :attr:`lag` steps, which waits for the device.
        """
        found = []
        while len(self._sent) > (0 if everything else self.lag):
            sent = self._sent.popleft()
            if sent.done is not None:
                sent.done.synchronize()
            found.append((sent.host.tolist(), sent.note))
        return found
