"""The same object in the frames of a clip: detections become tracks.

Every frame's detections are compared with the tracks so far by the overlap of boxes and by the
likeness of pooled features, as MaskTrack R-CNN does (arXiv 1905.04804, Sec. 4), and the pairs are
taken greedily from the most alike on. That needs no further dependency and gives, unlike an optimal
assignment, the same result whatever else is in the frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_iou

from videonet.heads.detection.frames import Detections
from videonet.heads.detection.pasting import RunLengths


@dataclass
class Track:
    """One object over the frames of a clip.

    Attributes:
        instance_id: its number, as in ``instance_ids``.
        label: the class with the greatest sum of scores over its frames.
        score: mean over the frames that it is found in.
        boxes: (4,) of every frame; None where it is not found.
        masks: of every frame, (H, W) or run lengths; None where it is not found or has none.
    """

    instance_id: int
    label: int
    score: float
    boxes: list[Tensor | None]
    masks: list[Tensor | RunLengths | None]


@dataclass
class _Open:
    """A track while it is followed."""

    box: Tensor
    label: int
    embedding: Tensor | None
    seen: int  # number of the last frame


@dataclass
class Linker:
    """Follows objects through the frames of a clip.

    Args:
        overlap_weight: of the IoU between a detection and the last box of a track.
        appearance_weight: of the cosine between embeddings, less their mean in the clip; without
            embeddings it counts nothing.
        least: of the weighted sum, for a detection to continue a track.
        patience: frames that a track may be absent before it ends.
        same_class: whether tracks keep the class of their last detection.
        new_score: score from which on a detection begins a track; others get the number -1.
        memory: share of the old embedding of a track in the new one.
    """

    overlap_weight: float = 1.0
    appearance_weight: float = 1.0
    least: float = 0.5
    patience: int = 5
    same_class: bool = True
    new_score: float = 0.0
    memory: float = 0.5
    _tracks: dict[int, _Open] = field(default_factory=dict, init=False, repr=False)
    _count: int = field(default=0, init=False, repr=False)
    _frame: int = field(default=0, init=False, repr=False)

    @torch.no_grad()
    def link(self, frames: Sequence[Detections]) -> list[Detections]:
        """Number the objects of one clip.

        Args:
            frames: detections of every frame, with embeddings where appearance counts.

        Returns:
            The same with ``instance_ids``, numbered from 0 in the order of appearance.
        """
        self._tracks, self._count, self._frame = {}, 0, 0
        mean = _mean_embedding(frames)
        return [self._step(found, mean) for found in frames]

    def _step(self, found: Detections, mean: Tensor | None) -> Detections:
        """Number the detections of the next frame."""
        embeddings = None
        if found.embeddings is not None and mean is not None:
            embeddings = F.normalize(found.embeddings - mean, dim=1)
        ids = torch.full((len(found),), -1, dtype=torch.int64)
        open_ids = [n for n, t in self._tracks.items() if self._frame - t.seen <= self.patience + 1]
        for place, number in self._pairs(found, embeddings, open_ids):
            ids[place] = number
        for place in range(len(found)):
            if ids[place] < 0 and float(found.scores[place]) >= self.new_score:
                ids[place] = self._count
                self._count += 1
            if ids[place] >= 0:
                embedding = None if embeddings is None else embeddings[place]
                self._follow(int(ids[place]), found, place, embedding)
        self._frame += 1
        return replace(found, instance_ids=ids.to(found.boxes.device))

    def _pairs(
        self, found: Detections, embeddings: Tensor | None, open_ids: Sequence[int]
    ) -> list[tuple[int, int]]:
        """Detections and the tracks that they continue, the most alike pairs first."""
        if not open_ids or not len(found):
            return []
        tracks = [self._tracks[number] for number in open_ids]
        likeness = self.overlap_weight * torch.nan_to_num(
            box_iou(found.boxes, torch.stack([t.box for t in tracks]))
        )  # (N, tracks)
        if embeddings is not None:
            old = torch.stack([t.embedding for t in tracks if t.embedding is not None])
            likeness = likeness + self.appearance_weight * embeddings @ old.t()
        if self.same_class:
            labels = found.labels.new_tensor([t.label for t in tracks])
            likeness = likeness.masked_fill(found.labels[:, None] != labels, float("-inf"))
        likeness = likeness.cpu()
        pairs: list[tuple[int, int]] = []
        for place in likeness.flatten().argsort(descending=True, stable=True).tolist():
            row, column = divmod(place, len(tracks))
            if likeness[row, column] < self.least:
                break
            if all(row != r and column != c for r, c in pairs):
                pairs.append((row, column))
        return [(row, open_ids[column]) for row, column in pairs]

    def _follow(self, number: int, found: Detections, place: int, embedding: Tensor | None) -> None:
        """Update a track by a detection, or begin it."""
        old = self._tracks.get(number)
        if old is not None and old.embedding is not None and embedding is not None:
            mixed = self.memory * old.embedding + (1 - self.memory) * embedding
            embedding = F.normalize(mixed, dim=0)
        label = int(found.labels[place])
        self._tracks[number] = _Open(found.boxes[place], label, embedding, self._frame)


def _mean_embedding(frames: Sequence[Detections]) -> Tensor | None:
    """The mean over all detections of a clip, (C,): what is alike in all tells nothing apart."""
    parts = [f.embeddings for f in frames if f.embeddings is not None and len(f)]
    return torch.cat(parts).mean(dim=0) if parts else None


def collect_tracks(frames: Sequence[Detections]) -> list[Track]:
    """The tracks of linked detections, the best first.

    Args:
        frames: of every frame of a clip, see :meth:`Linker.link`.
    """
    places: dict[int, list[tuple[int, int]]] = {}
    for t, found in enumerate(frames):
        ids = [] if found.instance_ids is None else found.instance_ids.tolist()
        for place, number in enumerate(ids):
            if number >= 0:
                places.setdefault(number, []).append((t, place))
    tracks = [_collected(frames, number, at) for number, at in places.items()]
    return sorted(tracks, key=lambda track: -track.score)


def _collected(
    frames: Sequence[Detections], number: int, places: Sequence[tuple[int, int]]
) -> Track:
    boxes: list[Tensor | None] = [None] * len(frames)
    masks: list[Tensor | RunLengths | None] = [None] * len(frames)
    sums: dict[int, float] = {}
    for t, place in places:
        found = frames[t]
        boxes[t] = found.boxes[place]
        masks[t] = None if found.masks is None else found.masks[place]
        label = int(found.labels[place])
        sums[label] = sums.get(label, 0.0) + float(found.scores[place])
    label = max(sums, key=lambda k: sums[k])
    return Track(number, label, sum(sums.values()) / len(places), boxes, masks)
