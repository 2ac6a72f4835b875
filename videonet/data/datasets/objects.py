"""The objects of videos and images, with a box and a mask in every frame they are seen in.

An image is a video of one frame. A clip's targets are rows, one for each object in each of its
frames: ``boxes`` (N, 4) as corners in pixels, ``labels`` (N,) classes from 0, ``frames`` (N,) which
frame of the clip, ``instance_ids`` (N,) which object, ``masks`` (N, H, W). ``numbers`` (T,) are
the frames of the video that the clip shows, ``seen`` (T,) those of them that are annotated,
``whole`` (2,) the height and width of its frames, and ``size`` (2,) those of the picture in the
clip, to the right of and below which there is padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from videonet.data.masks import Rle, decode_masks, mask_areas, to_rle
from videonet.data.targets import ClipFrames, TargetMaker, TargetSpec
from videonet.errors import DataError

Box = list[float]  # x, y, width, height
Frames = tuple[str, ...] | tuple[int, ...] | None
ROOM = 32  # boxes of a clip that the loader's shared memory has room for
MASK_ROOM = 8

PLACES = {
    "numbers": TargetSpec(torch.int64, ("T",)),
    "seen": TargetSpec(torch.bool, ("T",)),
    "whole": TargetSpec(torch.int64, (2,)),
    "size": TargetSpec(torch.int64, (2,)),
}
BOXES = {
    "boxes": TargetSpec(torch.float32, (None, 4), ROOM),
    "labels": TargetSpec(torch.int64, (None,), ROOM),
    "frames": TargetSpec(torch.int64, (None,), ROOM),
    "instance_ids": TargetSpec(torch.int64, (None,), ROOM),
    **PLACES,
}
MASKS = {**BOXES, "masks": TargetSpec(torch.bool, (None, "H", "W"), MASK_ROOM)}
# A pixel of class k is k + 1; 0 does not count, so what a crop or padding adds does not either.
LABEL_MAPS = {"label_map": TargetSpec(torch.uint8, ("T", "H", "W")), **PLACES}


@dataclass(frozen=True)
class VideoObjects:
    """What is annotated in a video or a part of it, or in an image.

    Attributes:
        place: file and entry, for messages.
        video: its number in its file.
        size: height and width of its frames.
        labels: the class of each object, from 0.
        ids: the number of each object in its file.
        crowd: which objects are regions of many, that training leaves out.
        boxes: of each object in each frame; None where it is absent.
        masks: the same, as run lengths or polygons of COCO.
        areas: of each object as the file says; None where it does not.
        seen: which frames are annotated.
        frames: its frames: names of pictures in its folder, or numbers of frames of its video
            file; None for all there are.
        start: the place of its first frame in the whole video.
    """

    place: str
    video: int
    size: tuple[int, int]
    labels: tuple[int, ...]
    ids: tuple[int, ...]
    crowd: tuple[bool, ...]
    boxes: tuple[tuple[Box | None, ...], ...]
    masks: tuple[tuple[Any, ...], ...]
    areas: tuple[float | None, ...]
    seen: tuple[bool, ...]
    frames: Frames = None
    start: int = 0

    @property
    def has_masks(self) -> bool:
        """Whether any object has a mask."""
        return any(mask is not None for track in self.masks for mask in track)

    def part(self, start: int, stop: int) -> VideoObjects:
        """Some consecutive frames, with the objects that are seen in them."""
        kept = [
            k
            for k, (boxes, shapes) in enumerate(zip(self.boxes, self.masks, strict=True))
            if any(one is not None for one in (*boxes[start:stop], *shapes[start:stop]))
        ]
        frames = tuple(range(len(self.seen))) if self.frames is None else self.frames
        return replace(
            self,
            labels=tuple(self.labels[k] for k in kept),
            ids=tuple(self.ids[k] for k in kept),
            crowd=tuple(self.crowd[k] for k in kept),
            areas=tuple(self.areas[k] for k in kept),
            boxes=tuple(self.boxes[k][start:stop] for k in kept),
            masks=tuple(self.masks[k][start:stop] for k in kept),
            seen=self.seen[start:stop],
            frames=frames[start:stop],
            start=self.start + start,
        )

    def rle(self, number: int, frame: int) -> Rle | None:
        """The mask of an object in a frame as run lengths."""
        mask = self.masks[number][frame]
        if mask is None:
            return None
        try:
            return to_rle(mask, *self.size)
        except DataError as error:
            raise DataError(f"{self.place}, annotation {self.ids[number]}: {error}") from None

    def rows(self, frames: Sequence[int]) -> list[tuple[int, int]]:
        """(place in `frames`, object) of all objects that training sees in these frames."""
        return [
            (place, k)
            for place, frame in enumerate(frames)
            for k in range(len(self.labels))
            if not self.crowd[k] and self.boxes[k][frame] is not None
        ]


def objects_of_clip(objects: VideoObjects, clip: ClipFrames) -> dict[str, Tensor]:
    """The targets of a clip: boxes and masks of all objects in its frames."""
    check_size(objects, clip)
    return object_targets(objects, clip.indices.tolist(), clip)


def boxes_of_clip(objects: VideoObjects, clip: ClipFrames) -> dict[str, Tensor]:
    """The targets of a clip without masks."""
    check_size(objects, clip)
    return object_targets(objects, clip.indices.tolist(), clip, with_masks=False)


def object_targets(
    objects: VideoObjects, frames: Sequence[int], clip: ClipFrames, *, with_masks: bool = True
) -> dict[str, Tensor]:
    """The targets of a clip whose frames have these places among those of the objects."""
    from torchvision.tv_tensors import BoundingBoxes, Mask

    rows = objects.rows(frames)
    boxes = torch.tensor([objects.boxes[k][frames[place]] for place, k in rows]).reshape(-1, 4)
    boxes = boxes.float()
    boxes[:, 2:] += boxes[:, :2]
    targets = {
        "boxes": BoundingBoxes(boxes, format="XYXY", canvas_size=clip.size),
        "labels": torch.tensor([objects.labels[k] for _, k in rows], dtype=torch.int64),
        "frames": torch.tensor([place for place, _ in rows], dtype=torch.int64),
        "instance_ids": torch.tensor([objects.ids[k] for _, k in rows], dtype=torch.int64),
        **places_of_clip(clip, np.array(objects.seen)[list(frames)], objects.start),
    }
    if with_masks:
        rles = [objects.rle(k, frames[place]) or empty_mask(objects.size) for place, k in rows]
        targets["masks"] = Mask(decode_masks(rles, objects.size))
    return targets


def label_map_of_clip(objects: VideoObjects, clip: ClipFrames) -> dict[str, Tensor]:
    """Objects painted by class, large ones first: class 0 is the background, others follow.

    Crowds do not count, unless an object covers them.
    """
    from torchvision.tv_tensors import Mask

    check_size(objects, clip)
    frames = clip.indices.tolist()
    seen = np.array(objects.seen)[frames]
    painted = painted_objects(objects, frames)
    return {"label_map": Mask(painted), **places_of_clip(clip, seen, objects.start)}


def painted_objects(objects: VideoObjects, frames: Sequence[int]) -> Tensor:
    """The label maps of some frames, uint8 (T, H, W), see :func:`label_map_of_clip`."""
    painted = torch.ones(len(frames), *objects.size, dtype=torch.uint8)
    for place, frame in enumerate(frames):
        rles = [(k, rle) for k in range(len(objects.labels)) if (rle := objects.rle(k, frame))]
        sizes = mask_areas([rle for _, rle in rles])
        order = sorted(range(len(rles)), key=lambda n: (not objects.crowd[rles[n][0]], -sizes[n]))
        for k, rle in (rles[n] for n in order):
            mask = decode_masks([rle], objects.size)[0]
            painted[place][mask] = 0 if objects.crowd[k] else objects.labels[k] + 2
    painted[torch.tensor([not objects.seen[frame] for frame in frames])] = 0
    return painted


def places_of_clip(clip: ClipFrames, seen: np.ndarray, start: int) -> dict[str, Tensor]:
    """Which frames a clip shows, and their size.

    Args:
        clip: the clip.
        seen: which of its frames are annotated, (T,).
        start: the place of the first frame of its video in the whole video.
    """
    size = torch.tensor(clip.size, dtype=torch.int64)
    return {
        "numbers": torch.as_tensor(clip.indices, dtype=torch.int64) + start,
        "seen": torch.from_numpy(seen),
        "whole": size,
        "size": size.clone(),
    }


def empty_mask(size: tuple[int, int]) -> Rle:
    """The mask of nothing, of so many rows and columns."""
    return to_rle({"size": list(size), "counts": [size[0] * size[1]]}, *size)


class Framed(Protocol):
    """What an annotation says of the frames that it is about, see :class:`VideoObjects`."""

    @property
    def place(self) -> str: ...

    @property
    def size(self) -> tuple[int, int]: ...

    @property
    def seen(self) -> tuple[bool, ...]: ...


def check_size(objects: Framed, clip: ClipFrames) -> None:
    """Refuse a picture that the annotations do not fit."""
    if clip.size != objects.size or clip.info.frames != len(objects.seen):
        raise DataError(
            f"{objects.place}: it has {clip.info.frames} frames of {clip.size[1]} x "
            f"{clip.size[0]} pixels, but {len(objects.seen)} of {objects.size[1]} x "
            f"{objects.size[0]} are annotated"
        )


def chosen_frames(frames: Frames, places: Sequence[int]) -> Frames:
    """Those in some places; None where they have no names."""
    if frames is None:
        return None
    chosen = [frames[place] for place in places]
    numbers = tuple(frame for frame in chosen if isinstance(frame, int))
    return numbers or tuple(frame for frame in chosen if isinstance(frame, str))


def frames_of(annotation: Any) -> Frames:
    """The frames of a video that its annotation is about, see :class:`VideoObjects`."""
    return annotation.frames


INSTANCES = TargetMaker(MASKS, objects_of_clip, frames=frames_of)
INSTANCE_BOXES = TargetMaker(BOXES, boxes_of_clip, frames=frames_of)
PAINTED = TargetMaker(LABEL_MAPS, label_map_of_clip, frames=frames_of)
