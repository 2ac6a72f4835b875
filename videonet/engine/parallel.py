"""A model over several processes: whole on each (DDP) or in shards (FSDP2)."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

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

from videonet.engine.distributed import Process
from videonet.engine.draws import DROP_PATHS

FLAT = StateDictOptions(flatten_optimizer_state_dict=True)


def residual_blocks(model: nn.Module) -> list[nn.Module]:
    """The blocks of a model: the modules with a drop path of their own."""
    return [
        module
        for module in model.modules()
        if any(isinstance(child, DROP_PATHS) for child in module.children())
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
    """Whether :func:`shard` has divided the model."""
    return isinstance(model, FSDPModule)


def averaging_gradients(model: nn.Module, process: Process) -> nn.Module:
    """The module to call in training: it averages gradients over the processes."""
    if process.world_size == 1 or is_sharded(model):
        return model
    devices = [process.device.index] if process.device.type == "cuda" else None
    # Running statistics are averaged where they are used, not taken from the first process.
    known = inspect.signature(DistributedDataParallel).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    options: dict[str, Any] = {name: False}  # the name depends on the release of torch
    return DistributedDataParallel(model, device_ids=devices, **options)


@contextlib.contextmanager
def gradient_sync(model: nn.Module, now: bool) -> Iterator[None]:
    """While entered, a backward pass averages gradients over the processes, or does not.

    Args:
        model: as :func:`averaging_gradients` returns it.
        now: False to add up the gradients of this process alone.
    """
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(now)
        yield
    elif now or not isinstance(model, DistributedDataParallel):
        yield
    else:
        with model.no_sync():
            yield


@contextlib.contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """While entered, each process holds all weights of a sharded model.

    Each call of a sharded model otherwise waits for all processes, which have different numbers of
    batches in an evaluation.
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
    """The optimiser's state dict.

    Of a sharded model it is flat and holds this process's shards by name; of another one each group
    holds the ``param_names`` of its parameters.
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
    """Restore the state of a sharded model that :func:`optimizer_state` returned."""
    set_optimizer_state_dict(model, optimizer, state, options=FLAT)
