"""Stochastic depth (arXiv 1603.09382): residual branches that training leaves out at random."""

from __future__ import annotations

import torch
from torch import Tensor, nn

MODES = ("row", "batch")


class StochasticDepth(nn.Module):
    """Zeros whole clips, or the whole batch, in training, and scales what stays.

    The numbers and the draws are those of ``torchvision.ops.StochasticDepth``, which it stands for
    because importing torchvision takes a third of the time that a command needs to start.

    Args:
        p: the probability that a row is zeroed.
        mode: "row" draws for each row of the batch, "batch" once for all of them.

    Raises:
        ValueError: a probability outside of 0 to 1, or another mode.
    """

    def __init__(self, p: float, mode: str = "row"):
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"the drop probability is {p}, expected 0 to 1")
        if mode not in MODES:
            raise ValueError(f"the mode is {mode!r}, expected {' or '.join(MODES)}")
        self.p, self.mode = p, mode

    def forward(self, x: Tensor) -> Tensor:
        """(B, …) -> (B, …); x itself in evaluation."""
        if not self.training or self.p == 0:
            return x
        shape = (x.shape[0] if self.mode == "row" else 1, *[1] * (x.dim() - 1))
        kept = torch.empty(shape, dtype=x.dtype, device=x.device).bernoulli_(1 - self.p)
        if self.p < 1:
            kept.div_(1 - self.p)
        return x * kept

    def extra_repr(self) -> str:
        """Shown as torchvision's."""
        return f"p={self.p}, mode={self.mode}"
