"""The views of a video in evaluation: what the test loader and the Predictor share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from videonet.data.decode import VideoReader
from videonet.data.transforms.crops import pick_frames, spatial_crops
from videonet.data.transforms.sampling import ClipSampler


def video_views(
    reader: VideoReader,
    sampler: ClipSampler,
    *,
    crop_size: int,
    temporal: int = 1,
    spatial: int = 1,
    short_side: int | None = None,
    targets_of: Callable[[np.ndarray], Mapping[str, Tensor]] | None = None,
    interpolation: str = "bilinear",
    whole: Callable[..., Any] | None = None,
) -> Any:
    """All views of a video, uint8 ``(temporal · spatial, 3, T, crop, crop)``, temporal-major.

    Decodes each frame once. Crops are taken from frames of ``short_side`` (None: ``crop_size``);
    the reader is best opened with it, and frames of another size are resized by ``interpolation``.
    Raises DecodeError
    where the video cannot be read.

    ``whole`` makes one view of a clip, instead of crops.

    ``targets_of`` gives the targets of a clip of these frames, ``(T,)``; with it the result is the
    views and a list of the targets of each, in its crop.
    """
    info = reader.info
    indices = sampler.uniform(info.frames, info.fps, temporal, reader.times)  # (temporal, T)
    crops: list[Any] = []
    for row, clip in zip(indices, read_clips(reader, indices), strict=True):
        targets = None if targets_of is None else targets_of(row)
        if whole is not None:
            crops.append(whole(clip, targets))
            continue
        crops += spatial_crops(clip, crop_size, spatial, short_side, targets, interpolation)
    if targets_of is None:
        return to_batch(crops)
    return to_batch([clip for clip, _ in crops]), [targets for _, targets in crops]


def read_clips(reader: VideoReader, indices) -> list[Tensor]:
    """Decode rows of frame indices ``(clips, T)`` in one pass to ``(T, 3, H, W)`` each."""
    frames, rows = read_frames(reader, indices)
    return [pick_frames(frames, row) for row in rows]


def read_frames(reader: VideoReader, indices) -> tuple[Tensor, Tensor]:
    """Decode the distinct frames of ``indices`` (clips, T), and say which ones a clip takes.

    Returns frames ``(distinct, 3, H, W)``, the colours of a pixel side by side, and their numbers
    ``(clips, T)``.
    """
    wanted, rows = torch.unique(torch.as_tensor(indices), return_inverse=True)
    return reader.frames_at(wanted).permute(0, 3, 1, 2), rows


def to_batch(clips: list[Tensor], out: Tensor | None = None) -> Tensor:
    """Stack clips ``(T, 3, H, W)`` to ``(N, 3, T, H, W)``, contiguous, in ``out`` where given."""
    return torch.stack([clip.transpose(0, 1) for clip in clips], out=out)
