"""Reversible blocks: the backward pass computes their inputs from their outputs.

So activations need not be stored. Reversible vision transformers (Mangalam et al., CVPR 2022,
Sec. 3.1), after reversible residual networks (arXiv 1707.04585).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.utils.checkpoint import get_device_states, set_device_states

from videonet.ops.grid import Grid
from videonet.ops.kernels.modules import HOOKS
from videonet.ops.kernels.private import has_global_hooks
from videonet.ops.tracing import is_traced

Streams = tuple[Tensor, Tensor]


class ReversibleBlock(nn.Module):
    """``first += attend(second)``, then ``second += transform(first)``.

    A subclass has the three methods that raise here.
    """

    def keep(self, tokens: Tensor) -> Tensor:
        """Draw the factor (B, 1, 1) on both additions for this call."""
        raise NotImplementedError

    def attend(self, tokens: Tensor, grid: Grid) -> Tensor:
        """What the first stream gets, of the second one: (B, N, C) -> the same."""
        raise NotImplementedError

    def transform(self, tokens: Tensor) -> Tensor:
        """What the second stream gets, of the first one: (B, N, C) -> the same."""
        raise NotImplementedError

    def forward(self, first: Tensor, second: Tensor, grid: Grid) -> Streams:
        """Two times (B, N, C) -> the same."""
        keep = self.keep(first)
        first = first + keep * self.attend(second, grid)
        return first, second + keep * self.transform(first)


def run_reversible(
    blocks: nn.ModuleList,
    first: Tensor,
    second: Tensor,
    grid: Grid,
    run: Callable[..., Streams],
) -> Streams:
    """Run blocks one after the other; in training without storing activations where possible.

    What a block adds to one stream is a function of the other stream, so the backward pass can
    compute it again and subtract it. Of all blocks together, only the first inputs and the last
    outputs are stored, at the cost of a second forward pass. Activations are stored all the same
    in half precision, where subtracting rounds too much, in traced graphs, for blocks with hooks,
    which would be called twice, and for weights that are no plain parameters (sharded, quantised).

    Args:
        blocks: each a :class:`ReversibleBlock`, in the order of the forward pass.
        first, second: (B, N, C).
        run: ``run(block, first, second, grid)`` calls a block where activations are kept.
    """
    reversible = _recomputable(blocks, first, second)
    if not reversible:
        for block in blocks:
            first, second = run(block, first, second, grid)
        return first, second
    parameters = [p for block in reversible for p in block.parameters() if p.requires_grad]
    return _Reversible.apply(reversible, grid, first, second, *parameters)


def _recomputable(
    blocks: nn.ModuleList, first: Tensor, second: Tensor
) -> Sequence[ReversibleBlock]:
    """The blocks, where the backward pass can compute all of them again; else none."""
    if not torch.is_grad_enabled() or is_traced() or has_global_hooks():
        return ()
    exact = (torch.float32, torch.float64)
    if first.dtype not in exact or second.dtype not in exact:
        return ()
    reversible = []
    for block in blocks:
        if not isinstance(block, ReversibleBlock) or not block.training:
            return ()
        if any(type(p) is not nn.Parameter for p in block.parameters()):
            return ()
        for module in block.modules():
            if any(vars(module).get(name, True) for name in HOOKS):
                return ()
        reversible.append(block)
    return reversible


class _Replay:
    """The random numbers and the precision of a forward pass, for its repetition.

    Args:
        like: a tensor on the device of the computation.
    """

    def __init__(self, like: Tensor):
        self.device = like.device.type
        self.cpu_state = torch.get_rng_state()
        self.devices, self.states = get_device_states(like)
        self.precision = _precision(like)

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Inside, the same numbers are drawn in the same precision, and gradients recorded."""
        forked = {"device_type": self.device} if self.devices else {}
        with (
            torch.random.fork_rng(self.devices, **forked),
            _autocast(self.precision),
            torch.enable_grad(),
        ):
            torch.set_rng_state(self.cpu_state)
            if self.devices:
                set_device_states(self.devices, self.states, **forked)
            yield


