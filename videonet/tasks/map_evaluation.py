"""The results of a data set of label maps, and their figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from videonet.data.datasets.objects import Frames
from videonet.data.loading.dataset import Failure
from videonet.tasks.semantic_scores import SemanticScores
from videonet.tasks.task import RecordEvaluation, RecordTask


@dataclass(frozen=True)
class MapRecord:
    """What an evaluation keeps of a video or image.

    Attributes:
        confusion: pixels (K, K), a row per true class.
        number: of its first frame that was seen, in the file or folder.
        truth, found: small label maps of that frame, as PNG; what does not count is 255.
        frames: its name or number as in :class:`VideoObjects`, alone; None for an image, or a file
            whose frames are counted.
    """

    confusion: Tensor
    number: int
    truth: bytes
    found: bytes
    frames: Frames = None


@dataclass(repr=False)
class MapEvaluation(RecordEvaluation):
    """Records of label maps."""

    videos: Tensor
    records: list[MapRecord]
    task: RecordTask
    failures: list[Failure] = field(default_factory=list)

    @cached_property
    def scores(self) -> SemanticScores:
        """Over all pixels of the data set."""
        return SemanticScores.of(record.confusion for record in self.records)

    def measures(self) -> dict[str, float]:
        """Mean IoU, mean accuracy and accuracy of pixels in percent."""
        return {name: 100 * value for name, value in self.scores.stats().items()}

    def summary(self) -> dict[str, float]:
        """The same, and those of answering with the most frequent class everywhere."""
        truth = self.scores.confusion.sum(dim=1)
        constant = torch.zeros_like(self.scores.confusion)
        constant[:, int(truth.argmax())] = truth
        baseline = SemanticScores(constant).stats()
        chance = {f"majority_{name}": 100 * value for name, value in baseline.items()}
        return self.measures() | chance
