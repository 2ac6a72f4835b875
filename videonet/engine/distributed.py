"""Who am I among the processes that ``torchrun`` started, and what do the others have?"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from videonet.errors import ConfigError


@dataclass(frozen=True)
class Process:
    """One process of a run: its rank, how many there are, and its device."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def gather(self, value: object) -> list:
        """The value of every process, in order of rank; on every process."""
        if self.world_size == 1:
            return [value]
        values: list = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def total(self, value: Tensor) -> Tensor:
        """The sum of the processes' values; `value` itself is overwritten."""
        if self.world_size > 1:
            dist.all_reduce(value)
        return value

    def swap(self, value: Tensor, other: int) -> Tensor:
        """What process `other` gives for `value`, which it gets; of the same shape and type."""
        # gloo sends from the CPU alone
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
        if self.world_size > 1:
            dist.barrier()


def select_device(name: str, local_rank: int = 0) -> torch.device:
    """``"auto"`` is CUDA where there is one, else the CPU.

    Raises:
        ConfigError: the device is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ConfigError(f"DEVICE is {name}, but torch finds no CUDA device here")
        device = torch.device("cuda", local_rank if device.index is None else device.index)
        torch.cuda.set_device(device)
    return device


@contextlib.contextmanager
def process(device: str = "auto", backend: str = "nccl") -> Iterator[Process]:
    """This process of the run; under ``torchrun`` the group of all of them for the time being."""
    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    chosen = select_device(device, int(os.environ.get("LOCAL_RANK", 0)))
    if world_size > 1:
        dist.init_process_group(backend if chosen.type == "cuda" else "gloo")
    try:
        yield Process(rank, world_size, chosen)
    finally:
        if world_size > 1:
            dist.destroy_process_group()
