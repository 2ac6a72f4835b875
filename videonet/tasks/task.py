"""The interface between a task and the rest of the package, which knows tasks by it alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, cast

import numpy as np
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from videonet.config import model_arguments
from videonet.config.arguments import without_nodes
from videonet.config.reading import read_text
from videonet.data.datasets.lists import VideoList
from videonet.data.loading.dataset import Failure, annotations_of
from videonet.data.targets import Annotations, Targets
from videonet.models import create_model
from videonet.models.base import VideoModel
from videonet.tasks.segments import Hysteresis, Segment
from videonet.terminal import ShortRepr

if TYPE_CHECKING:
    from videonet.heads.detection import Detector
    from videonet.models.segmenter import SemanticSegmenter

# (clips, targets, partners) -> mixed clips and targets. `partners` takes a tensor with one row per
# clip and returns, in each row, that of the clip which it is mixed with.
Mixing = Callable[[Tensor, Targets, Callable[[Tensor], Tensor]], tuple[Tensor, Targets]]
Model: TypeAlias = "VideoModel | Detector | SemanticSegmenter"
Top = list[tuple[str, float]]  # (name, value), the most important first


@dataclass(frozen=True)
class Trained:
    """What a checkpoint says of the task that its model was trained for.

    Attributes:
        origin: the file, for messages.
        names: of the model's outputs; None where the checkpoint does not say.
        config: the configuration of the training as YAML text; empty where it is not known.
    """

    origin: str = ""
    names: Sequence[str] | None = None
    config: str = ""

    def setting(self, key: str, default: Any) -> Any:
        """The value of a key in training.

        Args:
            key: with its groups, such as ``MODEL.LOSS_FUNC``.
            default: returned where the configuration of the training is not known.

        Returns:
            The value; None where the configuration of the training lacks the key.
        """
        if not self.config:
            return default
        entry = read_text(self.config, f"{self.origin} (cfg)").get(key)
        return None if entry is None else entry.value


class Results(ShortRepr, ABC):
    """The results of a data set, in the order of its list.

    Attributes:
        videos: (M,) places in the list.
        failures: the videos that could not be read.
    """

    videos: Tensor
    failures: list[Failure]

    @abstractmethod
    def measures(self) -> dict[str, float]:
        """The figures that a validation logs, by name."""

    def summary(self) -> dict[str, float]:
        """The figures that ``results.json`` holds; by default those of :meth:`measures`."""
        return self.measures()


@dataclass(repr=False)
class Evaluation(Results):
    """Results with one row of a fixed shape per video.

    Attributes:
        videos: (M,) places in the list.
        labels: (M, …) targets, as :meth:`Task.to_keep` returns them.
        scores: (M, …) results, as :meth:`Task.join_views` returns them.
        failures: the videos that could not be read.
    """

    videos: Tensor
    labels: Tensor
    scores: Tensor
    failures: list[Failure] = field(default_factory=list)


@dataclass(repr=False)
class RecordEvaluation(Results):
    """Results with one record of any kind and size per video, such as its detections.

    Attributes:
        videos: (M,) places in the list.
        records: M, as :meth:`RecordTask.record` returns them.
        task: that made them, which knows the classes.
        failures: the videos that could not be read.
    """

    videos: Tensor
    records: list[Any]
    task: RecordTask
    failures: list[Failure] = field(default_factory=list)


class Task(ABC):
    """What a model learns from a video, and what is made of its outputs.

    A task says which target each video has, which model and head learn it, the loss, what an
    evaluation keeps, measures and writes, and what a prediction shows.

    Args:
        cfg: the configuration, with everything filled in that the data or a checkpoint says.

    Attributes:
        cfg: the same.
        num_outputs: the number of outputs of the model's head.
        names: of the outputs, kept in checkpoints and compared when a run is resumed or a head is
            loaded; None where they have none.
        mixing: mixes the clips and targets of a training step; None for no mixing. Random numbers
            come from torch's global CPU generator.
        evaluation: the class of its evaluations.
        score_range: the lowest and the highest score, for the axes of pictures; None where scores
            have no limits.
        joins_clips: whether a learned head over the clips of a video
            (:mod:`videonet.tasks.clip_head`) can take the place of :meth:`join_views`.
    """

    num_outputs: int
    names: Sequence[str] | None = None
    mixing: Mixing | None = None
    evaluation: ClassVar[type[Results]]
    score_range: ClassVar[tuple[float, float] | None] = None
    joins_clips: bool = False

    def __init__(self, cfg: CfgNode):
        self.cfg = cfg

    @classmethod
    def from_config(cls, cfg: CfgNode, split: str | None, trained: Trained) -> Task:
        """The task of a configuration; see :func:`videonet.tasks.build_task` for the arguments."""
        return cls(cfg)

    # Training.

    def annotate(self, videos: VideoList) -> Annotations:
        """What the targets of the clips of a list's videos are made from, and how.

        By default what the data set knows of them, which may be their labels alone.
        """
        return annotations_of(videos)

    def build_model(self) -> Model:
        """The configuration's model with a head for this task, with random weights."""
        name, arguments = model_arguments(self.cfg)
        model = cast(
            "VideoModel", create_model(name, **arguments | {"num_classes": self.num_outputs})
        )
        if self.cfg.MODEL.HEAD != "linear":
            model.use_head(self.cfg.MODEL.HEAD, **without_nodes(self.cfg.MODEL.HEAD_ARGUMENTS))
        return model

    def run_in_training(self, model: Callable[..., Any], clips: Tensor, targets: Targets) -> Any:
        """What :meth:`loss` takes; by default the model's outputs for the clips.

        Args:
            model: that of :meth:`build_model` in training mode, or what stands for it: compiled,
                or averaging gradients over processes. It is to be called once.
            clips: normalised, (N, 3, T, H, W), on the model's device.
            targets: of the clips, there too.
        """
        return model(clips)

    @abstractmethod
    def loss(self, outputs: Any, targets: Targets) -> Tensor | Mapping[str, Tensor]:
        """The mean loss over clips; or several, by name, that are added and recorded one by one.

        Args:
            outputs: see :meth:`run_in_training`; those of most models are (N, …).
            targets: of the clips.
        """

    # Evaluation.

    @abstractmethod
    def join_views(self, outputs: Tensor, targets: Targets | None = None) -> Tensor:
        """The scores of a video from the model's outputs for its views, (V, …) -> (…).

        Args:
            outputs: one row per view.
            targets: of the views; None in prediction, where they are not known.
        """

    @abstractmethod
    def to_keep(self, targets: Targets) -> Tensor:
        """What an evaluation keeps of the targets of a video's views: one row of its labels."""

    def write(  # noqa: B027
        self, folder: Path, evaluation: Results, paths: Sequence[str]
    ) -> None:
        """Write what a test leaves beside ``results.json``; by default nothing.

        Args:
            folder: of the run.
            evaluation: of the test set.
            paths: of all videos of the list.
        """

    # Prediction.

    @property
    def output_names(self) -> list[str]:
        """A name for every output, for people to read."""
        if self.names is not None:
            return list(self.names)
        return [f"output {index}" for index in range(self.num_outputs)]

    def settings(self) -> Mapping[str, Any]:
        """What the scores of a clip depend on beside weights and configuration; JSON."""
        return {}

    def scores(self, outputs: Tensor) -> Tensor:
        """The scores of each clip on its own, (N, …) -> (N, …); by default the outputs."""
        return outputs

    def show(self, scores: Tensor, top_k: int) -> Top:
        """What is said of a video or a window: names and values of `top_k` outputs.

        By default those of the first outputs, in their order.

        Args:
            scores: (K,).
            top_k: the most that are named.
        """
        return list(zip(self.output_names, scores.tolist(), strict=True))[:top_k]

    def segments(
        self, times: Sequence[tuple[float, float]], scores: np.ndarray, rule: Hysteresis
    ) -> list[Segment]:
        """The segments of a video from the scores of its windows; by default none.

        Args:
            times: (start, end) of the windows in seconds, rising.
            scores: (N, K).
            rule: when a segment begins and ends.
        """
        return []


