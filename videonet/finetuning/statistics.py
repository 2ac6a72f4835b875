"""Intervals of accuracies, doubtful videos, suspected labels, and what to do about all that."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from videonet.tasks.class_scores import ClassScores

NORMAL = 1.96  # of an interval of 95 %
SURE = 0.6  # score from which on a disagreement speaks against the label
UNLIKELY = 0.1  # score of the label up to which it does


def wilson(right: int, total: int, z: float = NORMAL) -> tuple[float, float]:
    """The interval of a share, by Wilson (1927, doi 10.1080/01621459.1927.10502953).

    Args:
        right: of `total`.
        total: how many were looked at; 0 gives the whole range.
        z: how wide: 1.96 for 95 %.
    """
    if not total:
        return 0.0, 1.0
    share, square = right / total, z * z / total
    middle = (share + square / 2) / (1 + square)
    half = z * math.sqrt(share * (1 - share) / total + square / (4 * total)) / (1 + square)
    return max(0.0, middle - half), min(1.0, middle + half)


@dataclass(frozen=True)
class Judged:
    """A video with the scores that a model gave it.

    Attributes:
        path: the file.
        label: number of the class that it is labelled with.
        guess: number of the class with the highest score.
        top: (number, score) of the highest scores, best first.
        score: of the label.
        seen: whether the model was trained with this label.
    """

    path: str
    label: int
    guess: int
    top: Sequence[tuple[int, float]]
    score: float
    seen: bool = False

    @property
    def right(self) -> bool:
        """Whether the highest score is that of the label."""
        return self.guess == self.label

    @property
    def margin(self) -> float:
        """The highest score less the second."""
        return self.top[0][1] - (self.top[1][1] if len(self.top) > 1 else 0.0)


def judged(paths: Sequence[str], evaluation: ClassScores, shown: int = 3) -> list[Judged]:
    """Every video of an evaluation with its highest scores.

    Args:
        paths: of the videos of the evaluation, in its order.
        evaluation: their scores.
        shown: the number of scores that are kept.
    """
    best = evaluation.scores.topk(min(shown, evaluation.num_classes), dim=1)
    of_label = evaluation.scores.gather(1, evaluation.labels.unsqueeze(1)).squeeze(1)
    rows = zip(
        paths,
        evaluation.labels.tolist(),
        best.indices.tolist(),
        best.values.tolist(),
        of_label.tolist(),
        strict=True,
    )
    return [
        Judged(path, label, numbers[0], list(zip(numbers, scores, strict=True)), score)
        for path, label, numbers, scores, score in rows
    ]


def worst(videos: Sequence[Judged], most: int) -> list[Judged]:
    """The wrong ones, those first whose label has the lowest score."""
    return sorted((v for v in videos if not v.right), key=lambda v: v.score)[:most]


def doubtful(videos: Sequence[Judged], most: int) -> list[Judged]:
    """Those whose two highest scores are nearest to one another."""
    return sorted(videos, key=lambda v: v.margin)[:most]


def suspects(videos: Sequence[Judged], most: int) -> list[Judged]:
    """Those whose label may be wrong: another class is sure, and the label next to excluded."""
    found = (v for v in videos if not v.right and v.top[0][1] >= SURE and v.score <= UNLIKELY)
    return sorted(found, key=lambda v: v.score - v.top[0][1])[:most]


def confused_pairs(confusion: Tensor, most: int) -> list[tuple[int, int, int]]:
    """(class, class that it is taken for, videos), the most frequent first."""
    counts = confusion.clone()
    counts.fill_diagonal_(0)
    size = len(counts)
    order = counts.flatten().argsort(descending=True, stable=True)[:most].tolist()
    return [(k // size, k % size, n) for k in order if (n := int(counts.flatten()[k]))]
