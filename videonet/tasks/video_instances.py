"""Average precision of objects in videos, as YouTube-VIS defines it (arXiv 1905.04804).

A track is one object with a mask in every frame, or None where it is absent. Two tracks overlap by
the sum of the intersections over the sum of the unions of all frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from videonet.data.masks import Rle, mask_areas, mask_overlaps, to_rle
from videonet.errors import DataError
from videonet.tasks.average_precision import (
    MAX_DETECTIONS,
    VIDEO_AREAS,
    AveragePrecision,
    Found,
    average_precision,
)

Track = Sequence[Rle | None]  # a mask per frame


def video_scores(
    truth: Mapping[str, Any],
    detections: Sequence[Mapping[str, Any]],
    *,
    max_detections: Sequence[int] = MAX_DETECTIONS,
) -> AveragePrecision:
    """The average precision of tracks, equal to that of the official evaluation.

    Args:
        truth: ``videos``, ``categories`` and ``annotations`` (``video_id``, ``category_id``,
            ``segmentations``, ``iscrowd``) as in a JSON file of YouTube-VIS.
        detections: ``video_id``, ``category_id``, ``score`` and ``segmentations``.
        max_detections: per video and category.

    Raises:
        DataError: an annotation or a detection cannot be used.
    """
    videos = {video["id"]: video for video in truth["videos"]}
    objects = [
        _prepared(one, videos, f"annotation {one.get('id', k)}")
        for k, one in enumerate(truth["annotations"])
    ]
    found = [_prepared(one, videos, f"detection {k}") for k, one in enumerate(detections)]
    return average_precision(
        objects,
        found,
        images=list(videos),
        categories=[category["id"] for category in truth["categories"]],
        overlaps=_overlaps,
        areas=VIDEO_AREAS,
        max_detections=max_detections,
    )


def track_overlaps(first: Sequence[Track], second: Sequence[Track]) -> np.ndarray:
    """Intersection over union of each pair of tracks, (N, M).

    Args:
        first: N tracks.
        second: M tracks of as many frames.
    """
    intersections = np.zeros((len(first), len(second)))
    if not intersections.size:
        return intersections
    sizes = _frame_areas(first), _frame_areas(second)  # (N, T), (M, T)
    total = sizes[0].sum(axis=1)[:, None] + sizes[1].sum(axis=1)[None]
    for t in range(sizes[0].shape[1]):
        rows, columns = (of[:, t].nonzero()[0].tolist() for of in sizes)
        ious = mask_overlaps(
            [first[k][t] or {} for k in rows],
            [second[k][t] or {} for k in columns],
            [False] * len(columns),
        )
        sums = sizes[0][rows, t][:, None] + sizes[1][columns, t][None]
        # iou = shared / (sum - shared), so the pixels that are shared follow from it.
        intersections[np.ix_(rows, columns)] += np.round(ious * sums / (1 + ious))
    unions = total - intersections
    return np.divide(intersections, unions, out=np.zeros_like(unions), where=unions > 0)


def _frame_areas(tracks: Sequence[Track]) -> np.ndarray:
    """Pixels of each mask of each track, (N, T) int64, 0 where there is none."""
    return np.array([[int(mask_areas([rle])[0]) if rle else 0 for rle in t] for t in tracks])


def _overlaps(found: Sequence[Found], truth: Sequence[Found]) -> np.ndarray:
    return track_overlaps(
        [one["segmentations"] for one in found], [one["segmentations"] for one in truth]
    )


def _prepared(one: Mapping[str, Any], videos: Mapping[Any, Any], place: str) -> dict[str, Any]:
    """An annotation or detection with its masks and its mean area."""
    video = videos.get(one.get("video_id"))
    if video is None:
        raise DataError(f"{place}: there is no video {one.get('video_id')!r}")
    track, length = one.get("segmentations"), video["length"]
    if not isinstance(track, list) or len(track) != length:
        count = len(track) if isinstance(track, list) else "no"
        raise DataError(f"{place}: it has {count} masks, expected {length}, one per frame")
    try:
        track = [mask and to_rle(mask, video["height"], video["width"]) for mask in track]
    except DataError as error:
        raise DataError(f"{place}: {error}") from None
    sizes = _frame_areas([track])
    present = sizes[sizes > 0]
    return {
        "image_id": one["video_id"],
        "category_id": one["category_id"],
        "iscrowd": int(one.get("iscrowd", 0)),
        "score": one.get("score"),
        "segmentations": track,
        "area": float(present.mean()) if len(present) else 0.0,  # over the frames it exists in
    }
