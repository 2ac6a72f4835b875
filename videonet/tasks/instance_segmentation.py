"""Objects with boxes and masks, in images and over the frames of clips."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fvcore.common.config import CfgNode
from torch import Tensor, nn

from videonet.config.arguments import without_nodes
from videonet.data.datasets.classes import class_names, with_classes
from videonet.data.datasets.mask_folders import MaskFiles
from videonet.data.targets import Targets
from videonet.errors import ConfigError, ScoreError
from videonet.heads.detection import Detections, Detector, Linker
from videonet.tasks.dense import one_view, pictures_of, shown_frames, sizes_of
from videonet.tasks.dense_models import detector_of
from videonet.tasks.object_evaluation import ObjectEvaluation
from videonet.tasks.object_scores import ObjectRecord, record_of
from videonet.tasks.task import RecordTask, Results, Trained
from videonet.tasks.tracks import tracks_of


class InstanceSegmentation(RecordTask):
    """Finds the objects of some classes, each with a box, a mask and a number over time.

    Args:
        cfg: the configuration with ``MODEL.NUM_CLASSES``.
        names: of the classes.
    """

    evaluation = ObjectEvaluation

    def __init__(self, cfg: CfgNode, names: Sequence[str]):
        super().__init__(one_view(cfg))
        self.names, self.num_outputs = list(names), len(names)

    @classmethod
    def from_config(cls, cfg: CfgNode, split: str | None, trained: Trained) -> InstanceSegmentation:
        """The task of a data set, which names the classes, or of a checkpoint.

        Raises:
            DataError: nothing says which classes there are.
        """
        if split is None and trained.names is not None:
            names = list(trained.names)
        else:
            names = class_names(cfg, split or "train")
        return cls(with_classes(cfg, len(names)), names)

    def build_model(self) -> Detector:
        """See :func:`detector_of`."""
        return detector_of(self.cfg, self.num_outputs)

    def run_in_training(
        self, model: Callable[..., Any], clips: Tensor, targets: Targets
    ) -> Mapping[str, Tensor]:
        """The losses of a detector, by name."""
        sizes = sizes_of(targets)
        truth = [_truth(targets, clip, size, clips.shape[2]) for clip, size in enumerate(sizes)]
        losses: Mapping[str, Tensor] = model(pictures_of(clips, sizes), truth)
        return losses

    def loss(self, outputs: Mapping[str, Tensor], targets: Targets) -> Mapping[str, Tensor]:
        """The losses of boxes, classes and masks."""
        return outputs

    def run(
        self, model: nn.Module, clips: Tensor, targets: Targets
    ) -> list[list[Detections] | None]:
        """The detections in each frame of each clip, in pixels of whole frames.

        Objects of a clip of several frames have numbers over time. None stands for numbers that
        are not finite.
        """
        linker = None
        if clips.shape[2] > 1:
            try:
                linker = Linker(**without_nodes(self.cfg.DETECTOR.LINKER))
            except TypeError as error:
                raise ConfigError(f"DETECTOR.LINKER: {error}") from error
        try:
            found: list[list[Detections] | None] = model(
                pictures_of(clips, sizes_of(targets)),
                masks="run_lengths",
                output_sizes=sizes_of(targets, "whole"),
                linker=linker,
                strict=True,
            )
        except ScoreError:
            return [None] * len(clips)
        return found

    def record(self, outputs: list[Any], targets: Targets, annotation: Any) -> ObjectRecord:
        """The true and the found tracks of a video, or of a piece of it."""
        (found,) = outputs
        if found is None:
            raise ScoreError("the maps of the detector are not finite")
        objects = annotation.objects() if isinstance(annotation, MaskFiles) else annotation
        places, frames = shown_frames(targets, 0, objects.start)
        return record_of(objects, frames, tracks_of([found[place] for place in places]))

    def write(self, folder: Path, evaluation: Results, paths: Sequence[str]) -> None:
        """What was found as JSON, figures of each class, and pictures.

        See :func:`videonet.tasks.object_tables.write_objects`.
        """
        from videonet.tasks.object_tables import write_objects  # imports matplotlib

        assert isinstance(evaluation, ObjectEvaluation)
        write_objects(folder, evaluation, paths, self.output_names)


def _truth(
    targets: Targets, clip: int, size: tuple[int, int], frames: int
) -> list[dict[str, Tensor] | None]:
    """The truth of every frame of a clip as a detector takes it; None where there is none."""
    seen = targets["seen"][clip].tolist()
    of_frame = targets["frames"][clip]
    masks = targets["masks"][clip] if "masks" in targets else None
    found: list[dict[str, Tensor] | None] = []
    for frame in range(frames):
        if not seen[frame]:
            found.append(None)
            continue
        rows = of_frame == frame
        truth = {name: targets[name][clip][rows] for name in ("boxes", "labels")}
        if masks is not None:
            drawn = masks[rows][:, : size[0], : size[1]]
            if not len(drawn) or bool(drawn.any()):  # a frame may have boxes without masks
                truth["masks"] = drawn
        found.append(truth)
    return found
