"""Classification: one label per video, or several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from fvcore.common.config import CfgNode
from torch import Tensor

from videonet.data.batch_transforms import Mixup
from videonet.data.classes import (
    class_names,
    known_classes,
    refuse_single_class,
    with_classes,
)
from videonet.data.dataset_form import tells_names
from videonet.data.lists import VideoList
from videonet.data.targets import LABELS, Annotations, Targets
from videonet.tasks.class_scores import ClassScores
from videonet.tasks.task import Evaluation, Task

MULTI_LABEL_LOSS = "bce_logit"  # MODEL.LOSS_FUNC


def classification_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy of logits (N, K) with class indices (N,) or soft targets (N, K)."""
    return F.cross_entropy(logits.float(), labels)


def multi_label_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross entropy of logits (N, K) with zeros and ones (N, K), mean over all classes."""
    return F.binary_cross_entropy_with_logits(logits.float(), labels.float())


LOSSES = {
    "cross_entropy": classification_loss,
    "soft_cross_entropy": classification_loss,
    MULTI_LABEL_LOSS: multi_label_loss,
}


def ensemble_views(logits: Tensor, method: str = "softmax", *, multi_label: bool = False) -> Tensor:
    """One score per class from the logits of all views, (V, K) -> (K,).

    ``"softmax"``: mean of the views' probabilities; ``"logits"``: probabilities of the mean
    logits; ``"max"``: the highest probability of any view. The probability of a class is its
    softmax, or where a video may have several labels its sigmoid.
    """

    def probabilities(values: Tensor) -> Tensor:
        return values.sigmoid() if multi_label else values.softmax(dim=-1)

    if method == "logits":
        return probabilities(logits.mean(dim=0))
    scores = probabilities(logits)
    return scores.amax(dim=0) if method == "max" else scores.mean(dim=0)


class Classification(Task):
    """Videos with one label each, or with several.

    Args:
        cfg: the configuration with ``MODEL.NUM_CLASSES``.
        names: of the classes, in the order of the outputs.
        shown: what tables call the classes; `names` where None.
    """

    evaluation = ClassScores

    def __init__(self, cfg: CfgNode, names: Sequence[str], shown: Sequence[str] | None = None):
        super().__init__(cfg)
        self.names, self.shown = list(names), list(names if shown is None else shown)
        self.num_outputs = cfg.MODEL.NUM_CLASSES
        self.loss_of = LOSSES[cfg.MODEL.LOSS_FUNC]
        self.mixing = _LabelMixing(_mixup(cfg)) if cfg.MIXUP.ENABLE else None

    @classmethod
    def from_config(cls, cfg: CfgNode, split: str, trained: Sequence[str] | None) -> Classification:
        """With the classes that the data has, or where it names none those of the checkpoint.

        Raises:
            DataError: the data does not say which classes there are, or there is one alone.
        """
        if not cfg.MODEL.NUM_CLASSES and trained is not None:
            cfg = with_classes(cfg, len(trained))
        cfg = known_classes(cfg, split)
        refuse_single_class(cfg)
        names = class_names(cfg, split)
        numbers = not tells_names(names) and trained is not None and len(trained) == len(names)
        return cls(cfg, names, trained if numbers else None)

    def annotate(self, videos: VideoList) -> Annotations:
        """The labels, whatever else the data set knows."""
        return Annotations.of_labels(videos.labels)

    def loss(self, outputs: Tensor, targets: Targets) -> Tensor:
        """Of logits (N, K) and classes (N,), or soft or several labels (N, K)."""
        return self.loss_of(outputs, targets[LABELS])

    def join_views(self, outputs: Tensor, targets: Targets) -> Tensor:
        """Probabilities (K,) as ``TEST.ENSEMBLE`` joins those of the views (V, K)."""
        several = targets[LABELS].dim() == 2
        return ensemble_views(outputs, self.cfg.TEST.ENSEMBLE, multi_label=several)

    def to_keep(self, targets: Targets) -> Tensor:
        """The class, or zeros and ones as bytes."""
        label = targets[LABELS][0]
        return label.to(torch.uint8) if label.dim() == 1 else label

    def write(self, folder: Path, evaluation: Evaluation, paths: Sequence[str]) -> None:
        """The tables and pictures of :func:`videonet.tasks.class_tables.write_tables`."""
        from videonet.tasks.class_tables import write_tables  # imports matplotlib

        assert isinstance(evaluation, ClassScores)
        write_tables(folder, evaluation, paths, self.shown)


class _LabelMixing:
    """Mixes clips and labels."""

    def __init__(self, mixup: Mixup):
        self._mixup = mixup

    def __call__(
        self, clips: Tensor, targets: Targets, partners: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Targets]:
        clips, labels = self._mixup(clips, targets[LABELS], partners)
        return clips, targets | {LABELS: labels}


def _mixup(cfg: CfgNode) -> Mixup:
    mix = cfg.MIXUP
    return Mixup(
        alpha=mix.ALPHA,
        cutmix_alpha=mix.CUTMIX_ALPHA,
        prob=mix.PROB,
        switch_prob=mix.SWITCH_PROB,
        num_classes=cfg.MODEL.NUM_CLASSES,
        label_smoothing=mix.LABEL_SMOOTH_VALUE,
    )
