"""Layer scale (CaiT, arXiv 2103.17239, Sec. 2): a learned factor per channel."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LayerScale(nn.Module):
    """(..., dim) -> (..., dim), every channel times its factor, which starts at `init`."""

    def __init__(self, dim: int, init: float):
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), float(init)))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma
