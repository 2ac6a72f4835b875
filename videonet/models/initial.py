"""What layers begin with: the weights of linear ones, and the rates at which paths are dropped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice

from torch import nn

from videonet.errors import ConfigError
from videonet.ops.linear import init_linear


def drop_path_rates(last: float, depth: int) -> list[float]:
    """Drop path rates of `depth` blocks, rising linearly from 0 to `last` (arXiv 1603.09382)."""
    return [last * i / max(depth - 1, 1) for i in range(depth)]


def stage_drop_path_rates(last: float, depths: Sequence[int]) -> list[list[float]]:
    """The same for blocks in stages: `depths` are their numbers, the rates go on rising."""
    rates = iter(drop_path_rates(last, sum(depths)))
    return [list(islice(rates, depth)) for depth in depths]


def init_linear_xavier(module: nn.Module) -> None:
    """Initialise a linear layer by Xavier's uniform distribution, for ``model.apply``.

    Glorot and Bengio 2010, Eq. 16; biases are 0.
    """
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def linear_initializer(name: str) -> Callable[[nn.Module], None]:
    """The function to ``apply`` to a model.

    Args:
        name: "normal", see :func:`init_linear`, or "xavier", see :func:`init_linear_xavier`. The
            two are alike in wide models; in narrow ones a deviation of 0.02 makes the branches
            of the residuals so small that a network is nearly linear at first.

    Raises:
        ConfigError: another name.
    """
    if name not in ("normal", "xavier"):
        raise ConfigError(f"linear_init is {name!r}, expected normal or xavier")
    return init_linear if name == "normal" else init_linear_xavier
