"""The results of a data set of objects, and their figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor

from videonet.data.loading.dataset import Failure
from videonet.tasks.average_precision import AveragePrecision
from videonet.tasks.object_scores import ObjectRecord, davis_scores, object_scores
from videonet.tasks.task import RecordEvaluation, RecordTask
from videonet.tasks.tracks import joined_records

SHOWN = ("AP", "AP50")  # of each kind of scores, in validations


@dataclass(repr=False)
class ObjectEvaluation(RecordEvaluation):
    """Records of the objects that were found, see :class:`ObjectRecord`.

    Tracks of the pieces of a video have been joined.
    """

    videos: Tensor
    records: list[ObjectRecord]
    task: RecordTask
    failures: list[Failure] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.records = joined_records(self.records)

    @cached_property
    def scores(self) -> dict[str, AveragePrecision]:
        """Average precision by its kind, see :func:`object_scores`."""
        return object_scores(self.records, self.task.num_outputs)

    def measures(self) -> dict[str, float]:
        """AP and AP50 of boxes, masks, boundaries and videos in percent, without those of none."""
        return {
            f"{kind}_{name}": 100 * value
            for kind, found in self.scores.items()
            for name, value in found.stats().items()
            if name in SHOWN and value >= 0
        }

    def summary(self) -> dict[str, float]:
        """All figures of COCO, and J and F of DAVIS for videos of one object each."""
        figures = {
            f"{kind}_{name}": 100 * value
            for kind, found in self.scores.items()
            for name, value in found.stats().items()
            if value >= 0
        }
        objects: dict[int, set[int]] = {}
        for record in self.records:
            objects.setdefault(record.video, set()).update(one.number for one in record.truth)
        if "video" in self.scores and all(len(numbers) == 1 for numbers in objects.values()):
            figures |= {name: 100 * value for name, value in davis_scores(self.records).items()}
        return figures
