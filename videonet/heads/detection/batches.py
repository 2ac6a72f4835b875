"""Images and clips of several sizes as one padded batch, with the ground truth of their frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from videonet.errors import DataError
from videonet.heads.detection.anchors import Size
from videonet.heads.detection.frames import Frames, FrameTarget, check_target

Target = Mapping[str, Tensor]  # "boxes" (N, 4), "labels" (N,), "masks" (N, H, W) if there are any
Clip = Tensor | Sequence[Tensor]  # (3, T, H, W), an image (3, H, W), or its frames (3, H, W)


def to_clip(clip: Clip, number: int) -> Tensor:
    """An image, a clip or the frames of a clip -> (C, T, H, W).

    Args:
        number: of the clip in its batch, for messages.

    Raises:
        DataError: the frames of a clip differ in size, or it is none of these.
    """
    if not isinstance(clip, Tensor):
        sizes = {tuple(frame.shape) for frame in clip}
        if len(sizes) != 1:
            found = " and ".join(f"{s[-2]}x{s[-1]}" for s in sorted(sizes)) or "no frames"
            raise DataError(f"the frames of clip {number} differ in size: {found}")
        clip = torch.stack(list(clip), dim=1)
    if clip.dim() == 3:
        clip = clip.unsqueeze(1)
    if clip.dim() != 4:
        raise DataError(
            f"clip {number} has the shape {tuple(clip.shape)}, expected (C, T, H, W) or (C, H, W)"
        )
    return clip


def pad_clips(
    clips: Tensor | Sequence[Clip], multiple: int, square: int = 0
) -> tuple[Tensor, list[Size]]:
    """Put clips into one batch, with zeros at the bottom and on the right.

    Args:
        clips: (B, C, T, H, W), images (B, C, H, W), or a list of images and clips.
        multiple: of which height and width of the batch are.
        square: height and width of the batch at least, in pixels.

    Returns:
        (B, C, T, H', W'), and the size of every clip without its padding.

    Raises:
        DataError: no clips, or clips that differ in their number of frames or channels.
    """
    if isinstance(clips, Tensor) and clips.dim() not in (4, 5):
        raise DataError(
            f"the batch has the shape {tuple(clips.shape)}, expected (B, C, T, H, W) or "
            "(B, C, H, W)"
        )
    each = [to_clip(clip, number) for number, clip in enumerate(clips)]
    shapes = {tuple(clip.shape[:2]) for clip in each}
    if len(shapes) != 1:
        found = " and ".join(f"{t} frames of {c} channels" for c, t in sorted(shapes))
        raise DataError(f"the clips of a batch are alike in frames and channels, but are {found}")
    sizes = [(clip.shape[2], clip.shape[3]) for clip in each]
    height, width = (
        -(-max(square, *(size[side] for size in sizes)) // multiple) * multiple for side in (0, 1)
    )
    padded = [F.pad(c, (0, width - c.shape[3], 0, height - c.shape[2])) for c in each]
    return torch.stack(padded), sizes


def frame_of_step(step: int, stride: int) -> int:
    """The input frame that stands for a step of the maps: the first one of those it covers.

    Step t of maps of a temporal stride s covers the frames t·s to t·s + s - 1. Its ground truth is
    that of frame t·s, and what is found in it holds for all of them.
    """
    return step * stride


def step_of_frame(frame: int, stride: int, steps: int) -> int:
    """The step of the maps whose detections hold for an input frame, see :func:`frame_of_step`."""
    return min(frame // stride, steps - 1)


def gather_targets(
    targets: Sequence[Target | Sequence[Target | None] | None],
    sizes: Sequence[Size],
    frames: int,
    stride: int,
    steps: int,
    num_classes: int,
    device: torch.device,
) -> list[FrameTarget | None]:
    """The ground truth of the steps of all clips, without boxes that have no area.

    Args:
        targets: of every clip the targets of its T frames, None for a frame that is not
            annotated; of an image its target alone will do.
        sizes: of every clip.
        frames: T.
        stride: frames from one step of the maps to the next.
        steps: of the maps.
        num_classes: of the detector.
        device: to put them on.

    Raises:
        DataError: another number of targets, or one that does not fit its frame.
    """
    if len(targets) != len(sizes):
        raise DataError(f"there are targets for {len(targets)} clips, expected {len(sizes)}")
    gathered: list[FrameTarget | None] = []
    for number, (of_clip, size) in enumerate(zip(targets, sizes, strict=True)):
        each: list[Target | None]
        each = [of_clip] if of_clip is None or isinstance(of_clip, Mapping) else list(of_clip)
        if len(each) != frames:
            raise DataError(
                f"there are targets for {len(each)} frames of clip {number}, expected {frames}"
            )
        for step in range(steps):
            frame = frame_of_step(step, stride)
            target = each[frame]
            if target is None:
                gathered.append(None)
                continue
            where = f"frame {frame} of clip {number}"
            gathered.append(_checked(target, size, num_classes, where, device))
    return gathered


def _checked(
    target: Target, size: Size, num_classes: int, where: str, device: torch.device
) -> FrameTarget:
    missing = [key for key in ("boxes", "labels") if key not in target]
    if missing:
        raise DataError(f"the target of {where} has no {missing[0]}")
    masks = target.get("masks")
    found = FrameTarget(
        target["boxes"].to(device, torch.float32).as_subclass(Tensor),
        target["labels"].to(device, torch.int64).as_subclass(Tensor),
        None if masks is None else (masks.to(device) != 0).as_subclass(Tensor),
    )
    check_target(found, size, num_classes, where)
    return found.usable()


def frames_of_clips(
    sizes: Sequence[Size],
    padded: Size,
    steps: int,
    targets: Sequence[FrameTarget | None] | None = None,
) -> Frames:
    """Every step of every clip as a frame."""
    return Frames([size for size in sizes for _ in range(steps)], padded, steps, targets)
