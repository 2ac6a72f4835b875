"""What the tasks of objects and of label maps have in common."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from fvcore.common.config import CfgNode
from torch import Tensor

from videonet.data.loading.build import SQUARE
from videonet.data.targets import Targets
from videonet.errors import ConfigError

Size = tuple[int, int]


def one_view(cfg: CfgNode) -> CfgNode:
    """The configuration with a single view of whole pictures, which dense tasks have.

    Raises:
        ConfigError: clips are crops for classification, or pieces of videos would leave out frames.
    """
    if cfg.DATA.CROP == SQUARE:
        raise ConfigError(
            f"DATA.CROP is {SQUARE}, but MODEL.TASK {cfg.MODEL.TASK} needs short_side, "
            "large_scale_jitter or scale_and_crop, which keep boxes and masks with their pictures"
        )
    if cfg.TEST.EVERY_FRAME and cfg.DATA.SAMPLING_RATE != 1:
        raise ConfigError(
            f"DATA.SAMPLING_RATE is {cfg.DATA.SAMPLING_RATE}, but must be 1 with TEST.EVERY_FRAME"
        )
    changed = cfg.clone()
    changed.defrost()
    changed.TEST.NUM_ENSEMBLE_VIEWS = changed.TEST.NUM_SPATIAL_CROPS = 1
    changed.freeze()
    return changed


def sizes_of(targets: Targets, name: str = "size") -> list[Size]:
    """Height and width of the picture in every clip, or with ``whole`` of its frames."""
    return [(height, width) for height, width in targets[name].tolist()]


def pictures_of(clips: Tensor, sizes: Sequence[Size]) -> list[Tensor]:
    """Clips (N, C, T, H, W) without their padding, (C, T, h, w) each."""
    return [clip[..., :height, :width] for clip, (height, width) in zip(clips, sizes, strict=True)]


def shown_frames(targets: Targets, clip: int, start: int) -> tuple[list[int], list[int]]:
    """The annotated frames that a clip shows, each once.

    Args:
        targets: of some clips.
        clip: the number of one.
        start: the place of the first frame of its annotation in the whole video.

    Returns:
        Places in the clip, and places among the frames of the annotation, rising.
    """
    numbers, seen = targets["numbers"][clip].tolist(), targets["seen"][clip].tolist()
    first: dict[int, int] = {}
    for place, number in enumerate(numbers):
        first.setdefault(number - start, place)
    chosen = [frame for frame in sorted(first) if seen[first[frame]]] or sorted(first)[:1]
    return [first[frame] for frame in chosen], chosen


def all_finite(tensors: Sequence[Tensor]) -> bool:
    """Whether every number of some tensors is finite."""
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)