def _precision(like: Tensor) -> dict[str, Any] | None:
    """What autocast does on the device of `like`, as its arguments; None where it is not there."""
    device = like.device.type
    if not torch.amp.is_autocast_available(device):
        return None
    return {
        "device_type": device,
        "enabled": torch.is_autocast_enabled(device),
        "dtype": torch.get_autocast_dtype(device),
        # A weight that was cast where no gradients are recorded must not be met where they are.
        "cache_enabled": False,
    }


def _autocast(precision: dict[str, Any] | None) -> AbstractContextManager:
    return nullcontext() if precision is None else torch.autocast(**precision)


class _Reversible(Function):
    """The blocks of :func:`run_reversible` without their activations."""

    @staticmethod
    def forward(
        ctx, blocks: Sequence[ReversibleBlock], grid: Grid, first: Tensor, second: Tensor, *weights
    ) -> Streams:
        ctx.blocks, ctx.grid, ctx.weights = blocks, grid, weights
        ctx.keeps, ctx.replays, start = [], [], (first, second)
        with _autocast(_precision(first)):
            for block in blocks:
                keep, before = block.keep(first), _Replay(first)
                first = first + keep * block.attend(second, grid)
                between = _Replay(first)
                second = second + keep * block.transform(first)
                ctx.keeps.append(keep)
                ctx.replays.append((before, between))
        # The weights for autograd's check that nobody has changed them since.
        ctx.save_for_backward(*start, first, second, *weights)
        return first, second

    @staticmethod
    def backward(ctx, grad_first: Tensor, grad_second: Tensor):
        inputs, (first, second) = ctx.saved_tensors[:2], ctx.saved_tensors[2:4]
        grads = (grad_first, grad_second)
        if torch.is_grad_enabled():  # the gradients are to be differentiated
            found = _differentiable(ctx, inputs, grads)
        else:
            found = _from_outputs(ctx, first, second, *grads)
        return None, None, *found


def _steps(ctx) -> Iterator[tuple[ReversibleBlock, Tensor, _Replay, _Replay]]:
    replays = zip(*ctx.replays, strict=True)
    return zip(ctx.blocks, ctx.keeps, *replays, strict=True)


def _differentiable(ctx, inputs: Sequence[Tensor], grads: Streams) -> tuple[Tensor | None, ...]:
    """The gradients as a graph: the blocks once more, with their activations."""
    inputs = first, second = [x.view_as(x) for x in inputs]
    for block, keep, before, between in _steps(ctx):
        with before():
            first = first + keep * block.attend(second, ctx.grid)
        with between():
            second = second + keep * block.transform(first)
    wanted = [*inputs, *ctx.weights]
    return torch.autograd.grad((first, second), wanted, grads, create_graph=True, allow_unused=True)


def _from_outputs(
    ctx, first: Tensor, second: Tensor, grad_first: Tensor, grad_second: Tensor
) -> tuple[Tensor | None, ...]:
    """The gradients, from the last block back to the first, which gives back its inputs too."""
    found: dict[int, Tensor] = {}
    asked = {id(weight) for weight in ctx.weights}

    def undo(function, block, keep, replay, stream, other, grad) -> Streams:
        """`stream` before ``keep * function(other)`` was added, and the gradient of `other`."""
        weights = [weight for weight in block.parameters() if id(weight) in asked]
        with replay():
            other = other.detach().requires_grad_()
            added = keep * function(other)
        of_other, *of_weights = torch.autograd.grad(
            added, [other, *weights], grad.to(added.dtype), allow_unused=True
        )
        for weight, more in zip(weights, of_weights, strict=True):
            if more is not None:
                found[id(weight)] = found[id(weight)] + more if id(weight) in found else more
        return stream - added.detach(), of_other

    for block, keep, before, between in reversed(list(_steps(ctx))):
        second, more = undo(block.transform, block, keep, between, second, first, grad_second)
        grad_first = grad_first + more
        attend = partial(block.attend, grid=ctx.grid)
        first, more = undo(attend, block, keep, before, first, second, grad_first)
        grad_second = grad_second + more
    return grad_first, grad_second, *(found.get(id(weight)) for weight in ctx.weights)
