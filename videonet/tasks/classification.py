"""Classification: one label per video, or several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from fvcore.common.config import CfgNode
from torch import Tensor

from videonet.data.datasets.classes import (
    class_names,
    known_classes,
    refuse_single_class,
    with_classes,
)
from videonet.data.datasets.form import tells_names
from videonet.data.datasets.lists import VideoList
from videonet.data.targets import LABELS, Annotations, Targets
from videonet.tasks.class_scores import ClassScores
from videonet.tasks.mixing import Mixup
from videonet.tasks.segments import Hysteresis, Segment, merge_segments
from videonet.tasks.task import Results, Task, Top, Trained
from videonet.tasks.views import join_scores

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


def probabilities(logits: Tensor, *, multi_label: bool = False) -> Tensor:
    """The probabilities of classes, (…, K) -> (…, K): a softmax, or a sigmoid of each class."""
    return logits.sigmoid() if multi_label else logits.softmax(dim=-1)


def ensemble_views(logits: Tensor, method: str = "softmax", *, multi_label: bool = False) -> Tensor:
    """One score per class from the logits of all views, (V, K) -> (K,).

    Args:
        logits: one row per view.
        method: "softmax" for the mean of the views' probabilities, "logits" for the probabilities
            of the mean logits, "max" for the highest probability of any view.
        multi_label: the probability of a class is its sigmoid, as a video may have several labels;
            else it is its softmax.
    """
    if method == "logits":
        return probabilities(logits.mean(dim=0), multi_label=multi_label)
    scores = probabilities(logits, multi_label=multi_label)
    return join_scores(scores, "max" if method == "max" else "mean")


class Classification(Task):
    """Videos with one label each, or with several.

    Args:
        cfg: the configuration with ``MODEL.NUM_CLASSES``.
        names: of the classes, in the order of the outputs.
        shown: what tables call the classes; `names` where None.
        multi_label: whether a video may have several labels; None for what ``MODEL.LOSS_FUNC``
            says.
    """

    evaluation = ClassScores
    score_range = (0.0, 1.0)

    def __init__(
        self,
        cfg: CfgNode,
        names: Sequence[str],
        shown: Sequence[str] | None = None,
        *,
        multi_label: bool | None = None,
    ):
        super().__init__(cfg)
        self.names, self.shown = list(names), list(names if shown is None else shown)
        self.num_outputs = cfg.MODEL.NUM_CLASSES
        self.loss_of = LOSSES[cfg.MODEL.LOSS_FUNC]
        own = cfg.MODEL.LOSS_FUNC == MULTI_LABEL_LOSS
        self.multi_label = own if multi_label is None else multi_label
        self.joins_clips = not self.multi_label
        self.mixing = _LabelMixing(_mixup(cfg)) if cfg.MIXUP.ENABLE else None

    @classmethod
    def from_config(cls, cfg: CfgNode, split: str | None, trained: Trained) -> Classification:
        """The classification of a data set, or of a checkpoint.

        With a `split` the data names the classes, and where it does not, the checkpoint; without
        one it is the other way round.

        Raises:
            DataError: neither says which classes there are, or there is one alone.
        """
        if not cfg.MODEL.NUM_CLASSES and trained.names is not None:
            cfg = with_classes(cfg, len(trained.names))
        cfg = known_classes(cfg, split or "train")
        if split is None:
            names = class_names(cfg) if trained.names is None else trained.names
            loss = trained.setting("MODEL.LOSS_FUNC", cfg.MODEL.LOSS_FUNC)
            return cls(cfg, names, multi_label=loss == MULTI_LABEL_LOSS)
        refuse_single_class(cfg)
        names, known = class_names(cfg, split), trained.names
        numbers = not tells_names(names) and known is not None and len(known) == len(names)
        return cls(cfg, names, known if numbers else None)

    def annotate(self, videos: VideoList) -> Annotations:
        """The labels, whatever else the data set knows."""
        return Annotations.of_labels(videos.labels)

    def loss(self, outputs: Tensor, targets: Targets) -> Tensor:
        """Of logits (N, K) and classes (N,), or soft or several labels (N, K)."""
        return self.loss_of(outputs, targets[LABELS])

    def join_views(self, outputs: Tensor, targets: Targets | None = None) -> Tensor:
        """Probabilities (K,) from the logits of the views (V, K), as ``TEST.ENSEMBLE`` says."""
        several = self.multi_label if targets is None else targets[LABELS].dim() == 2
        return ensemble_views(outputs, self.cfg.TEST.ENSEMBLE, multi_label=several)

    def to_keep(self, targets: Targets) -> Tensor:
        """The class, or the zeros and ones of several labels as bytes."""
        label = targets[LABELS][0]
        return label.to(torch.uint8) if label.dim() == 1 else label

    def write(self, folder: Path, evaluation: Results, paths: Sequence[str]) -> None:
        """The tables and pictures of :func:`videonet.tasks.class_tables.write_tables`."""
        from videonet.tasks.class_tables import write_tables  # imports matplotlib

        assert isinstance(evaluation, ClassScores)
        write_tables(folder, evaluation, paths, self.shown)

    def settings(self) -> dict[str, bool]:
        """Whether scores are sigmoids, for several labels, or a softmax."""
        return {"multi_label": self.multi_label}

    def scores(self, outputs: Tensor) -> Tensor:
        """Probabilities (N, K) of logits (N, K)."""
        return probabilities(outputs, multi_label=self.multi_label)

    def show(self, scores: Tensor, top_k: int) -> Top:
        """The classes with the highest scores."""
        best = scores.topk(min(top_k, len(scores)))
        pairs = zip(best.values.tolist(), best.indices.tolist(), strict=True)
        return [(self.output_names[index], score) for score, index in pairs]

    def segments(
        self, times: Sequence[tuple[float, float]], scores: np.ndarray, rule: Hysteresis
    ) -> list[Segment]:
        """Stretches of a video with one class each, see :func:`merge_segments`."""
        return merge_segments(times, scores, self.output_names, rule)


class _LabelMixing:
    """Mixes clips and labels."""

    def __init__(self, mixup: Mixup):
        self._mixup = mixup

    def __call__(
        self, clips: Tensor, targets: Targets, partners: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Targets]:
        clips, labels = self._mixup(clips, targets[LABELS], partners, in_place=True)
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
