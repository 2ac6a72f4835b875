"""Maps of the plane, that pixels and targets move by.

A map is a matrix (3, 3) that takes a place ``(x, y, 1)`` before to the place after, both in
pixels, where pixel k reaches from k to k + 1. Maps are joined by ``@``, the later one first, and
used once, so that a mask is sampled once however many steps there were.
"""

from __future__ import annotations

import torch
from torch import Tensor

Size = tuple[int, int]  # height, width


def scaling(before: Size, after: Size) -> Tensor:
    """A picture of one size stretched to another."""
    return torch.diag(
        torch.tensor([after[1] / before[1], after[0] / before[0], 1.0], dtype=torch.float64)
    )


def shifting(across: float, down: float) -> Tensor:
    """A move to the right and down."""
    matrix = torch.eye(3, dtype=torch.float64)
    matrix[0, 2], matrix[1, 2] = across, down
    return matrix


def mirroring(width: int) -> Tensor:
    """Left and right change places."""
    matrix = shifting(width, 0)
    matrix[0, 0] = -1
    return matrix


def frame_size(clip: Tensor) -> Size:
    """Height and width of the frames of a clip or mask (…, H, W)."""
    height, width = clip.shape[-2:]
    return height, width
