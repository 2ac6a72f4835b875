"""Functions with a backward pass of their own that can be differentiated again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function


class FastFunction(Function):
    """A function whose gradients a subclass computes in its own way, without autograd.

    Where these gradients are to be differentiated themselves (``create_graph=True``) they are
    computed by torch's operators from ``plain``, the same function of public ones.

    A subclass has three static methods: ``forward(*inputs)``; ``gradients(inputs, needed, grad)``,
    which gives one gradient or None per input; and ``plain(*inputs)``.
    """

    @staticmethod
    def plain(*inputs: Any) -> Tensor:
        raise NotImplementedError

    @staticmethod
    def gradients(
        inputs: Sequence[Any], needed: Sequence[bool], grad: Tensor
    ) -> tuple[Tensor | None, ...]:
        raise NotImplementedError

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.is_tensor = [isinstance(x, Tensor) for x in inputs]
        ctx.others = [x for x in inputs if not isinstance(x, Tensor)]
        ctx.save_for_backward(*(x for x in inputs if isinstance(x, Tensor)))

    @classmethod
    def backward(cls, ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        tensors, others = iter(ctx.saved_tensors), iter(ctx.others)
        inputs = [next(tensors if is_tensor else others) for is_tensor in ctx.is_tensor]
        if torch.is_grad_enabled():  # the gradients are to be differentiated
            return differentiable_gradients(cls.plain, inputs, ctx.needs_input_grad, grad)
        return cls.gradients(inputs, ctx.needs_input_grad, grad)


def differentiable_gradients(
    function, inputs: Sequence[Any], needed: Sequence[bool], grad: Tensor
) -> tuple[Tensor | None, ...]:
    """The gradients of a function at its inputs, as a graph; None where they are not needed."""
    # Views of their own, as one input may be computed from another.
    inputs = [x.view_as(x) if need else x for x, need in zip(inputs, needed, strict=True)]
    wanted = [x for x, need in zip(inputs, needed, strict=True) if need]
    found = iter(
        torch.autograd.grad(function(*inputs), wanted, grad, create_graph=True, allow_unused=True)
    )
    return tuple(next(found) if need else None for need in needed)
