"""Counting, on the CPU, where a program reads numbers that a GPU would have computed."""

from __future__ import annotations

import traceback

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
# What makes a host wait for the device: a number, or a shape that depends on numbers.
READS = {
    *(aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.is_nonzero, aten.equal),
    *(aten._unique2, aten.unique_dim, aten.unique_consecutive),
}


class HostReads(TorchDispatchMode):
    """A context that plays a GPU: marked tensors lie there, and what is computed from them.

    Writing marked numbers into a tensor that is not marked is a copy to the host that nobody waits
    for. Memory grows with all that is computed, as no marked storage is freed.

    Attributes:
        reads: where marked numbers were read, one text each.
        sent: the number of copies to the host.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[str] = []
        self.sent = 0
        self._marked: dict[int, torch.UntypedStorage] = {}

    def mark(self, *tensors: Tensor) -> None:
        for tensor in tensors:
            storage = tensor.untyped_storage()
            self._marked[storage._cdata] = storage

    def is_marked(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage()._cdata in self._marked

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        inputs = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        if any(self.is_marked(t) for t in inputs):
            operator = func.overloadpacket
            indexed_by_bool = operator in (aten.index, aten.index_put_) and any(
                t.dtype is torch.bool for t in inputs[1:]
            )
            if operator in READS or indexed_by_bool:
                self.reads.append("".join(traceback.format_stack(limit=8)))
            elif operator is aten.copy_ and not self.is_marked(args[0]):
                self.sent += 1
            else:
                self.mark(*(t for t in tree_leaves(out) if isinstance(t, Tensor)))
        return out
