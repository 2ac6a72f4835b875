"""Exponential moving average of the weights (Polyak averaging, as arXiv 1512.00567, Sec. 8)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage:
    """Averages of all weights and buffers of a model, beside the model.

    torch's ``AveragedModel`` copies the whole module, which a sharded model does not allow; this
    holds tensors only, sharded ones as they are.

    Args:
        model: whose weights the averages start from.
        decay: see the attribute.

    Attributes:
        decay: the share of an average that is kept in each update.
        state: name -> average, in the order of ``model.state_dict()``.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.state: dict[str, Tensor] = {
            name: tensor.detach().clone() for name, tensor in model.state_dict().items()
        }

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move the averages towards the model's weights.

        The decay rises to its value as (1 + step) / (10 + step), so that a short run does not
        average over its random beginning.

        Args:
            model: after `step` steps of training.
            step: counted from the start of the run.
        """
        average = get_ema_multi_avg_fn(min(self.decay, (1 + step) / (10 + step)))
        means, weights = [], []
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                means.append(self.state[name])
                weights.append(tensor)
            else:  # a counter of batches
                self.state[name].copy_(tensor)
        average(means, weights, step)

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Replace the averages by saved ones."""
        for name, mean in self.state.items():
            mean.copy_(state[name])

    @contextlib.contextmanager
    def applied_to(self, model: nn.Module) -> Iterator[None]:
        """While entered, the model computes with the averages instead of its own weights."""
        own = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        _assign(model, self.state)
        try:
            yield
        finally:
            _assign(model, own)


@torch.no_grad()
def _assign(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    for name, tensor in model.state_dict().items():
        tensor.copy_(values[name])
