"""Boundaries of masks: boundary IoU (arXiv 2103.16562), and the figures J and F of DAVIS.

The boundary of a mask is what an erosion takes away. The border of the image counts as boundary,
as in the official code (bowenc0221/boundary-iou-api).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from videonet.data.masks import Rle, decode_masks, encode_masks
from videonet.errors import DataError

DILATION = 0.02  # of the diagonal: COCO and LVIS; 0.005 for Cityscapes
DAVIS_TOLERANCE = 0.008  # of the diagonal


def boundary_width(height: int, width: int, ratio: float = DILATION) -> int:
    """How far a boundary reaches into a mask in pixels: a share of the image's diagonal."""
    return max(1, round(ratio * math.hypot(height, width)))


def mask_boundary(mask: np.ndarray, ratio: float = DILATION) -> np.ndarray:
    """The part of a mask (H, W) that is near its edge or that of the image, bool (H, W).

    Args:
        mask: what is not zero belongs to it.
        ratio: the boundary's share of the image's diagonal.
    """
    mask = np.asarray(mask) != 0
    rows, columns = mask.any(axis=1).nonzero()[0], mask.any(axis=0).nonzero()[0]
    boundary = np.zeros_like(mask)
    if not len(rows):
        return boundary
    # Outside its box a mask is empty, so the box alone decides.
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    boundary[box] = mask[box] & ~_eroded(
        mask[box], boundary_width(mask.shape[0], mask.shape[1], ratio)
    )
    return boundary


def _eroded(mask: np.ndarray, steps: int) -> np.ndarray:
    """What is left of a mask after `steps` erosions by 3 x 3; outside of it there is nothing."""
    # They are one erosion by a square, which is full where the mask fills rows and columns.
    for axis in (0, 1):
        mask = _window_sums(mask, steps, axis) == 2 * steps + 1
    return mask


def _window_sums(mask: np.ndarray, reach: int, axis: int) -> np.ndarray:
    """For every pixel (H, W) how many up to `reach` before and behind it on an axis are set."""
    padding = [(reach + 1, reach) if k == axis else (0, 0) for k in (0, 1)]
    sums = np.pad(mask, padding).cumsum(axis=axis, dtype=np.int32)
    side, window = mask.shape[axis], 2 * reach + 1
    if axis == 0:
        return sums[window : window + side] - sums[:side]
    return sums[:, window : window + side] - sums[:, :side]


def boundary_iou(first: np.ndarray, second: np.ndarray, ratio: float = DILATION) -> float:
    """Intersection over union of the boundaries of two masks (H, W); 0 where both are empty."""
    one, other = mask_boundary(first, ratio), mask_boundary(second, ratio)
    return float((one & other).sum() / max((one | other).sum(), 1))


def boundary_rles(rles: Sequence[Rle], ratio: float = DILATION) -> list[Rle]:
    """The boundaries of run-length masks."""
    found = []
    for rle in rles:
        height, width = rle["size"]
        mask = decode_masks([rle], (height, width))[0].numpy()
        found += encode_masks(mask_boundary(mask, ratio)[None])
    return found


def region_similarity(mask: np.ndarray, truth: np.ndarray) -> float:
    """J of DAVIS: the intersection over union of two masks (H, W), 1 where both are empty."""
    _check_sizes(mask, truth)
    mask, truth = np.asarray(mask) != 0, np.asarray(truth) != 0
    union = (mask | truth).sum()
    return float((mask & truth).sum() / union) if union else 1.0


def contour_accuracy(
    mask: np.ndarray, truth: np.ndarray, tolerance: float = DAVIS_TOLERANCE
) -> float:
    """F of DAVIS: the harmonic mean of precision and recall of contours.

    A pixel of a contour is right where one of the other contour is within a disk.

    Args:
        mask: (H, W).
        truth: (H, W).
        tolerance: radius of the disk as a share of the diagonal, or from 1 on in pixels.
    """
    _check_sizes(mask, truth)
    radius = tolerance if tolerance >= 1 else math.ceil(tolerance * math.hypot(*truth.shape))
    one, other = _contour(np.asarray(mask) != 0), _contour(np.asarray(truth) != 0)
    pixels, wanted = one.sum(), other.sum()
    if not pixels or not wanted:
        return float(pixels == wanted)
    precision = (one & _dilated(other, int(radius))).sum() / pixels
    recall = (other & _dilated(one, int(radius))).sum() / wanted
    total = precision + recall
    return float(2 * precision * recall / total) if total else 0.0


def _check_sizes(mask: np.ndarray, truth: np.ndarray) -> None:
    if mask.shape != truth.shape or mask.ndim != 2:
        raise DataError(f"masks of shapes {mask.shape} and {truth.shape}, expected two of (H, W)")


def _contour(mask: np.ndarray) -> np.ndarray:
    """Pixels that differ from one to the right, below, or right below; one pixel wide."""
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    right, below, diagonal = padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    return (mask != right) | (mask != below) | (mask != diagonal)


def _dilated(mask: np.ndarray, radius: int) -> np.ndarray:
    """A mask grown by a disk of pixels up to `radius` away."""
    height, width = mask.shape
    grown = np.zeros((height + 2 * radius, width), dtype=bool)
    for down in range(-radius, radius + 1):
        across = math.isqrt(radius**2 - down**2)
        grown[radius + down : radius + down + height] |= _window_sums(mask, across, 1) > 0
    return grown[radius : radius + height]
