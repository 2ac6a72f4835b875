"""What a clip carries beside its pixels: labels, boxes, masks, tensors of any declared shape.

A data set has *annotations*, one row per video; a worker that reads a video gets its row and makes
the *targets* of every clip of it. Targets with places in the picture are
``torchvision.tv_tensors`` (``BoundingBoxes``, ``Mask``, ``KeyPoints``), which move with the pixels
and become plain tensors in a batch.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from videonet.data.datasets.arrays import MultiHot, Rows
from videonet.data.video.info import VideoInfo
from videonet.errors import DataError
from videonet.terminal import ShortRepr

if TYPE_CHECKING:
    from torchvision.tv_tensors import BoundingBoxes

LABELS = "labels"  # the target that classification learns
SIZE = "size"  # the target that keeps the picture's height and width without padding


@dataclass(frozen=True)
class TargetSpec:
    """How a target of one clip looks.

    Attributes:
        dtype: of its numbers.
        shape: its sides; ``"T"``, ``"H"``, ``"W"`` stand for those of the clip. A first side of
            None is a number that differs from clip to clip, as that of boxes does.
        room: for how many of that number the workers' shared memory has room, per clip; what is
            more is sent through a pipe, which is slower.
    """

    dtype: torch.dtype
    shape: tuple[int | str | None, ...] = ()
    room: int = 16

    def __post_init__(self) -> None:
        if None in self.shape[1:] or self.room < 1:
            raise DataError(
                f"a target of shape {self.shape} with room for {self.room}: only the first side "
                "may be None, and room is 1 or more"
            )

    @property
    def varies(self) -> bool:
        """Whether the number differs from clip to clip."""
        return bool(self.shape) and self.shape[0] is None

    def sides(self, clip_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The sides of one target, or of one of its elements where their number differs.

        Args:
            clip_shape: (3, T, H, W).
        """
        clip = dict(zip("THW", clip_shape[1:], strict=True))
        sides = self.shape[1:] if self.varies else self.shape
        return tuple(clip[side] if isinstance(side, str) else side or 0 for side in sides)


