"""The windows of a video file, which need the configuration and not the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from fvcore.common.config import CfgNode
from torch import Tensor

from videonet.data.decode import PyAVReader
from videonet.data.loading.build import clip_sampler, evaluation_views
from videonet.data.transforms.clip import spatial_crops
from videonet.data.transforms.sampling import Clock
from videonet.inference.windows import SlidingPlan, Window, WindowBuffer, sliding_windows


def file_windows(
    cfg: CfgNode,
    video: str,
    *,
    window: float | None = None,
    stride: float | None = None,
    crops: int = 1,
    first: int = 0,
) -> Iterator[Window]:
    """Decode a file once, forwards, and give each window when its last frame is there.

    Args:
        cfg: how clips are made.
        video: the file.
        window: seconds, see :meth:`SlidingPlan.make`.
        stride: seconds, see :meth:`SlidingPlan.make`.
        crops: 1 (the centre) or 3 of each window.
        first: number of the window to begin with.

    Raises:
        DecodeError: the file cannot be read, or not to its end.
    """
    with PyAVReader(video) as reader:
        clock = Clock.of(reader.info.frames, reader.info.fps, reader.times)
        plan = SlidingPlan.make(clip_sampler(cfg, "test"), clock.rate, window, stride)
        start = np.searchsorted(reader.times, first * plan.stride / plan.fps) - 1
        frames = reader.forwards(int(np.clip(start, 0, reader.info.frames - 1)))
        yield from sliding_windows(frames, WindowBuffer(plan, cropper(cfg, crops), first=first))


def cropper(cfg: CfgNode, crops: int) -> Callable[[np.ndarray], Tensor]:
    """A function that resizes and crops pictures as testing does.

    It makes (crops, 3, S, S) of a picture (H, W, 3), uint8.
    """
    size, by = cfg.DATA.TEST_CROP_SIZE, cfg.TEST.INTERPOLATION
    short_side = evaluation_views(cfg).short_side

    def crop(picture: np.ndarray) -> Tensor:
        frame = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)
        clips = spatial_crops(frame.unsqueeze(0), size, crops, short_side, interpolation=by)
        return torch.cat(clips)

    return crop
