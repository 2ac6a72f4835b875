"""CUDA graphs around a model whose inputs have the same shapes again and again.

A GPU that computes one clip waits for the program that tells it what to do: hundreds of kernels of
microseconds each. A CUDA graph is such a sequence of kernels, recorded once and started as a whole.
It reads and writes the memory that it was recorded with.
"""

from __future__ import annotations

import logging
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from videonet.ops.kernels.modules import HOOKS
from videonet.ops.kernels.private import has_global_hooks
from videonet.ops.tracing import is_traced

logger = logging.getLogger(__name__)

Outputs = tuple[Tensor, ...]
SHAPES = 4  # recordings that are kept
REMEMBERED = 64  # shapes that were seen once
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-8}  # of the largest value; else 1e-2


class Recording(Protocol):
    """Runs what was recorded on other clips of the same shape."""

    def __call__(self, clips: Tensor) -> Outputs:
        """The outputs; the next call of any recording may overwrite them."""


Record = Callable[[Callable[[Tensor], Outputs], Tensor], Recording]


class _Kept(NamedTuple):
    fingerprint: tuple
    recording: Recording


class Replays:
    """Calls functions of a model, and replays recordings of those whose input repeats its shape.

    The first call with a shape runs as always, the second one records too, and compares the first
    replay with what the function itself gave. Where recording fails or gives other numbers, one
    line is logged and everything runs as always from then on. What changes weights in place, such
    as ``load_state_dict``, changes what a recording computes; other weights, modules or modes of
    the model are recorded anew. While a hook is on a module, operators are traced or counted, or
    gradients are wanted, nothing is replayed.

    Args:
        record: makes a recording.
        shapes: recordings that are kept; the one that was not used for longest gives way.
    """

    def __init__(self, record: Record, shapes: int = SHAPES):
        self._record, self._shapes = record, shapes
        self._seen: OrderedDict[Hashable, None] = OrderedDict()
        self._kept: OrderedDict[Hashable, _Kept] = OrderedDict()
        self.off = False

    def __len__(self) -> int:
        return len(self._kept)

    def __call__(
        self, run: Callable[[Tensor], Outputs], model: nn.Module, clips: Tensor, name: Hashable
    ) -> Outputs:
        """``run(clips)``, by a recording where there is one; read it before the next call.

        Args:
            run: computes with the model.
            model: whose weights are read.
            clips: of one shape and type per recording, on any device.
            name: of the function and whatever else its outputs depend on.
        """
        fingerprint = None if self.off or not _replayable() else fingerprint_of(model)
        if fingerprint is None:
            return run(clips)
        key = (name, clips.shape, clips.dtype, torch.get_float32_matmul_precision())
        kept = self._kept.get(key)
        if kept is not None and kept.fingerprint == fingerprint:
            self._kept.move_to_end(key)
            return kept.recording(clips)
        if kept is not None:  # of weights that the model no longer has
            del self._kept[key]
        elif key in self._seen:
            return self._run_and_record(run, clips, key, fingerprint)
        self._seen[key] = None
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        return run(clips)

    def _run_and_record(
        self, run: Callable[[Tensor], Outputs], clips: Tensor, key: Hashable, fingerprint: tuple
    ) -> Outputs:
        expected = run(clips)
        while len(self._kept) >= self._shapes:
            self._kept.popitem(last=False)
        try:
            recording = self._record(run, clips)
            problem = difference(recording(clips), expected)
        except RuntimeError as error:
            problem = (str(error).splitlines() or [type(error).__name__])[0]
        if problem:
            self.off = True
            self._kept.clear()
            logger.warning("CUDA graphs are left out, single clips are slower: %s", problem)
        else:
            self._kept[key] = _Kept(fingerprint, recording)
        return expected


def _replayable() -> bool:
    return not (torch.is_grad_enabled() or is_traced() or has_global_hooks())


def fingerprint_of(model: nn.Module) -> tuple | None:
    """What a recording of a model depends on beside the values of its weights.

    Returns:
        Its modules, their modes, and where their tensors lie; None where a call of the model does
        more than its operators say (hooks, compiled modules, tensors that are no plain ones).
    """
    found: list[object] = []
    modules = [model]
    while modules:
        module = modules.pop()
        own = vars(module)
        if any(own.get(name, True) for name in HOOKS) or own.get("_compiled_call_impl") is not None:
            return None
        found += (id(module), module.training, id(own.get("forward")))
        for tensor in (*own["_parameters"].values(), *own["_buffers"].values()):
            if tensor is None:
                continue
            if type(tensor) not in (nn.Parameter, Tensor):
                return None
            found += (tensor.data_ptr(), tensor.dtype, tensor.shape)
        modules += [child for child in own["_modules"].values() if child is not None]
    return tuple(found)


def difference(found: Outputs, expected: Outputs) -> str:
    """How outputs differ by more than rounding; empty where they do not."""
    if [(t.shape, t.dtype) for t in found] != [(t.shape, t.dtype) for t in expected]:
        return "the first replay gave outputs of other shapes"
    for one, other in zip(found, expected, strict=True):
        one, other = one.float(), other.float()
        scale = other.abs().nan_to_num(0.0, 0.0, 0.0).amax() if other.numel() else other.sum()
        bound = float(scale) * TOLERANCE.get(expected[0].dtype, 1e-2) + 1e-12
        if not torch.allclose(one, other, rtol=0.0, atol=bound, equal_nan=True):
            return f"the first replay differs by more than {bound:.1e}"
    return ""


class CudaGraphs:
    """Makes recordings as CUDA graphs, which share their scratch memory.

    That is safe as one runs at a time and its outputs are read before the next one starts.

    Args:
        device: where they compute.
    """

    def __init__(self, device: torch.device):
        self._device = device
        self._graphs: weakref.WeakSet[CudaGraph] = weakref.WeakSet()
        self._pool: Any = None  # torch's own handle

    def __call__(self, run: Callable[[Tensor], Outputs], clips: Tensor) -> CudaGraph:
        """Record; see :class:`Replays`."""
        if not self._graphs:  # a pool goes with its last graph
            self._pool = torch.cuda.graph_pool_handle()
        graph = CudaGraph(run, clips, self._device, self._pool)
        self._graphs.add(graph)
        return graph


class CudaGraph:
    """One recording.

    Args:
        run: what is recorded.
        clips: of the shape and type that it is recorded for, on any device.
        device: where it computes.
        pool: of the scratch memory.
    """

    def __init__(
        self,
        run: Callable[[Tensor], Outputs],
        clips: Tensor,
        device: torch.device,
        pool: Any,
    ):
        self._clips = torch.empty(clips.shape, dtype=clips.dtype, device=device)
        self._clips.copy_(clips)
        current, stream = torch.cuda.current_stream(device), torch.cuda.Stream(device)
        stream.wait_stream(current)
        with torch.cuda.stream(stream):  # libraries make their workspaces for this stream
            run(self._clips)
        current.wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        # Other threads may go on using the device meanwhile.
        with torch.cuda.graph(self._graph, pool, stream, capture_error_mode="thread_local"):
            self._outputs = run(self._clips)

    def __call__(self, clips: Tensor) -> Outputs:
        """Copy the clips to where they were and run the graph."""
        self._clips.copy_(clips, non_blocking=True)
        self._graph.replay()
        return self._outputs
