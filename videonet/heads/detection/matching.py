"""Which ground truth a box stands for, and which boxes a step learns from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import box_iou

POSITIVE, NEGATIVE, IGNORED = 1, 0, -1


def match_boxes(
    truth: Tensor,
    boxes: Tensor,
    high: float,
    low: float,
    *,
    low_quality: bool = False,
    to_best: bool = True,
    least: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Assign to every box the ground truth that it overlaps most.

    Args:
        truth: ground-truth boxes (M, 4), M may be 0.
        boxes: (N, 4).
        high: from this IoU on a box is positive.
        low: below this IoU it is negative; between the two it is ignored.
        low_quality: whether the boxes that overlap a ground truth most, ties included, are
            positive whatever their IoU.
        to_best: such a box stands for the ground truth that it overlaps most; else for the one
            that it is the best for.
        least: IoU that it needs for that; overlaps of 0 never count.

    Returns:
        Indices of the ground truth (N,), and POSITIVE, NEGATIVE or IGNORED (N,).
    """
    labels = torch.full((len(boxes),), NEGATIVE, dtype=torch.int64, device=boxes.device)
    if not len(truth) or not len(boxes):
        return torch.zeros_like(labels), labels
    overlaps = torch.nan_to_num(box_iou(truth.float(), boxes.float()))  # (M, N)
    best, matched = overlaps.max(dim=0)
    labels[best >= low] = IGNORED
    labels[best >= high] = POSITIVE
    if low_quality:
        top = overlaps.max(dim=1, keepdim=True).values
        is_top = (overlaps == top) & (top > 0) & (top >= least)
        chosen = is_top.any(dim=0)
        labels[chosen] = POSITIVE
        if not to_best:  # the last ground truth of those that the box is the best for
            last = is_top.long().flip(0).argmax(dim=0)
            matched = torch.where(chosen, len(truth) - 1 - last, matched)
    return matched, labels


def sample_boxes(labels: Sequence[Tensor], number: int, positive_fraction: float) -> list[Tensor]:
    """Draw boxes to learn from out of a group of frames.

    Args:
        labels: POSITIVE, NEGATIVE or IGNORED for the boxes of each frame, (N_i,).
        number: of boxes that are drawn from the group, fewer where there are fewer.
        positive_fraction: the greatest share of `number` that is positive.

    Returns:
        Indices of the boxes drawn from each frame, in rising order.
    """
    if not labels:
        return []
    together = torch.cat(list(labels))
    positive = torch.where(together == POSITIVE)[0]
    negative = torch.where(together == NEGATIVE)[0]
    num_positive = min(len(positive), int(number * positive_fraction))
    num_negative = min(len(negative), number - num_positive)
    drawn = torch.zeros_like(together, dtype=torch.bool)
    for places, wanted in ((positive, num_positive), (negative, num_negative)):
        order = torch.randperm(len(places), device=places.device)
        drawn[places[order[:wanted]]] = True
    parts = drawn.split([len(of_frame) for of_frame in labels])
    return [torch.where(part)[0] for part in parts]