@dataclass(frozen=True, repr=False)
class ClipFrames(ShortRepr):
    """Which frames of a video a clip shows.

    Attributes:
        info: of the video; places are in pixels of its whole upright frames.
        indices: (T,) the frames' numbers.
        times: (T,) their seconds.
        seed: for targets that are drawn at random; its own for each clip and epoch of training.
    """

    info: VideoInfo
    indices: np.ndarray
    times: np.ndarray
    seed: tuple[int, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a whole frame, the ``canvas_size`` of boxes and points."""
        return self.info.height, self.info.width


@dataclass(frozen=True)
class TargetMaker:
    """Makes the targets of clips, in the process that reads the video.

    Attributes:
        specs: how each target looks, by name.
        make: from the annotation of a video and the frames of a clip, the target of every name;
            sent to workers, so a function of a module.
        smallest_box: boxes with a side of fewer pixels after all cropping are left out, and with
            them their rows of all targets whose number differs; 0 keeps them all.
        frames: from the annotation of a video, the frames that it is about: names of pictures in
            its folder, or numbers of frames of its file; None for all. Clips see no others.
    """

    specs: Mapping[str, TargetSpec]
    make: Callable[[Any, ClipFrames], Mapping[str, Tensor]]
    smallest_box: float = 1.0
    frames: Callable[[Any], Sequence[str] | Sequence[int] | None] | None = None

    def finish(
        self, targets: Mapping[str, Tensor], clip_shape: tuple[int, ...]
    ) -> dict[str, Tensor]:
        """Targets as batches hold them: boxes clipped to the frame, emptied ones left out.

        Raises:
            DataError: they are not what :attr:`specs` says.
        """
        if set(targets) != set(self.specs):
            raise DataError(
                f"the targets of a clip are {', '.join(sorted(targets)) or 'none'}, expected "
                f"{', '.join(sorted(self.specs))}"
            )
        if has_places(targets):
            targets = self._with_clipped_boxes(targets)
        for name, spec in self.specs.items():
            _check(name, spec, targets[name], spec.sides(clip_shape))
        return {name: targets[name].as_subclass(Tensor) for name in self.specs}

    def _with_clipped_boxes(self, targets: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Targets with their boxes clipped to the frame, without those that are too small then."""
        from torchvision.transforms.v2 import functional as F
        from torchvision.tv_tensors import BoundingBoxes

        boxes = next((n for n, value in targets.items() if isinstance(value, BoundingBoxes)), None)
        if boxes is None:
            return targets
        clipped = F.clamp_bounding_boxes(targets[boxes])
        rows = {name: targets[name] for name, spec in self.specs.items() if spec.varies}
        for name, value in rows.items():
            if len(value) != len(clipped):
                raise DataError(
                    f"the target {name!r} has {len(value)} rows, expected {len(clipped)}, one for "
                    f"each of the {boxes!r}"
                )
        rows[boxes] = clipped
        if self.smallest_box > 0:
            kept = _sides(clipped).amin(dim=1) >= self.smallest_box
            rows = {name: value.as_subclass(Tensor)[kept] for name, value in rows.items()}
        return {**targets, **rows}


def has_places(targets: Mapping[str, Tensor]) -> bool:
    """Whether some targets have places in the picture, as none of the plain tensors has.

    Where none has, as with labels, nobody waits for the import of torchvision.
    """
    return any(type(value) is not Tensor for value in targets.values())


def _check(name: str, spec: TargetSpec, value: Tensor, sides: tuple[int, ...]) -> None:
    """Refuse a target that does not look as it should."""
    found = tuple(value.shape[1:] if spec.varies else value.shape)
    if value.dtype != spec.dtype or found != sides or (spec.varies and not value.dim()):
        wanted = ("any number", *sides) if spec.varies else sides
        raise DataError(
            f"the target {name!r} is {value.dtype} of shape {tuple(value.shape)}, expected "
            f"{spec.dtype} of shape ({', '.join(map(str, wanted))})"
        )


def _sides(boxes: BoundingBoxes) -> Tensor:
    """Width and height of boxes, (N, 2)."""
    from torchvision.transforms.v2 import functional as F

    corners = F.convert_bounding_box_format(boxes, new_format="XYXY").as_subclass(Tensor)
    return corners[:, 2:] - corners[:, :2]


@dataclass(frozen=True)
class Annotations:
    """What is known of the videos of a list beside their pixels.

    Attributes:
        rows: one per video, in the order of the list, and none of them None; what is sent to the
            worker that reads the video, so small: boxes, or the name of a file of masks.
        maker: makes the targets of a clip from a row.
    """

    rows: Rows
    maker: TargetMaker

    @classmethod
    def of_labels(cls, labels: np.ndarray | MultiHot) -> Annotations:
        """The same target ``labels`` for all clips of a video: the row of an array (videos, …)."""
        if isinstance(labels, MultiHot):
            spec = TargetSpec(torch.float32, (labels.num_classes,))
        else:
            spec = TargetSpec(torch.from_numpy(labels[:0]).dtype, labels.shape[1:])
        return cls(labels, TargetMaker({LABELS: spec}, _labels))


def _labels(row: np.ndarray, frames: ClipFrames) -> dict[str, Tensor]:
    return {LABELS: torch.as_tensor(row)}


class Targets(Mapping[str, Any]):
    """The targets of the clips of a batch, by name.

    A target of one shape is a tensor (N, …) with a row per clip; one whose number differs from
    clip to clip is a list of N tensors.
    """

    def __init__(self, values: Mapping[str, Tensor | list[Tensor]]):
        self._values = dict(values)

    @classmethod
    def stack(
        cls,
        clips: Sequence[Mapping[str, Tensor]],
        specs: Mapping[str, TargetSpec],
        clip_shape: tuple[int, ...],
    ) -> Targets:
        """Of the targets of each clip; the shapes of ``specs`` hold where there are no clips."""
        values: dict[str, Tensor | list[Tensor]] = {}
        for name, spec in specs.items():
            rows = [clip[name] for clip in clips]
            empty = torch.empty((0, *spec.sides(clip_shape)), dtype=spec.dtype)
            values[name] = rows if spec.varies else torch.stack(rows) if rows else empty
        return cls(values)

    @classmethod
    def join(cls, parts: Sequence[Targets]) -> Targets:
        """Those of the clips of all parts, in their order."""
        return cls(
            {
                name: [row for part in parts for row in part[name]]
                if isinstance(first, list)
                else torch.cat([part[name] for part in parts])
                for name, first in parts[0].items()
            }
        )

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __or__(self, other: Mapping[str, Tensor | list[Tensor]]) -> Targets:
        """With some targets replaced or added."""
        return Targets({**self._values, **other})

    def to(self, device: torch.device) -> Targets:
        """The same on a device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Targets:
        """The same in page-locked memory."""
        return self._each(Tensor.pin_memory)

    def rows(self, places: Sequence[int]) -> Targets:
        """Those of some clips."""
        places = list(places)
        return Targets(
            {
                name: [value[k] for k in places] if isinstance(value, list) else value[places]
                for name, value in self._values.items()
            }
        )

    def tensor_split(self, parts: int) -> list[Targets]:
        """Those of consecutive clips, as ``torch.tensor_split`` divides the clips."""
        count = max(map(len, self._values.values()), default=0)
        bounds = [0, *(len(part) for part in torch.arange(count).tensor_split(parts))]
        starts = list(itertools.accumulate(bounds))
        return [
            Targets({name: value[start:end] for name, value in self._values.items()})
            for start, end in itertools.pairwise(starts)
        ]

    def _each(self, change: Callable[[Tensor], Tensor]) -> Targets:
        return Targets(
            {
                name: [change(row) for row in value] if isinstance(value, list) else change(value)
                for name, value in self._values.items()
            }
        )
