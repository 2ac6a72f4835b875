"""A linear layer that runs at the CPU's full rate."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from videonet.ops.kernels import cpu
from videonet.ops.kernels.autograd import FastFunction
from videonet.ops.kernels.modules import is_plain
from videonet.ops.precision import autocast_input


def fast_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(..., K), (M, K), (M,) -> (..., M): the same numbers as ``F.linear``."""
    cast = autocast_input(x), autocast_input(weight), autocast_input(bias)
    if not cpu.preferred(*cast):
        return F.linear(x, weight, bias)
    rows = cast[0].reshape(-1, weight.shape[1])
    return _Linear.apply(rows, *cast[1:]).view(*x.shape[:-1], weight.shape[0])


def call_linear(layer: nn.Module, x: Tensor) -> Tensor:
    """``layer(x)``, through :func:`fast_linear` where it is an ``nn.Linear`` and nothing else."""
    return fast_linear(x, layer.weight, layer.bias) if is_plain(layer, nn.Linear) else layer(x)


def init_linear(module: nn.Module) -> None:
    """Initialise a linear layer as ViT and MViT do, for ``model.apply``.

    Weights come from a normal distribution with deviation 0.02, cut off at 2; biases are 0. Other
    layers, convolutions among them, keep torch's initialisation.
    """
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class _Linear(FastFunction):
    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return cpu.linear(x, weight, bias)

    plain = staticmethod(F.linear)

    @staticmethod
    def gradients(inputs, needed, grad: Tensor):
        x, weight, _ = inputs
        grad = grad.contiguous()
        return (
            cpu.product(grad, weight) if needed[0] else None,
            cpu.transposed_product(grad, x) if needed[1] else None,
            grad.sum(dim=0) if needed[2] else None,
        )
