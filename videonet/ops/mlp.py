"""The two-layer perceptron of a transformer block."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from videonet.errors import ConfigError
from videonet.ops.kernels import cpu
from videonet.ops.kernels.autograd import FastFunction
from videonet.ops.kernels.modules import is_plain
from videonet.ops.linear import call_linear
from videonet.ops.precision import autocast_input, autocast_inputs


def quick_gelu(x: Tensor) -> Tensor:
    """The sigmoid approximation of GELU (arXiv 1606.08415, Sec. 2), as in CLIP and CvT."""
    return F.silu(1.702 * x) / 1.702  # in fewer operators, backward too, than with a sigmoid


def swiglu(x: Tensor) -> Tensor:
    """A gate: SiLU of the first half of the channels, times the second half (arXiv 2002.05202)."""
    gate, value = x.chunk(2, dim=-1)
    return F.silu(gate) * value


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "quick_gelu": quick_gelu,
    "swiglu": swiglu,
}


class Mlp(nn.Module):
    """Linear, activation, linear, with dropout after each linear; (..., dim) -> (..., dim_out).

    Args:
        hidden: width after the first linear layer; "swiglu" halves it.
        activation: one of ``ACTIVATIONS``; "gelu" is the exact one.
        bias: of both linear layers.
        norm_eps: a layer norm with this eps before the second linear layer; None for none.
        linear: makes both linear layers, for projects that keep them as 1×1 convolutions.
    """

    def __init__(
        self,
        dim: int,
        hidden: int,
        dim_out: int,
        dropout: float = 0.0,
        *,
        activation: str = "gelu",
        bias: bool = True,
        norm_eps: float | None = None,
        linear: Callable[..., nn.Module] = nn.Linear,
    ):
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ConfigError(
                f"activation is {activation!r}, expected one of {', '.join(ACTIVATIONS)}"
            )
        self.activation = ACTIVATIONS[activation]
        self.fc1 = linear(dim, hidden, bias=bias)
        if activation == "swiglu":
            if hidden % 2:
                raise ConfigError(f"swiglu halves the MLP's width of {hidden}, an odd number")
            hidden //= 2
        self.norm = None if norm_eps is None else nn.LayerNorm(hidden, eps=norm_eps)
        self.fc2 = linear(hidden, dim_out, bias=bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) -> (..., dim_out)."""
        fc1, fc2 = self.fc1, self.fc2
        if self._is_gelu_alone() and is_plain(fc1, nn.Linear) and is_plain(fc2, nn.Linear):
            rows = autocast_input(x)
            parameters = autocast_inputs(fc1.weight, fc2.weight, fc1.bias, fc2.bias)
            if cpu.preferred(rows, *parameters):
                y = _Mlp.apply(rows.reshape(-1, x.shape[-1]), *parameters)
                return y.view(*x.shape[:-1], y.shape[-1])
        x = self.dropout(self.activation(call_linear(fc1, x)))
        if self.norm is not None:
            x = self.norm(x)
        return self.dropout(call_linear(fc2, x))

    def _is_gelu_alone(self) -> bool:
        """Whether there is nothing but the exact GELU between and behind the two layers."""
        return (
            self.activation is F.gelu
            and self.norm is None
            and not (self.training and self.dropout.p)
        )


class _Mlp(FastFunction):
    """Both layers for a few rows at a time, so that the wide hidden layer is never stored whole.

    The backward pass computes it again, which takes less time than writing and reading it.
    """

    @staticmethod
    def forward(
        x: Tensor, weight1: Tensor, weight2: Tensor, bias1: Tensor | None, bias2: Tensor | None
    ) -> Tensor:
        y = x.new_empty(x.shape[0], weight2.shape[0])
        for piece in cpu.pieces(x.shape[0], weight1.shape[0] * x.element_size()):
            hidden = F.gelu(cpu.linear(x[piece], weight1, bias1))
            y[piece] = cpu.linear(hidden, weight2, bias2)
        return y

    @staticmethod
    def plain(
        x: Tensor, weight1: Tensor, weight2: Tensor, bias1: Tensor | None, bias2: Tensor | None
    ) -> Tensor:
        return F.linear(F.gelu(F.linear(x, weight1, bias1)), weight2, bias2)

    @staticmethod
    def gradients(inputs, needed, grad: Tensor):
        x, weight1, weight2, bias1, _ = inputs
        grad, grad_x = grad.contiguous(), torch.empty_like(x)
        # Sums over the pieces are kept in fp32.
        grad_weight1, grad_weight2 = (
            torch.zeros_like(w, dtype=torch.float32) for w in (weight1, weight2)
        )
        grad_bias1 = torch.zeros_like(weight1[:, 0], dtype=torch.float32)
        for piece in cpu.pieces(x.shape[0], 3 * weight1.shape[0] * x.element_size()):
            before = cpu.linear(x[piece], weight1, bias1)
            grad_weight2 += cpu.transposed_product(grad[piece], F.gelu(before))
            grad_before = cpu.GELU_GRADIENT(cpu.product(grad[piece], weight2), before)
            grad_weight1 += cpu.transposed_product(grad_before, x[piece])
            grad_bias1 += grad_before.sum(dim=0, dtype=torch.float32)
            grad_x[piece] = cpu.product(grad_before, weight1)
        return (
            grad_x,
            grad_weight1.to(x.dtype),
            grad_weight2.to(x.dtype),
            grad_bias1.to(x.dtype) if needed[3] else None,
            grad.sum(dim=0) if needed[4] else None,
        )
