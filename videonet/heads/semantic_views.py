"""Semantic segmentation of a clip by many views: windows, scales, mirror images.

As mmsegmentation does it: logits are averaged over the windows that see a pixel, and probabilities
over scales and mirror images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from videonet.errors import ConfigError
from videonet.ops.resize import resize_space

LogitsOf = Callable[[Tensor], Tensor]  # (B, 3, T, H, W) -> (B, K, T, H, W)
SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)  # of the published multi-scale figures


def window_starts(size: int, window: int, stride: int) -> list[int]:
    """Where windows start along an axis; the last one ends where the axis does."""
    if size <= window:
        return [0]
    steps = range(-(-(size - window) // stride) + 1)
    return [min(step * stride, size - window) for step in steps]


def sliding_logits(
    logits_of: LogitsOf, clip: Tensor, window: tuple[int, int], stride: tuple[int, int]
) -> Tensor:
    """Logits of a clip, computed window by window in space and averaged where windows overlap.

    Args:
        logits_of: gives the logits of a part of the clip, at its size.
        clip: (B, C, T, H, W).
        window: (height, width) of a window; a smaller clip is one window.
        stride: (height, width) from one window to the next.

    Returns:
        (B, K, T, H, W).

    Raises:
        ConfigError: a stride is not positive, or leaves pixels between the windows.
    """
    if not all(0 < s <= w for s, w in zip(stride, window, strict=True)):
        raise ConfigError(f"windows of {window} cannot have strides of {stride}")
    height, width = clip.shape[3:]
    rows = window_starts(height, window[0], stride[0])
    columns = window_starts(width, window[1], stride[1])
    total, counts = None, clip.new_zeros(height, width)
    for y in rows:
        for x in columns:
            part = (..., slice(y, y + window[0]), slice(x, x + window[1]))
            logits = logits_of(clip[part])
            if total is None:
                total = logits.new_zeros(*logits.shape[:3], height, width)
            total[part] += logits
            counts[part] += 1
    assert total is not None  # there is a first window
    return total / counts.to(total.dtype)


def mean_probabilities(
    logits_of: LogitsOf,
    clip: Tensor,
    *,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
) -> Tensor:
    """Probabilities of the classes, averaged over sizes of the clip and its mirror images.

    Args:
        logits_of: gives the logits of a clip at its size; :func:`sliding_logits` within it, where
            windows are wanted.
        clip: (B, C, T, H, W).
        scales: factors on height and width; ``SCALES`` as published.
        flip: also of the clip mirrored left to right.

    Returns:
        (B, K, T, H, W), which sum to 1 over K.

    Raises:
        ConfigError: there is no scale, or one is not positive.
    """
    if not scales or min(scales) <= 0:
        raise ConfigError(f"scales are {tuple(scales)}, expected one or more positive numbers")
    size = (clip.shape[3], clip.shape[4])
    total: Tensor | None = None
    for scale in scales:
        scaled = (max(int(size[0] * scale + 0.5), 1), max(int(size[1] * scale + 0.5), 1))
        view = resize_space(clip, scaled)
        for mirrored in (False, True) if flip else (False,):
            logits = resize_space(logits_of(view.flip(-1) if mirrored else view), size)
            logits = logits.flip(-1) if mirrored else logits
            probabilities = logits.softmax(dim=1)
            total = probabilities if total is None else total + probabilities
    assert total is not None  # there is a scale
    return total / (len(scales) * (2 if flip else 1))


@torch.no_grad()
def segment(
    logits_of: LogitsOf,
    clip: Tensor,
    *,
    window: tuple[int, int] | None = None,
    stride: tuple[int, int] | None = None,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
) -> Tensor:
    """Probabilities of a clip by windows, scales and mirror images, as they are asked for.

    Args:
        logits_of: gives the logits of a clip at its size, such as a segmenter in eval mode.
        clip: (B, C, T, H, W).
        window, stride: see :func:`sliding_logits`; without a window the whole clip at once, and
            without a stride two thirds of the window, rounded down.
        scales, flip: see :func:`mean_probabilities`.

    Returns:
        (B, K, T, H, W), which sum to 1 over K.
    """
    if window is None:
        return mean_probabilities(logits_of, clip, scales=scales, flip=flip)
    step = stride or (window[0] * 2 // 3, window[1] * 2 // 3)

    def by_windows(view: Tensor) -> Tensor:
        return sliding_logits(logits_of, view, window, step)

    return mean_probabilities(by_windows, clip, scales=scales, flip=flip)
