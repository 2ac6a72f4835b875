"""Attentive probes trained side by side: their parameters are stacked, the tokens are shared.

So every clip is read once for all of them, and their products with its tokens are one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from videonet.heads.attentive import AttentiveProbe, Keys, Read, read_tokens


class StackedProbes:
    """Copies of an attentive probe, each with parameters of its own.

    Args:
        probe: whose parameters all copies begin with; it is not changed.
        count: H.

    Attributes:
        parameters: by name, with the copies as first dimension.
    """

    def __init__(self, probe: AttentiveProbe, count: int):
        self._probe = probe
        self.parameters = {
            name: parameter.detach().expand(count, *parameter.shape).clone().requires_grad_()
            for name, parameter in probe.named_parameters()
        }

    def __call__(self, tokens: Tensor) -> Tensor:
        """The logits of every copy for the same tokens, (B, N, C) -> (H, B, K)."""
        pooler = self._probe.pooler
        if len(pooler.blocks):  # every copy makes tokens of its own first
            return self._each(lambda: self._probe(tokens))
        keys = self._each(lambda: _given(pooler.keys()))  # (H, rows, …)
        rows = Keys(*(part.flatten(0, 1) for part in keys))
        found = read_tokens(pooler.normed(tokens), rows, pooler.num_prefix_tokens)
        copies = len(keys[0])
        # (B, H * rows, …) -> (H, B, rows, …)
        read = [part.unflatten(1, (copies, -1)).transpose(0, 1) for part in _given(found)]
        return self._each(lambda *own: self._probe.classify(pooler.finish(Read(*own))), *read)

    def _each(self, function: Callable, *inputs: Any) -> Any:
        """Call a function of the probe with the parameters of every copy."""
        called = _Called(self._probe, function)

        def one(parameters: dict[str, Tensor], *parts: Any) -> Any:
            named = {f"probe.{name}": tensor for name, tensor in parameters.items()}
            return functional_call(called, named, parts)

        return vmap(one, randomness="different")(self.parameters, *inputs)

    def train(self, mode: bool = True) -> None:
        """Training mode, or evaluation mode."""
        self._probe.train(mode)

    def state(self, index: int) -> dict[str, Tensor]:
        """The parameters of one copy."""
        return {name: tensor.detach()[index].clone() for name, tensor in self.parameters.items()}


def _given(parts: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    """Those that are there."""
    return tuple(part for part in parts if part is not None)


class _Called(nn.Module):
    """A module that calls a function of a probe, for ``functional_call``."""

    def __init__(self, probe: AttentiveProbe, function: Callable):
        super().__init__()
        self.probe, self._function = probe, function

    def forward(self, *inputs: Any) -> Any:
        return self._function(*inputs)


class StackedAdamW:
    """AdamW (arXiv 1711.05101) with a learning rate and a weight decay for each copy.

    Args:
        parameters: of :class:`StackedProbes`.
        rates: of the copies.
        decays: of the copies.
        no_decay: names of parameters without decay; vectors have none either.
        betas, eps: as for ``torch.optim.AdamW``.
    """

    def __init__(
        self,
        parameters: dict[str, Tensor],
        rates: Sequence[float],
        decays: Sequence[float],
        no_decay: set[str],
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ):
        self._parameters, self._betas, self._eps, self._step = parameters, betas, eps, 0
        self._rates, self._decays = torch.tensor(rates), torch.tensor(decays)
        self._decayed = {
            name for name, p in parameters.items() if p.dim() > 2 and name not in no_decay
        }
        self._means = {name: torch.zeros_like(p) for name, p in parameters.items()}
        self._squares = {name: torch.zeros_like(p) for name, p in parameters.items()}

    @torch.no_grad()
    def step(self, factor: float) -> None:
        """Update all parameters by their gradients, which are taken away.

        Args:
            factor: on the learning rates.
        """
        self._step += 1
        first, second = (1 - beta**self._step for beta in self._betas)
        for name, p in self._parameters.items():
            if p.grad is None:
                continue
            rates = (factor * self._rates).view(-1, *[1] * (p.dim() - 1)).to(p)
            mean, square = self._means[name], self._squares[name]
            mean.lerp_(p.grad, 1 - self._betas[0])
            square.mul_(self._betas[1]).addcmul_(p.grad, p.grad, value=1 - self._betas[1])
            if name in self._decayed:
                p.mul_(1 - rates * self._decays.view_as(rates).to(p))
            p.sub_(rates / first * mean / ((square / second).sqrt_().add_(self._eps)))
            p.grad = None
