"""A linear layer that runs at the CPU's full rate."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from videonet.ops import onednn
from videonet.ops.precision import autocast_inputs


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(..., K), (M, K), (M,) -> (..., M): the same numbers as ``F.linear``."""
    cast = autocast_inputs(x, weight, bias)
    if not onednn.preferred(*cast):
        return F.linear(x, weight, bias)
    rows = cast[0].reshape(-1, weight.shape[1])
    return _Linear.apply(rows, *cast[1:]).view(*x.shape[:-1], weight.shape[0])


class Linear(nn.Linear):
    """``nn.Linear`` through :func:`linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        return linear(x, self.weight, self.bias)


class _Linear(Function):
    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return onednn.linear(x, weight, bias)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        grad = grad.contiguous()
        return (
            onednn.product(grad, weight) if needs_x else None,
            onednn.transposed_product(grad, x) if needs_weight else None,
            grad.sum(dim=0) if needs_bias else None,
        )
