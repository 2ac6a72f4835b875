"""Mixup and CutMix: two clips and their labels become one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor


class Mixup:
    """Mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019) of a batch with itself reversed.

    One draw per batch, from torch's global CPU generator. The box of CutMix is the same in all
    frames.

    Args:
        alpha: of the beta distribution of Mixup's shares; 0 for CutMix alone.
        cutmix_alpha: the same of CutMix; 0 for Mixup alone.
        prob: the probability that a batch is mixed at all.
        switch_prob: the probability of CutMix where both alphas are above 0.
        num_classes: K.
        label_smoothing: see :func:`soft_targets`.
    """

    def __init__(
        self,
        alpha: float,
        cutmix_alpha: float,
        prob: float,
        switch_prob: float,
        num_classes: int,
        label_smoothing: float = 0.0,
    ):
        self.alpha, self.cutmix_alpha = alpha, cutmix_alpha
        self.prob, self.switch_prob = prob, switch_prob
        self.num_classes, self.label_smoothing = num_classes, label_smoothing

    def __call__(
        self,
        clips: Tensor,
        labels: Tensor,
        partners: Callable[[Tensor], Tensor] = lambda values: values.flip(0),
        *,
        in_place: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Mix the clips and labels of a batch.

        Args:
            clips: float (N, 3, T, H, W).
            labels: (N,) classes.
            partners: takes a tensor with one row per clip and returns, in each row of a new one,
                that of the clip which it is mixed with.
            in_place: the memory of `clips` may be written to, which saves a copy.

        Returns:
            Mixed clips and soft targets (N, K).
        """
        lam, cut = self._draw()
        if cut and lam < 1:
            clips, lam = self._cut(clips if in_place else clips.clone(), partners, lam)
        elif lam < 1:
            clips = partners(clips).lerp_(clips, lam)
        targets = soft_targets(labels, self.num_classes, self.label_smoothing)
        return clips, lam * targets + (1 - lam) * partners(targets)

    def _draw(self) -> tuple[float, bool]:
        """The share that stays, and whether the rest comes as a box."""
        rng = np.random.default_rng(int(torch.randint(2**62, ())))
        cut = self.cutmix_alpha > 0 and (self.alpha <= 0 or rng.random() < self.switch_prob)
        alpha = self.cutmix_alpha if cut else self.alpha
        if alpha <= 0 or rng.random() >= self.prob:
            return 1.0, False
        return float(rng.beta(alpha, alpha)), cut

    @staticmethod
    def _cut(
        clips: Tensor, partners: Callable[[Tensor], Tensor], lam: float
    ) -> tuple[Tensor, float]:
        """Paste a box of share ``1 - lam`` around a random centre, in place.

        Returns:
            The clips, and the share of them that remains.
        """
        height, width = clips.shape[-2:]
        half = np.sqrt(1 - lam) / 2
        row, column = int(torch.randint(height, ())), int(torch.randint(width, ()))
        top, bottom = (max(0, int(row - half * height)), min(height, int(row + half * height)))
        left, right = (
            max(0, int(column - half * width)),
            min(width, int(column + half * width)),
        )
        box = clips[..., top:bottom, left:right]
        box.copy_(partners(box))
        return clips, 1 - (bottom - top) * (right - left) / (height * width)


def soft_targets(labels: Tensor, num_classes: int, smoothing: float = 0.0) -> Tensor:
    """One-hot targets, of which a share is spread over all classes.

    Args:
        labels: (N,) classes.
        num_classes: K.
        smoothing: the share.

    Returns:
        float (N, K); each row sums to 1.
    """
    # F.one_hot would read the largest label, for which the host has to wait.
    targets = torch.zeros(len(labels), num_classes, device=labels.device)
    targets.scatter_(1, labels.unsqueeze(1), 1.0)
    return targets * (1 - smoothing) + smoothing / num_classes
