"""The seam between what is learnt and the engine, which knows tasks by this interface alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from fvcore.common.config import CfgNode
from torch import Tensor

from videonet.data.dataset import Failure, annotations_of
from videonet.data.lists import VideoList
from videonet.data.targets import Annotations, Targets

# (clips, targets, partners) -> mixed clips and targets; `partners` gives of a tensor with one row
# per clip the rows of what each is mixed with.
Mixing = Callable[[Tensor, Targets, Callable[[Tensor], Tensor]], tuple[Tensor, Targets]]


@dataclass
class Evaluation(ABC):
    """Results of a data set, one row per video, sorted by the video's place in the list.

    Attributes:
        videos: (M,) places in the list.
        labels: (M, …) what :meth:`Task.to_keep` gave.
        scores: (M, …) what :meth:`Task.join_views` gave.
        failures: videos that could not be read.
    """

    videos: Tensor
    labels: Tensor
    scores: Tensor
    failures: list[Failure] = field(default_factory=list)

    @abstractmethod
    def measures(self) -> dict[str, float]:
        """The figures of merit that training logs."""

    def summary(self) -> dict[str, float]:
        """Those of ``results.json``."""
        return self.measures()


class Task(ABC):
    """What is learnt: targets, outputs, loss, and what an evaluation measures and writes.

    Args:
        cfg: the configuration.

    Attributes:
        cfg: the same with what the data says filled in.
        num_outputs: of the model's head.
        names: of the outputs, kept in checkpoints and compared when a run is resumed or a head is
            loaded; None where they have none.
        mixing: mixes the clips and targets of a step; None for no mixing. Draws from torch's
            global CPU generator.
        evaluation: its kind.
    """

    num_outputs: int
    names: Sequence[str] | None = None
    mixing: Mixing | None = None
    evaluation: ClassVar[type[Evaluation]]

    def __init__(self, cfg: CfgNode):
        self.cfg = cfg

    @classmethod
    def from_config(cls, cfg: CfgNode, split: str, trained: Sequence[str] | None) -> Task:
        """See :func:`videonet.tasks.build_task`."""
        return cls(cfg)

    def annotate(self, videos: VideoList) -> Annotations:
        """What the targets of the clips of a list's videos are made from, and how.

        By default what the data set knows of them, which may be their labels alone.
        """
        return annotations_of(videos)

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Targets) -> Tensor:
        """Of a model's outputs (N, …) for clips with these targets: a mean over the clips."""

    @abstractmethod
    def join_views(self, outputs: Tensor, targets: Targets) -> Tensor:
        """One result of a video from the outputs of its views, (V, …), with these targets."""

    @abstractmethod
    def to_keep(self, targets: Targets) -> Tensor:
        """What an evaluation keeps of the targets of a video's views: one row of its labels."""

    def write(self, folder: Path, evaluation: Evaluation, paths: Sequence[str]) -> None:  # noqa: B027
        """Write what a test leaves beside ``results.json``; by default nothing.

        Args:
            paths: of all videos of the list.
        """
