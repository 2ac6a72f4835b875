"""A model over several processes: whole on each (DDP) or in shards (FSDP2)."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel
from torchvision.ops import StochasticDepth

from videonet.engine.distributed import Process

FLAT = StateDictOptions(flatten_optimizer_state_dict=True)


def residual_blocks(model: nn.Module) -> list[nn.Module]:
    """The blocks of a model: the modules with a drop path of their own."""
    return [
        module
        for module in model.modules()
        if any(isinstance(child, StochasticDepth) for child in module.children())
    ]


def shard(model: nn.Module, process: Process) -> None:
    """Divide weights, gradients and optimiser state among the processes (FSDP2).

    Each block gathers its weights when it computes and lets them go afterwards. Call this before
    the optimiser is built; the processes must hold the same weights.
    """
    mesh = init_device_mesh(process.device.type, (process.world_size,))
    for block in residual_blocks(model):
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


def is_sharded(model: nn.Module) -> bool:
    return isinstance(model, FSDPModule)


def averaging_gradients(model: nn.Module, process: Process) -> nn.Module:
    """The module to call in training, whose gradients are averaged over the processes."""
    if process.world_size == 1 or is_sharded(model):
        return model
    devices = [process.device.index] if process.device.type == "cuda" else None
    # Running statistics are averaged where they are used, not taken from the first process.
    known = inspect.signature(DistributedDataParallel).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    return DistributedDataParallel(model, device_ids=devices, **{name: False})


@contextlib.contextmanager
def gradient_sync(model: nn.Module, now: bool) -> Iterator[None]:
    """Inside, a backward pass averages gradients over the processes, or only adds up its own."""
    if is_sharded(model):
        model.set_requires_gradient_sync(now)
        yield
    elif now or not isinstance(model, DistributedDataParallel):
        yield
    else:
        with model.no_sync():
            yield


@contextlib.contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """Inside, each process holds all weights and may call the model as often as it likes.

    Otherwise each call of a sharded model waits for all processes, which in evaluation may have
    different numbers of batches.
    """
    parts = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            # FSDP's own default: the root, needed first in the backward pass, stays whole.
            part.set_reshard_after_forward(part is not model, recurse=False)
            part.reshard()


def optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict:
    """The optimiser's state dict; of a sharded model flat, with this process's shards by name.

    The groups of a whole one hold the ``param_names`` of their parameters.
    """
    if is_sharded(model):
        return get_optimizer_state_dict(model, optimizer, options=FLAT)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    state = optimizer.state_dict()
    groups = [
        {**saved, "param_names": [names[id(parameter)] for parameter in group["params"]]}
        for saved, group in zip(state["param_groups"], optimizer.param_groups, strict=True)
    ]
    return {**state, "param_groups": groups}


def load_optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer, state: dict) -> None:
    """Put back what :func:`optimizer_state` gave of a sharded model."""
    set_optimizer_state_dict(model, optimizer, state, options=FLAT)
