"""Average precision as COCO defines it, on whatever overlap: pycocotools matches and accumulates.

Objects and detections are dictionaries of COCO with ``id``, ``image_id``, ``category_id``,
``area``, for objects ``iscrowd`` and for detections ``score``; a video counts as an image.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from videonet.data.masks import coco_masks

Found = Mapping[str, Any]  # an object or a detection
# (detections by falling score, objects) of one image and category -> overlaps (D, G)
Overlaps = Callable[[Sequence[Found], Sequence[Found]], np.ndarray]

MAX_DETECTIONS = (1, 10, 100)
IMAGE_AREAS = (0.0, 32.0**2, 96.0**2, 1e10)  # small, medium and large objects lie between these
VIDEO_AREAS = (0.0, 128.0**2, 256.0**2, 1e10)
AREA_NAMES = ("", "s", "m", "l")


@dataclass(frozen=True)
class AveragePrecision:
    """Precision over recall; -1 where a category has no objects of an area.

    Attributes:
        categories: (K,) their ids, rising.
        thresholds: (T,) of the overlap.
        recalls: (R,) at which precision is taken.
        max_detections: (M,) limits per image.
        precision: (T, R, K, A, M); the areas are all, small, medium, large.
        recall: (T, K, A, M), the highest.
        scores: (T, R, K, A, M), of the detection at each recall.
    """

    categories: list[int]
    thresholds: np.ndarray
    recalls: np.ndarray
    max_detections: list[int]
    precision: np.ndarray
    recall: np.ndarray
    scores: np.ndarray

    def stats(self) -> dict[str, float]:
        """The twelve figures of COCO, shares from 0 to 1; -1 where there are no objects."""
        figures = {"AP": self.average(), "AP50": self.average(0.5), "AP75": self.average(0.75)}
        for area, name in enumerate(AREA_NAMES[1:], 1):
            figures[f"AP{name}"] = _mean(self.precision[:, :, :, area, -1])
        for limit, most in enumerate(self.max_detections):
            figures[f"AR{most}"] = _mean(self.recall[:, :, 0, limit])
        for area, name in enumerate(AREA_NAMES[1:], 1):
            figures[f"AR{name}"] = _mean(self.recall[:, :, area, -1])
        return figures

    def average(self, threshold: float | None = None) -> float:
        """Mean precision over categories and recalls, at all thresholds or at one."""
        chosen = slice(None) if threshold is None else np.isclose(self.thresholds, threshold)
        return _mean(self.precision[chosen, :, :, 0, -1])

    def per_category(self) -> dict[int, float]:
        """The average precision of each category; -1 where it has no objects."""
        return {
            category: _mean(self.precision[:, :, k, 0, -1])
            for k, category in enumerate(self.categories)
        }

    def curve(self, threshold: float, category: int | None = None) -> np.ndarray:
        """Precision at each recall, (R,), of a category or the mean over those with objects."""
        place = int(np.isclose(self.thresholds, threshold).argmax())
        curves = self.precision[place, :, :, 0, -1]  # (R, K)
        if category is not None:
            return curves[:, self.categories.index(category)]
        seen = (curves > -1).all(axis=0)
        return curves[:, seen].mean(axis=1) if seen.any() else np.full(len(curves), -1.0)


def _mean(values: np.ndarray) -> float:
    values = values[values > -1]
    return float(values.mean()) if values.size else -1.0


def average_precision(
    objects: Sequence[Found],
    detections: Sequence[Found],
    *,
    images: Sequence[int],
    categories: Sequence[int],
    overlaps: Overlaps,
    areas: Sequence[float] = IMAGE_AREAS,
    max_detections: Sequence[int] = MAX_DETECTIONS,
) -> AveragePrecision:
    """Match detections with objects and accumulate precision, as ``COCOeval`` does.

    Args:
        objects: the truth; those with ``iscrowd`` absorb detections and are not missed.
        detections: of all images, in any order.
        images: ids of the images that count.
        categories: ids of the categories that count.
        overlaps: of the detections and objects of an image.
        areas: limits between small, medium and large objects, in pixels.
        max_detections: limits per image and category, those with the highest scores.
    """
    coco_masks()  # says how to install it
    from pycocotools.cocoeval import COCOeval

    class Matching(COCOeval):
        """The official matching, with overlaps of our own."""

        def computeIoU(self, imgId: int, catId: int) -> Any:
            found, truth = self._dts[imgId, catId], self._gts[imgId, catId]
            if not found and not truth:
                return []
            order = np.argsort([-one["score"] for one in found], kind="mergesort")
            kept = [found[k] for k in order[: self.params.maxDets[-1]]]
            return overlaps(kept, truth)

    matching = Matching(_Index(objects), _Index(detections), "bbox")
    settings = matching.params
    settings.imgIds, settings.catIds = sorted(set(images)), sorted(set(categories))
    settings.maxDets = sorted(max_detections)
    small, medium, large, largest = areas
    settings.areaRng = [[small, largest], [small, medium], [medium, large], [large, largest]]
    with contextlib.redirect_stdout(io.StringIO()):  # it reports its progress there
        matching.evaluate()
        matching.accumulate()
    return AveragePrecision(
        [int(category) for category in settings.catIds],
        np.asarray(settings.iouThrs),
        np.asarray(settings.recThrs),
        list(settings.maxDets),
        matching.eval["precision"],
        matching.eval["recall"],
        matching.eval["scores"],
    )


class _Index:
    """The part of pycocotools' class ``COCO`` that its evaluation asks."""

    def __init__(self, found: Sequence[Found]):
        # The matching marks the dictionaries, and takes the id 0 for no match.
        self._found = [dict(one) | {"id": number} for number, one in enumerate(found, 1)]

    def getImgIds(self) -> list[int]:
        return []  # set by the caller

    def getCatIds(self) -> list[int]:
        return []

    def getAnnIds(self, imgIds: list[int], catIds: list[int]) -> list[int]:
        images, categories = set(imgIds), set(catIds)
        return [
            one["id"]
            for one in self._found
            if one["image_id"] in images and one["category_id"] in categories
        ]

    def loadAnns(self, ids: list[int]) -> list[dict[str, Any]]:
        return [self._found[number - 1] for number in ids]
