"""One process of a distributed run: its rank, its device, and exchange with the others."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from videonet.devices import select_device

T = TypeVar("T")


@dataclass(frozen=True)
class Process:
    """One process of a run, alone or among those that ``torchrun`` started.

    Attributes:
        rank: the number of this process, from 0.
        world_size: the number of processes.
        device: where this process computes.
        quiet: show no progress.
    """

    rank: int
    world_size: int
    device: torch.device
    quiet: bool = False

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    @property
    def shows_progress(self) -> bool:
        """Whether this process draws bars."""
        return self.is_main and not self.quiet

    def gather(self, value: T) -> list[T]:
        """Collect a value from all processes; called by all of them.

        Returns:
            The values in order of rank, on every process.
        """
        if self.world_size == 1:
            return [value]
        values = [value] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def total(self, value: Tensor) -> Tensor:
        """Add up a tensor over all processes, in place; called by all of them.

        Returns:
            `value`, which holds the sum.
        """
        if self.world_size > 1:
            dist.all_reduce(value)
        return value

    def swap(self, value: Tensor, other: int) -> Tensor:
        """Exchange a tensor with one other process, which calls this too.

        Args:
            value: what the other process gets.
            other: its rank.

        Returns:
            What the other process sent, of the shape and type of `value`.
        """
        # The backend gloo sends tensors on the CPU only.
        mine = value.cpu() if dist.get_backend() == "gloo" else value
        mine, theirs = (
            mine.contiguous(),
            torch.empty_like(mine, memory_format=torch.contiguous_format),
        )
        for work in dist.batch_isend_irecv(
            [dist.P2POp(dist.isend, mine, other), dist.P2POp(dist.irecv, theirs, other)]
        ):
            work.wait()
        return theirs.to(value.device)

    def barrier(self) -> None:
        """Wait until all processes have called this."""
        if self.world_size > 1:
            dist.barrier()


@contextlib.contextmanager
def process(
    device: str = "auto", backend: str = "nccl", *, quiet: bool = False
) -> Iterator[Process]:
    """This process of the run. Under ``torchrun`` its process group exists while this is entered.

    Args:
        device: see :func:`videonet.devices.select_device`.
        backend: of torch.distributed on CUDA devices; on others it is gloo.
        quiet: show no progress.
    """
    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    chosen = select_device(device, int(os.environ.get("LOCAL_RANK", 0)))
    if world_size > 1:
        dist.init_process_group(backend if chosen.type == "cuda" else "gloo")
    try:
        yield Process(rank, world_size, chosen, quiet)
    finally:
        if world_size > 1:
            dist.destroy_process_group()