class RecordTask(Task):
    """A task whose results differ in number from video to video: objects, tracks, pixels.

    In evaluation :meth:`run` calls the model and gives one thing of any kind per clip. Of those of
    a video's views :meth:`record` makes the video's record, in the process that saw it; the
    processes exchange the records, so they hold numbers, texts, tensors on the CPU and containers
    of them, and are small: run lengths instead of bitmaps, counts of pixels instead of maps.
    """

    evaluation: ClassVar[type[RecordEvaluation]]

    @abstractmethod
    def run(self, model: nn.Module, clips: Tensor, targets: Targets) -> list[Any]:
        """What the model finds in some clips, one thing per clip.

        Args:
            model: in evaluation mode, without gradients.
            clips: normalised, (n, 3, T, H, W), on the model's device.
            targets: of these clips, on the CPU, such as the ``size`` of their pictures.
        """

    @abstractmethod
    def record(self, outputs: list[Any], targets: Targets, annotation: Any) -> Any:
        """The record of a video.

        Args:
            outputs: one thing per view, of :meth:`run`.
            targets: of the views.
            annotation: of the video, as its data set has it, which holds the truth in pixels of
                whole frames.

        Raises:
            ScoreError: the model's outputs are not finite numbers.
        """

    def join_views(self, outputs: Tensor, targets: Targets | None = None) -> Tensor:
        """There is no row of scores for a video."""
        raise NotImplementedError(f"{type(self).__name__} has records instead of scores")

    def to_keep(self, targets: Targets) -> Tensor:
        """There is no row of labels for a video."""
        raise NotImplementedError(f"{type(self).__name__} has records instead of labels")
