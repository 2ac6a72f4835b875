"""What the parts of a detector tell each other: frames, their ground truth, what was found.

The frames of a batch are numbered clip by clip: step t of clip b is frame ``b * T + t``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from videonet.errors import DataError
from videonet.heads.detection.anchors import Size
from videonet.heads.detection.boxes import are_usable
from videonet.heads.detection.pasting import RunLengths

SAMPLE_PER = ("frame", "clip")


@dataclass(frozen=True)
class FrameTarget:
    """The ground truth of one frame.

    Attributes:
        boxes: (N, 4).
        labels: classes from 0, (N,).
        masks: booleans (N, H, W); None where there are boxes alone.
    """

    boxes: Tensor
    labels: Tensor
    masks: Tensor | None = None

    def usable(self) -> FrameTarget:
        """Without boxes that have no area, which nothing can be learnt from."""
        keep = are_usable(self.boxes)
        masks = None if self.masks is None else self.masks[keep]
        return FrameTarget(self.boxes[keep], self.labels[keep], masks)


@dataclass(frozen=True)
class Frames:
    """The frames that maps were computed from.

    Attributes:
        sizes: (height, width) of every frame without its padding.
        padded: the size of all of them with it.
        steps: frames of a clip, T.
        targets: of every frame, None for one that is not annotated and not learnt from; None
            where there is nothing to learn.
    """

    sizes: Sequence[Size]
    padded: Size
    steps: int = 1
    targets: Sequence[FrameTarget | None] | None = None

    def annotated(self) -> dict[int, FrameTarget]:
        """Number of a frame -> its ground truth."""
        return {n: t for n, t in enumerate(self.targets or ()) if t is not None}

    def groups(self, sample_per: str) -> list[list[int]]:
        """Annotated frames that share one draw of samples: each by itself, or clip by clip."""
        if sample_per == "frame":
            return [[number] for number in self.annotated()]
        clips: dict[int, list[int]] = {}
        for number in self.annotated():
            clips.setdefault(number // self.steps, []).append(number)
        return list(clips.values())


@dataclass
class Detections:
    """What was found in one frame, the best first.

    Attributes:
        boxes: (N, 4) in pixels.
        scores: (N,).
        labels: classes from 0, (N,).
        masks: booleans (N, H, W), or run lengths; None where the model has no masks. Before they
            are pasted: probabilities (N, 28, 28) within the boxes.
        embeddings: pooled features of the regions (N, C), where they are wanted.
        instance_ids: number of the track that each belongs to (N,), after linking; -1 for none.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Tensor | list[RunLengths] | None = None
    embeddings: Tensor | None = None
    instance_ids: Tensor | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    def select(self, which: Tensor) -> Detections:
        """Some of them: indices, or booleans (N,)."""
        changes: dict[str, Any] = {}
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, Tensor):
                changes[entry.name] = value[which]
            elif isinstance(value, list):
                places = torch.arange(len(self), device=which.device)[which].tolist()
                changes[entry.name] = [value[place] for place in places]
        return replace(self, **changes)


def check_target(target: FrameTarget, size: Size, num_classes: int, where: str) -> None:
    """Refuse ground truth that a frame cannot have.

    Args:
        size: (height, width) of the frame.
        where: what messages call the frame.

    Raises:
        DataError: a wrong shape, a class that there is not, or a box that is not finite.
    """
    boxes, labels, masks = target.boxes, target.labels, target.masks
    if boxes.dim() != 2 or boxes.shape[1] != 4:
        raise DataError(f"boxes of {where} have the shape {tuple(boxes.shape)}, expected (N, 4)")
    if labels.shape != (len(boxes),):
        raise DataError(
            f"labels of {where} have the shape {tuple(labels.shape)}, expected ({len(boxes)},)"
        )
    if masks is not None and masks.shape != (len(boxes), *size):
        raise DataError(
            f"masks of {where} have the shape {tuple(masks.shape)}, expected {(len(boxes), *size)}"
        )
    if not boxes.isfinite().all():
        raise DataError(f"a box of {where} is not finite")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        raise DataError(
            f"labels of {where} run from {int(labels.min())} to {int(labels.max())}, expected "
            f"0 to {num_classes - 1}"
        )
