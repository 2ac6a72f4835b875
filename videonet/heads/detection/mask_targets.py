"""What a mask head learns from: ground-truth masks cut out by regions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align

from videonet.heads.detection.conventions import Conventions

MASKS_AT_ONCE = 32  # as float32 they take four times the memory of booleans


@torch.no_grad()
def cut_masks(
    masks: Tensor, matched: Tensor, boxes: Tensor, size: int, rules: Conventions
) -> Tensor:
    """The part of a mask within each box.

    Args:
        masks: ground truth (M, H, W).
        matched: number of the mask of every box (N,).
        boxes: (N, 4).
        size: cells per side that are wanted.
        rules: see :class:`Conventions`.

    Returns:
        (N, size, size), in 0..1.
    """
    cut = torch.zeros(len(boxes), size, size, device=boxes.device)
    needed = matched.unique()
    for part in needed.split(MASKS_AT_ONCE):
        chosen = torch.where(torch.isin(matched, part))[0]
        places = torch.searchsorted(part, matched[chosen])
        regions = torch.cat((places[:, None].float(), boxes[chosen].float()), dim=1)
        cells = roi_align(
            masks[part, None].float(), regions, size, aligned=rules.mask_targets_aligned
        )
        cut[chosen] = cells[:, 0]
    if rules.mask_target_threshold is not None:
        cut = (cut >= rules.mask_target_threshold).float()
    return cut


def mask_loss(logits: Tensor, targets: Tensor, labels: Tensor) -> Tensor:
    """Binary cross entropy of the masks of the true classes, 0 where there are none.

    Args:
        logits: (N, K, m, m).
        targets: (N, m, m).
        labels: (N,).
    """
    if not len(labels):
        return logits.sum() * 0
    of_class = logits[torch.arange(len(labels), device=labels.device), labels]
    return F.binary_cross_entropy_with_logits(of_class, targets)
