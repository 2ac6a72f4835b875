"""How good scores of classes are: accuracy, average precision, calibration."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from videonet.tasks.task import Evaluation

PART = 2**22  # scores that are worked on at a time
BINS = 15  # of the calibration error, as in arXiv 1706.04599
# torchmetrics takes a second to import, so it is imported where it computes.


@dataclass(repr=False)
class ClassScores(Evaluation):
    """Probabilities ``scores`` (M, K); ``labels`` are classes (M,) or zeros and ones (M, K).

    Memory holds the scores, four bytes per video and class, and with several labels a video as
    many bytes of labels; the figures of merit add little to that.
    """

    @property
    def multi_label(self) -> bool:
        """Whether a video may have several labels."""
        return self.labels.dim() == 2

    @property
    def num_classes(self) -> int:
        """K."""
        return self.scores.shape[1]

    def measures(self) -> dict[str, float]:
        """The figures of merit: loss, and top-1 and top-5 or mAP, in percent."""
        if self.multi_label:
            return {"loss": self.loss(), "mAP": 100 * self.mean_average_precision()}
        return {
            "loss": self.loss(),
            "top1": 100 * self.accuracy(1),
            "top5": 100 * self.accuracy(5),
        }

    @functools.cached_property
    def best(self) -> tuple[Tensor, Tensor]:
        """The highest score of each video and its class, (M,) each."""
        confidence, guess = self.scores.max(dim=1)
        return confidence, guess

    def summary(self) -> dict[str, float]:
        """The measures, and with one label per video the mean over classes and the calibration."""
        if self.multi_label:
            return self.measures()
        return self.measures() | {
            "mean_class_accuracy": 100 * self.class_accuracy().nanmean().item(),
            "calibration_error": 100 * self.calibration_error(),
        }

    def accuracy(self, top_k: int = 1) -> float:
        """Share of videos whose label is among the `top_k` highest scores."""
        if top_k == 1:
            return (self.best[1] == self.labels).double().mean().item()
        top_k = min(top_k, self.num_classes)
        right = torch.zeros((), dtype=torch.int64)
        for scores, labels in self._parts():
            right += (scores.topk(top_k).indices == labels.unsqueeze(1)).sum()
        return (right / len(self.labels)).item()

    def _parts(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Scores and labels of some videos at a time, which keeps intermediate results small."""
        rows = max(1, PART // self.num_classes)
        return zip(self.scores.split(rows), self.labels.split(rows), strict=True)

    def loss(self) -> float:
        """The mean cross entropy; with several labels the binary one, over all classes.

        Scores below 1e-12 count as 1e-12.
        """
        if self.multi_label:
            total = torch.zeros((), dtype=torch.float64)
            for scores, labels in self._parts():
                scores = scores.double().clamp(1e-12, 1 - 1e-12)
                total += F.binary_cross_entropy(scores, labels.double(), reduction="sum")
            return total.item() / self.scores.numel()
        picked = self.scores.gather(1, self.labels.unsqueeze(1))
        return -picked.clamp_min(1e-12).log().mean().item()

    def average_precision(self) -> Tensor:
        """The average precision of each class, (K,); NaN where no video has it."""
        from torchmetrics.functional.classification import binary_average_precision

        precisions = torch.full((self.num_classes,), torch.nan)
        for k, labels in enumerate(self.labels.unbind(dim=1)):
            if labels.any():
                precisions[k] = binary_average_precision(self.scores[:, k], labels.long())
        return precisions

    def mean_average_precision(self) -> float:
        """Mean over the classes that some video has."""
        return self.average_precision().nanmean().item()

    def class_counts(self) -> tuple[Tensor, Tensor]:
        """How many videos of each class there are, and how many of them are recognised, (K,)."""
        right = self.labels[self.best[1] == self.labels]
        videos, right = (
            torch.bincount(labels, minlength=self.num_classes) for labels in (self.labels, right)
        )
        return videos, right

    def class_accuracy(self) -> Tensor:
        """Share of each class's videos that are recognised, (K,); NaN where there are none."""
        videos, right = self.class_counts()
        return right / videos

    def confusion(self) -> Tensor:
        """Counts (K, K): row is the true class, column the highest score."""
        from torchmetrics.functional.classification import multiclass_confusion_matrix

        return multiclass_confusion_matrix(self.best[1], self.labels, self.num_classes)

    def confused(self) -> Tensor:
        """(true class, class of the highest score, videos) of all pairs that occur, (P, 3)."""
        pairs = self.labels * self.num_classes + self.best[1]
        found, counts = pairs.unique(return_counts=True)
        return torch.stack((found // self.num_classes, found % self.num_classes, counts), dim=1)

    def calibration_error(self) -> float:
        """Expected calibration error of the highest score in ``BINS`` bins (arXiv 1706.04599)."""
        scores, accuracy, counts = self.reliability()
        gaps = (scores - accuracy).abs().nan_to_num() * counts
        return (gaps.sum() / counts.sum()).item()

    def reliability(self) -> tuple[Tensor, Tensor, Tensor]:
        """Mean highest score, accuracy and number of videos of each of the ``BINS`` bins."""
        confidence, guess = self.best
        right = (guess == self.labels).double()
        bins = (confidence * BINS).ceil().long().sub(1).clamp(0, BINS - 1)  # (0, 1/BINS], …
        empty = torch.zeros(BINS, dtype=torch.float64)
        counts = empty.index_add(0, bins, torch.ones_like(right))
        scores = empty.index_add(0, bins, confidence.double())
        return scores / counts, empty.index_add(0, bins, right) / counts, counts
