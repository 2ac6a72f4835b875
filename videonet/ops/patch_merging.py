"""Downsampling of Swin (arXiv 2103.14030), Sec. 3.1: four neighbours become one token."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class PatchMerging(nn.Module):
    """Concatenate each 2×2 neighbourhood in space, norm, and project to twice the width.

    An odd height or width is padded with zeros at its end. Time stays as it is.
    """

    def __init__(self, dim: int, norm_eps: float):
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim, eps=norm_eps)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, H, W, C) -> (B, T, ceil(H/2), ceil(W/2), 2C)."""
        height, width = x.shape[2:4]
        if height % 2 or width % 2:
            x = F.pad(x, (0, 0, 0, width % 2, 0, height % 2))
        x = x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))  # (B, T, H/2, 2, W/2, 2, C)
        # The official order of the four: upper left, lower left, upper right, lower right.
        x = x.permute(0, 1, 2, 4, 5, 3, 6).flatten(4)  # (B, T, H/2, W/2, 4C)
        return self.reduction(self.norm(x))
