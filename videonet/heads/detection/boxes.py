"""Boxes as differences from other boxes, and the losses of such differences.

Boxes are (x1, y1, x2, y2) in pixels, corners at pixel edges, in float32 whatever autocast says.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import generalized_box_iou_loss

from videonet.heads.detection.conventions import BoxLoss, Weights

LARGEST_LOG_SCALE = math.log(1000 / 16)  # keeps exp finite, for all three projects the same


def _centres_and_sides(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """(..., 4) -> centres (..., 2) and sides (..., 2)."""
    sides = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + 0.5 * sides, sides


def encode_boxes(boxes: Tensor, references: Tensor, weights: Weights) -> Tensor:
    """Deltas that lead from references to boxes (R-CNN, arXiv 1311.2524, Appendix C).

    Args:
        boxes, references: (N, 4), sides above 0.
        weights: factors of (dx, dy, dw, dh).

    Returns:
        (N, 4): shifts in units of the reference's sides, logarithms of ratios of the sides.
    """
    centres, sides = _centres_and_sides(boxes.float())
    from_centres, from_sides = _centres_and_sides(references.float())
    shifts, scales = (centres - from_centres) / from_sides, torch.log(sides / from_sides)
    deltas = torch.cat((shifts, scales), dim=-1)
    return deltas * deltas.new_tensor(weights)


def decode_boxes(
    deltas: Tensor, references: Tensor, weights: Weights, clamp_shrinking: bool = False
) -> Tensor:
    """Boxes at given deltas from references.

    Args:
        deltas: (N, K, 4), as :func:`encode_boxes` gives them, K for each reference.
        references: (N, 4).
        weights: factors of (dx, dy, dw, dh) in the deltas.
        clamp_shrinking: see :class:`Conventions`.

    Returns:
        (N, K, 4), not clipped.
    """
    deltas = deltas.float() / deltas.new_tensor(weights, dtype=torch.float32)
    centres, sides = _centres_and_sides(references.float()[:, None])  # (N, 1, 2)
    least = -LARGEST_LOG_SCALE if clamp_shrinking else None
    scales = deltas[..., 2:].clamp(least, LARGEST_LOG_SCALE)
    centres = deltas[..., :2] * sides + centres
    half = 0.5 * (scales.exp() * sides)
    return torch.cat((centres - half, centres + half), dim=-1)


def are_usable(boxes: Tensor, least_side: float | None = 0.0) -> Tensor:
    """Which boxes are finite and have sides above 0, and of at least `least_side` pixels.

    Args:
        boxes: (N, 4).
        least_side: None for finite ones of any size.

    Returns:
        Booleans (N,).
    """
    finite = boxes.isfinite().all(dim=-1)
    if least_side is None:
        return finite
    sides = boxes[..., 2:] - boxes[..., :2]
    return finite & ((sides > 0) & (sides >= least_side)).all(dim=-1)


def box_loss(
    loss: BoxLoss,
    deltas: Tensor,
    references: Tensor,
    boxes: Tensor,
    weights: Weights,
    clamp_shrinking: bool = False,
) -> Tensor:
    """The loss of predicted deltas, summed over boxes and weighted.

    Args:
        deltas: (N, 4), predicted.
        references: (N, 4) that they start from.
        boxes: (N, 4), the ground truth.
        weights, clamp_shrinking: see :func:`decode_boxes`.
    """
    deltas = deltas.float()
    if loss.kind == "giou":
        decoded = decode_boxes(deltas[:, None], references, weights, clamp_shrinking)[:, 0]
        return loss.weight * generalized_box_iou_loss(decoded, boxes.float(), reduction="sum")
    targets = encode_boxes(boxes, references, weights)
    beta = loss.beta if loss.kind == "smooth_l1" else 0.0
    return loss.weight * F.smooth_l1_loss(deltas, targets, reduction="sum", beta=beta)
