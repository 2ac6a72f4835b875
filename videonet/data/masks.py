"""Masks as COCO stores them: run lengths, compressed or not, and polygons (pycocotools).

A run-length mask is a dictionary ``{"size": [H, W], "counts": "…"}`` as it stands in JSON. It is
small where a bitmap of every object of an image would not be, so data sets keep masks so, and
evaluations too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from videonet.errors import ConfigError, DataError

Rle = dict[str, Any]  # {"size": [H, W], "counts": str}
Shape = Rle | Sequence[float]


def coco_masks() -> Any:
    """The module ``pycocotools.mask``.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        from pycocotools import mask
    except ImportError:
        raise ConfigError(
            "masks of objects need pycocotools: pip install 'videonet[dense]'"
        ) from None
    return mask


def encode_masks(masks: Tensor | np.ndarray) -> list[Rle]:
    """Run lengths of bitmaps (N, H, W), where what is not zero belongs to the mask."""
    array = masks.numpy() if isinstance(masks, Tensor) else masks
    columns = np.asfortranarray((array != 0).transpose(1, 2, 0).astype(np.uint8))  # (H, W, N)
    found = coco_masks().encode(columns)
    return [{"size": list(rle["size"]), "counts": rle["counts"].decode()} for rle in found]


def decode_masks(rles: Sequence[Rle], size: tuple[int, int]) -> Tensor:
    """Bitmaps bool (N, H, W) of run lengths that all have one size.

    Args:
        rles: the masks.
        size: height and width, for the case of no masks.

    Raises:
        DataError: the counts of a mask do not fill its size.
    """
    if not rles:
        return torch.zeros(0, *size, dtype=torch.bool)
    try:
        found = coco_masks().decode(list(rles))  # (H, W, N)
    except (ValueError, TypeError) as error:
        raise DataError(f"a run-length mask cannot be decoded: {error}") from None
    return torch.from_numpy(np.ascontiguousarray(found.transpose(2, 0, 1))).bool()


def mask_areas(rles: Sequence[Rle]) -> np.ndarray:
    """Pixels of each mask, (N,) int64."""
    return coco_masks().area(list(rles)).astype(np.int64) if rles else np.zeros(0, np.int64)


def mask_boxes(rles: Sequence[Rle]) -> np.ndarray:
    """The boxes around masks, (N, 4) float64 as (x, y, width, height); zeros for an empty one."""
    return coco_masks().toBbox(list(rles)).reshape(-1, 4) if rles else np.zeros((0, 4))


def mask_overlaps(
    first: Sequence[Shape], second: Sequence[Shape], crowd: Sequence[bool]
) -> np.ndarray:
    """Intersection over union of each pair of masks, or of boxes (x, y, width, height), (N, M).

    Args:
        first: N masks.
        second: M masks.
        crowd: which of the second ones are crowd regions, of which a part is enough: there the
            intersection is divided by the area of the first.
    """
    if not first or not second:
        return np.zeros((len(first), len(second)))
    return coco_masks().iou(list(first), list(second), [int(is_crowd) for is_crowd in crowd])


def to_rle(segmentation: Any, height: int, width: int) -> Rle:
    """Run lengths of what a ``segmentation`` of COCO may be.

    Args:
        segmentation: polygons ``[[x0, y0, x1, y1, x2, y2, …], …]``, or a dictionary of ``size`` and
            ``counts``, which are a text (compressed) or numbers.
        height: of the image.
        width: of the image.

    Raises:
        DataError: it is none of these, or of another size.
    """
    if isinstance(segmentation, Mapping):
        return _of_runs(segmentation, height, width)
    if not isinstance(segmentation, list) or not segmentation:
        raise DataError(f"a segmentation is {_short(segmentation)}, expected polygons or runs")
    for polygon in segmentation:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise DataError(
                f"a polygon is {_short(polygon)}, expected three or more corners as x, y, x, y, …"
            )
        if not all(_is_number(value) for value in polygon):
            raise DataError(f"a polygon {_short(polygon)} has corners that are no numbers")
    masks = coco_masks()
    return _as_text(masks.merge(masks.frPyObjects(segmentation, height, width)))


def _of_runs(segmentation: Mapping[str, Any], height: int, width: int) -> Rle:
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if not isinstance(size, list) or size != [height, width]:
        raise DataError(f"a mask of runs has size {_short(size)}, expected {[height, width]}")
    if isinstance(counts, (str, bytes)):
        text = counts.decode("ascii", "replace") if isinstance(counts, bytes) else counts
        return {"size": [height, width], "counts": text}
    if not isinstance(counts, list) or not all(type(run) is int and run >= 0 for run in counts):
        raise DataError(f"a mask of runs has counts {_short(counts)}, expected a text or numbers")
    if sum(counts) != height * width:
        raise DataError(
            f"the runs of a mask add up to {sum(counts)}, expected {height} x {width} = "
            f"{height * width}"
        )
    runs = {"size": [height, width], "counts": counts}
    return _as_text(coco_masks().frPyObjects(runs, height, width))


def _as_text(rle: Mapping[str, Any]) -> Rle:
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _short(value: Any, most: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}…"
