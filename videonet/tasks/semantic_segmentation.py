"""A class for every pixel, of images and of the frames of clips."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from fvcore.common.config import CfgNode
from PIL import Image
from torch import Tensor, nn

from videonet.data.datasets.classes import class_names, with_classes
from videonet.data.datasets.coco import CocoJson
from videonet.data.datasets.lists import VideoList
from videonet.data.datasets.mask_folders import LabelMapFolders, MaskFiles
from videonet.data.datasets.objects import PAINTED, chosen_frames, painted_objects
from videonet.data.datasets.registry import dataset_form
from videonet.data.loading.dataset import annotations_of
from videonet.data.targets import Annotations, Targets
from videonet.errors import ConfigError, DataError, ScoreError
from videonet.heads.semantic_views import segment
from videonet.models.segmenter import SemanticSegmenter
from videonet.ops.resize import resize_space
from videonet.tasks.dense import one_view, shown_frames, sizes_of
from videonet.tasks.dense_models import segmenter_of
from videonet.tasks.map_evaluation import MapEvaluation, MapRecord
from videonet.tasks.semantic_scores import IGNORED, confusion
from videonet.tasks.task import RecordTask, Results, Trained

BACKGROUND = "background"
PICTURE_SIDE = 320  # of the label maps that an evaluation keeps for its pictures


class SemanticSegmentation(RecordTask):
    """Gives every pixel a class.

    Args:
        cfg: the configuration.
        names: of the classes; where objects are painted by their class, the first one is the
            background.
    """

    evaluation = MapEvaluation

    def __init__(self, cfg: CfgNode, names: Sequence[str]):
        super().__init__(one_view(cfg))
        self.names, self.num_outputs = list(names), len(names)

    @classmethod
    def from_config(cls, cfg: CfgNode, split: str | None, trained: Trained) -> SemanticSegmentation:
        """The task of a data set, which names the classes, or of a checkpoint.

        Raises:
            ConfigError: the data set has no label maps.
            DataError: nothing says which classes there are.
        """
        if split is None and trained.names is not None:
            return cls(cfg, list(trained.names))
        names = class_names(cfg, split or "train")
        cfg = with_classes(cfg, len(names))
        form = dataset_form(cfg, split or "train")
        if isinstance(form, CocoJson):
            return cls(cfg, [BACKGROUND, *names])
        if isinstance(form, LabelMapFolders):
            return cls(cfg, names)
        raise ConfigError(
            f"TRAIN.DATASET is {cfg.TRAIN.DATASET!r}, but semantic segmentation needs label_maps, "
            "or coco or youtube_vis, whose objects are painted by their class"
        )

    def annotate(self, videos: VideoList) -> Annotations:
        """Label maps, or objects painted by their class."""
        annotations = annotations_of(videos)
        if "label_map" in annotations.maker.specs:
            return annotations
        return Annotations(annotations.rows, PAINTED)

    def build_model(self) -> SemanticSegmenter:
        """See :func:`segmenter_of`."""
        return segmenter_of(self.cfg, self.num_outputs)

    def run_in_training(
        self, model: Callable[..., Any], clips: Tensor, targets: Targets
    ) -> list[Tensor]:
        """The logits (N, K, T, H, W) of every head."""
        logits: list[Tensor] = model(clips, every_head=True)
        return logits

    def loss(self, outputs: Sequence[Tensor], targets: Targets) -> dict[str, Tensor]:
        """Mean cross entropy of the pixels that count, and that of the auxiliary head."""
        labels = targets["label_map"].long() - 1  # (N, T, H, W), -1 where a pixel does not count
        count = (labels >= 0).sum().clamp(min=1)
        weights = {"loss_decode": 1.0, "loss_auxiliary": self.cfg.SEGMENTER.AUXILIARY_WEIGHT}
        losses = {}
        for logits, (name, weight) in zip(outputs, weights.items(), strict=False):
            entropy = F.cross_entropy(logits.float(), labels, ignore_index=-1, reduction="sum")
            losses[name] = weight * entropy / count
        return losses

    def run(self, model: nn.Module, clips: Tensor, targets: Targets) -> list[Tensor | None]:
        """The classes of every pixel of whole frames, uint8 or int16 (T, H, W).

        Windows, scales and mirror images are those of ``SEGMENTER``. None stands for numbers that
        are not finite.
        """
        keys, found = self.cfg.SEGMENTER, list[Tensor | None]()
        dtype = torch.uint8 if self.num_outputs <= IGNORED else torch.int16
        for clip, size, whole in zip(
            clips, sizes_of(targets), sizes_of(targets, "whole"), strict=True
        ):
            scores = segment(
                model,
                clip[None, ..., : size[0], : size[1]],
                window=_pair(keys.WINDOW),
                stride=_pair(keys.STRIDE),
                scales=keys.SCALES,
                flip=keys.FLIP,
            )  # (1, K, T, h, w)
            if not scores.isfinite().all():
                found.append(None)
                continue
            frames = [
                resize_space(scores[:, :, t : t + 1], whole)[0, :, 0].argmax(dim=0).to(dtype)
                for t in range(scores.shape[2])
            ]
            found.append(torch.stack(frames).cpu())
        return found

    def record(self, outputs: list[Any], targets: Targets, annotation: Any) -> MapRecord:
        """How many pixels of which class were taken for which."""
        (found,) = outputs
        if found is None:
            raise ScoreError("the probabilities of classes are not finite")
        places, frames = shown_frames(targets, 0, annotation.start)
        pixels = torch.zeros(self.num_outputs, self.num_outputs, dtype=torch.int64)
        pictures: tuple[bytes, bytes] | None = None
        for place, frame in zip(places, frames, strict=True):
            truth = _true_map(annotation, frame)
            if truth.shape != found[place].shape:
                raise DataError(
                    f"{annotation.place}: the label map is {tuple(truth.shape)}, the picture "
                    f"{tuple(found[place].shape)}"
                )
            pixels += confusion(found[place].long(), truth.long() - 1, self.num_outputs, -1)
            pictures = pictures or (_small(truth.long() - 1), _small(found[place].long()))
        assert pictures is not None  # a clip shows one frame or more
        names = chosen_frames(annotation.frames, frames[:1])
        return MapRecord(pixels, annotation.start + frames[0], *pictures, names)

    def write(self, folder: Path, evaluation: Results, paths: Sequence[str]) -> None:
        """Figures of each class, the confusion, and the worst pictures.

        See :func:`videonet.tasks.map_tables.write_maps`.
        """
        from videonet.tasks.map_tables import write_maps  # imports matplotlib

        assert isinstance(evaluation, MapEvaluation)
        write_maps(folder, evaluation, paths, self.output_names)


def _pair(values: Sequence[int]) -> tuple[int, int] | None:
    return (values[0], values[1]) if values else None


def _true_map(annotation: Any, frame: int) -> Tensor:
    """Class + 1 of every pixel of a frame, 0 where it does not count, uint8 (H, W)."""
    if isinstance(annotation, MaskFiles):
        return torch.from_numpy(annotation.label_map(frame))
    return painted_objects(annotation, [frame])[0]


def _small(labels: Tensor) -> bytes:
    """A label map (H, W) as a small PNG; negative classes are 255."""
    picture = Image.fromarray(labels.numpy().astype(np.uint8))
    scale = min(1.0, PICTURE_SIDE / max(picture.size))
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    file = io.BytesIO()
    picture.resize(size, Image.Resampling.NEAREST).save(file, "PNG")
    return file.getvalue()
