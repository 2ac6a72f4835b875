"""Classification: one label per video, or several."""

from __future__ import annotations

from collections.abc import Sequence
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
    tells_names,
    with_classes,
)
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
        self.mixing = _mixup(cfg) if cfg.MIXUP.ENABLE else None

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

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Of logits (N, K) and classes (N,), or soft or several labels (N, K)."""
        return self.loss_of(outputs, targets)

    def join_views(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Probabilities (K,) as ``TEST.ENSEMBLE`` joins those of the views (V, K)."""
        return ensemble_views(outputs, self.cfg.TEST.ENSEMBLE, multi_label=target.dim() == 1)

    def compact(self, target: Tensor) -> Tensor:
        """Zeros and ones as bytes."""
        return target.to(torch.uint8) if target.dim() == 1 else target

    def write(self, folder: Path, evaluation: Evaluation, paths: Sequence[str]) -> None:
        """The tables and pictures of :func:`videonet.tasks.class_tables.write_tables`."""
        from videonet.tasks.class_tables import write_tables  # imports matplotlib

        assert isinstance(evaluation, ClassScores)
        write_tables(folder, evaluation, paths, self.shown)


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
