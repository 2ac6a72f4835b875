"""The views of a video in evaluation: what the test loader and the Predictor share."""

from __future__ import annotations

import torch
from torch import Tensor

from videonet.data.decode import VideoReader
from videonet.data.sampling import ClipSampler
from videonet.data.transforms import spatial_crops


def video_views(
    reader: VideoReader,
    sampler: ClipSampler,
    *,
    crop_size: int,
    temporal: int = 1,
    spatial: int = 1,
) -> Tensor:
    """All views of a video, uint8 ``(temporal · spatial, 3, T, crop, crop)``, temporal-major.

    Decodes each frame once. The reader is best opened with ``short_side=crop_size``; frames of
    another size are resized. Raises DecodeError where the video cannot be read.
    """
    info = reader.info
    indices = sampler.uniform(info.frames, info.fps, temporal, reader.times)  # (temporal, T)
    clips = read_clips(reader, indices)
    views = [crop for clip in clips for crop in spatial_crops(clip, crop_size, spatial)]
    return to_batch(views)


def read_clips(reader: VideoReader, indices) -> list[Tensor]:
    """Decode rows of frame indices ``(clips, T)`` in one pass to ``(T, 3, H, W)`` each."""
    wanted, place = torch.unique(torch.as_tensor(indices), return_inverse=True)
    frames = reader.frames_at(wanted).permute(0, 3, 1, 2)  # (frames, 3, H, W), channels last
    return [frames[row] for row in place]


def to_batch(clips: list[Tensor]) -> Tensor:
    """Stack clips ``(T, 3, H, W)`` to ``(N, 3, T, H, W)``, contiguous."""
    return torch.stack([clip.transpose(0, 1) for clip in clips])
