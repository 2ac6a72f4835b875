"""The types of floating-point numbers that autocast asks for."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch
from torch import Tensor

MaybeTensor = TypeVar("MaybeTensor", Tensor, Tensor | None)


def autocast_inputs(*tensors: MaybeTensor) -> tuple[MaybeTensor, ...]:
    """The inputs of a matrix product in the type in which autocast hands them to torch's own.

    An ``autograd.Function`` and a kernel of the project see tensors as they are, where autocast
    casts for torch's operators: whoever calls one casts before, so that autograd knows of it.
    Double precision stays, as with torch; outside of autocast everything does.
    """
    return tuple(autocast_input(tensor) for tensor in tensors)


def autocast_input(tensor: MaybeTensor) -> MaybeTensor:
    """One input, see :func:`autocast_inputs`."""
    return tensor if tensor is None else _cast(tensor)


def without_autocast(like: Tensor) -> AbstractContextManager:
    """A context in which operators on the device of `like` compute in the types they are given."""
    device = like.device.type
    if not torch.amp.is_autocast_available(device):
        return nullcontext()
    return torch.autocast(device, enabled=False)


def _cast(tensor: Tensor) -> Tensor:
    device = tensor.device.type
    # Not is_autocast_available, at which torch 2.6 ends the graph it compiles.
    if device == "meta" or not torch.is_autocast_enabled(device):
        return tensor
    if not tensor.is_floating_point() or tensor.dtype is torch.float64:
        return tensor
    return tensor.to(torch.get_autocast_dtype(device))
