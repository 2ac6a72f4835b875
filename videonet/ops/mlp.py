"""The two-layer perceptron of a transformer block."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from videonet.errors import ConfigError


def quick_gelu(x: Tensor) -> Tensor:
    """The sigmoid approximation of GELU (arXiv 1606.08415, Sec. 2), as in CLIP and CvT."""
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "quick_gelu": quick_gelu,
}


class Mlp(nn.Module):
    """Linear, activation, linear, with dropout after each linear; (..., dim) -> (..., dim_out).

    Args:
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
        self.norm = None if norm_eps is None else nn.LayerNorm(hidden, eps=norm_eps)
        self.fc2 = linear(hidden, dim_out, bias=bias)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        x = F.dropout(self.activation(self.fc1(x)), self.dropout, self.training)
        if self.norm is not None:
            x = self.norm(x)
        return F.dropout(self.fc2(x), self.dropout, self.training)
