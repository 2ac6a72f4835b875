"""The seam between what is learnt and the engine, which knows tasks by this interface alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
from fvcore.common.config import CfgNode
from torch import Tensor

from videonet.data.dataset import Failure
from videonet.data.lists import MultiHot, VideoList

# (clips, targets, partners) -> mixed clips and targets; `partners` gives of a tensor with one row
# per clip the rows of what each is mixed with.
Mixing = Callable[[Tensor, Tensor, Callable[[Tensor], Tensor]], tuple[Tensor, Tensor]]


@dataclass
class Evaluation(ABC):
    """Results of a data set, one row per video, sorted by the video's place in the list.

    Attributes:
        videos: (M,) places in the list.
        labels: (M, …) targets.
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

    def targets(self, videos: VideoList) -> np.ndarray | MultiHot:
        """What is learnt of each video of a list, (videos, …); by default the list's labels."""
        return videos.labels

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Of a model's outputs (N, …) for clips with these targets: a mean over the clips."""

    @abstractmethod
    def join_views(self, outputs: Tensor, target: Tensor) -> Tensor:
        """One result of a video with this target from the outputs of its views, (V, …)."""

    def compact(self, target: Tensor) -> Tensor:
        """The target of a video as an evaluation keeps it, in little memory; by default itself."""
        return target

    def write(self, folder: Path, evaluation: Evaluation, paths: Sequence[str]) -> None:  # noqa: B027
        """Write what a test leaves beside ``results.json``; by default nothing.

        Args:
            paths: of all videos of the list.
        """
