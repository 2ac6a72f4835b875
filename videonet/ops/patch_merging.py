"""Downsampling of Swin (arXiv 2103.14030, Sec. 3.1) and AS-MLP: four neighbours, one token."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class PatchMerging(nn.Module):
    """Concatenate each 2×2 neighbourhood in space, norm, and project to twice the width.

    An odd height or width is padded with zeros at its end. Time stays as it is.

    Args:
        norm: of four tokens side by side, 4C wide.
        reduction: from 4C to 2C.
    """

    def __init__(self, norm: nn.Module, reduction: nn.Module):
        super().__init__()
        self.norm = norm
        self.reduction = reduction

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, H, W, C) -> (B, T, ceil(H/2), ceil(W/2), 2C)."""
        height, width = x.shape[2:4]
        if height % 2 or width % 2:
            x = F.pad(x, (0, 0, 0, width % 2, 0, height % 2))
        x = x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))  # (B, T, H/2, 2, W/2, 2, C)
        # The official order of the four: upper left, lower left, upper right, lower right.
        x = x.permute(0, 1, 2, 4, 5, 3, 6).flatten(4)  # (B, T, H/2, W/2, 4C)
        return self.reduction(self.norm(x))
