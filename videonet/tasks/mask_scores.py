"""COCO's average precision of boxes, masks and boundaries of masks in images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from videonet.data.masks import mask_areas, mask_boxes, mask_overlaps, to_rle
from videonet.errors import DataError
from videonet.tasks.average_precision import (
    MAX_DETECTIONS,
    AveragePrecision,
    Found,
    average_precision,
)
from videonet.tasks.boundaries import DILATION, boundary_rles

KINDS = ("bbox", "segm", "boundary")


def coco_scores(
    truth: Mapping[str, Any],
    detections: Sequence[Mapping[str, Any]],
    kind: str,
    *,
    max_detections: Sequence[int] = MAX_DETECTIONS,
    dilation: float = DILATION,
) -> AveragePrecision:
    """The average precision of detections, equal to that of pycocotools.

    Args:
        truth: ``images``, ``categories`` and ``annotations`` as in a JSON file of COCO.
        detections: ``image_id``, ``category_id``, ``score``, and ``bbox`` (x, y, width, height) or
            ``segmentation``, as in a file of results.
        kind: "bbox", "segm", or "boundary" for the smaller one of the overlaps of masks and of
            their boundaries.
        max_detections: per image and category.
        dilation: width of a boundary as a share of the image's diagonal.

    Raises:
        DataError: an annotation or a detection cannot be used.
    """
    if kind not in KINDS:
        raise DataError(f"scores of {kind!r}, expected one of {', '.join(KINDS)}")
    images = {image["id"]: image for image in truth["images"]}
    objects = [
        _prepared(one, images, kind, dilation, f"annotation {one.get('id', k)}")
        for k, one in enumerate(truth["annotations"])
    ]
    found = [
        _prepared(one, images, kind, dilation, f"detection {k}") for k, one in enumerate(detections)
    ]
    for one in found:  # areas of detections are those of what is compared
        one["area"] = one["bbox"][2] * one["bbox"][3] if kind == "bbox" else one["pixels"]
    return average_precision(
        objects,
        found,
        images=list(images),
        categories=[category["id"] for category in truth["categories"]],
        overlaps=_OVERLAPS[kind],
        max_detections=max_detections,
    )


def _prepared(
    one: Mapping[str, Any], images: Mapping[Any, Any], kind: str, dilation: float, place: str
) -> dict[str, Any]:
    """An annotation or detection with everything that this kind of scores needs."""
    image = images.get(one.get("image_id"))
    if image is None:
        raise DataError(f"{place}: there is no image {one.get('image_id')!r}")
    done = {**one, "iscrowd": int(one.get("iscrowd", 0))}
    segmentation = one.get("segmentation")
    if not segmentation and (kind != "bbox" or "bbox" not in one):
        raise DataError(f"{place}: there is no {'bbox' if kind == 'bbox' else 'segmentation'}")
    needs_mask = kind != "bbox" or "bbox" not in one or "area" not in one
    if segmentation and needs_mask:
        try:
            rle = to_rle(segmentation, image["height"], image["width"])
        except DataError as error:
            raise DataError(f"{place}: {error}") from None
        done["segmentation"], done["pixels"] = rle, int(mask_areas([rle])[0])
        done.setdefault("bbox", mask_boxes([rle])[0].tolist())
        if kind == "boundary":
            done["boundary"] = boundary_rles([rle], dilation)[0]
    done.setdefault("area", done["pixels"] if "pixels" in done else _box_area(done["bbox"]))
    return done


def _box_area(box: Sequence[float]) -> float:
    return box[2] * box[3]


def _box_overlaps(found: Sequence[Found], truth: Sequence[Found]) -> np.ndarray:
    return _overlaps_of("bbox", found, truth)


def _mask_overlaps(found: Sequence[Found], truth: Sequence[Found]) -> np.ndarray:
    return _overlaps_of("segmentation", found, truth)


def _boundary_overlaps(found: Sequence[Found], truth: Sequence[Found]) -> np.ndarray:
    """The smaller one of the overlaps of masks and of boundaries; of crowds that of masks."""
    of_masks, of_boundaries = _mask_overlaps(found, truth), _overlaps_of("boundary", found, truth)
    crowd = np.array([bool(one["iscrowd"]) for one in truth], dtype=bool)
    return np.where(crowd, of_masks, np.minimum(of_masks, of_boundaries))


def _overlaps_of(name: str, found: Sequence[Found], truth: Sequence[Found]) -> np.ndarray:
    crowd = [bool(one["iscrowd"]) for one in truth]
    return mask_overlaps([one[name] for one in found], [one[name] for one in truth], crowd)


_OVERLAPS = {"bbox": _box_overlaps, "segm": _mask_overlaps, "boundary": _boundary_overlaps}
