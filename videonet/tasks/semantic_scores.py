"""How good label maps are: intersection over union of classes, accumulated over a data set."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from videonet.errors import DataError

IGNORED = 255  # label of pixels that do not count


def confusion(
    predicted: Tensor, labels: Tensor, num_classes: int, ignored: int = IGNORED
) -> Tensor:
    """How many pixels of each class were taken for which, (K, K) int64; row: the true class.

    Args:
        predicted: classes, integers of any shape.
        labels: true classes, integers of the same shape.
        num_classes: K.
        ignored: label of pixels that do not count.

    Raises:
        DataError: the shapes differ, or there is no such class.
    """
    if predicted.shape != labels.shape:
        raise DataError(
            f"predicted classes of shape {tuple(predicted.shape)} for labels of shape "
            f"{tuple(labels.shape)}"
        )
    counts = labels != ignored
    truth, found = labels[counts].long(), predicted[counts].long()
    for name, classes in (("label", truth), ("predicted class", found)):
        if classes.numel() and not 0 <= int(classes.min()) <= int(classes.max()) < num_classes:
            wrong = int(classes[(classes < 0) | (classes >= num_classes)][0])
            raise DataError(f"the {name} {wrong} is outside 0 … {num_classes - 1}")
    pairs = torch.bincount(truth * num_classes + found, minlength=num_classes**2)
    return pairs.reshape(num_classes, num_classes)


@dataclass(frozen=True)
class SemanticScores:
    """The figures of a data set; classes that occur nowhere are NaN and do not count.

    Attributes:
        confusion: pixels (K, K), a row per true class.
    """

    confusion: Tensor

    @classmethod
    def of(cls, parts: Iterable[Tensor]) -> SemanticScores:
        """Of the pixels of all images, see :func:`confusion`."""
        return cls(torch.stack(list(parts)).sum(dim=0))

    def iou(self) -> Tensor:
        """Intersection over union of each class, (K,)."""
        both = self.confusion.diagonal().double()
        return both / (self.confusion.sum(dim=0) + self.confusion.sum(dim=1) - both)

    def accuracy(self) -> Tensor:
        """Share of each class's pixels that are recognised, (K,)."""
        return self.confusion.diagonal().double() / self.confusion.sum(dim=1)

    def stats(self) -> dict[str, float]:
        """Mean IoU and accuracy over classes, and the accuracy of pixels, from 0 to 1."""
        right = self.confusion.diagonal().sum().double() / self.confusion.sum()
        return {
            "mIoU": self.iou().nanmean().item(),
            "mAcc": self.accuracy().nanmean().item(),
            "aAcc": right.item(),
        }
