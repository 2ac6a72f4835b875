"""How well the objects of images and videos are found: what is kept of a video, and the figures.

A video is kept as tracks: those of its annotation, and those that were found. A track is an object
with a box and a mask in every frame, or None where it is absent; in an image it has one frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from videonet.data.datasets.mask_folders import MaskFiles
from videonet.data.datasets.objects import Box, Frames, VideoObjects, chosen_frames
from videonet.data.masks import Rle, decode_masks
from videonet.tasks.average_precision import AveragePrecision
from videonet.tasks.boundaries import DILATION, contour_accuracy, region_similarity
from videonet.tasks.mask_scores import coco_scores
from videonet.tasks.video_instances import video_scores


@dataclass(frozen=True)
class Track:
    """An object of a video or of some of its frames.

    Attributes:
        label: class, from 0.
        number: tells it from the others of its video; the same in all parts of the video.
        boxes: (x, y, width, height) in each frame, in pixels of whole frames.
        masks: run lengths in each frame; empty where there are boxes alone.
        score: of a track that was found.
        scores: of its single frames, where they have scores of their own.
        crowd: whether it is a region of many objects.
        area: in pixels, where the data set says it.
    """

    label: int
    number: int
    boxes: tuple[Box | None, ...]
    masks: tuple[Rle | None, ...] = ()
    score: float = 1.0
    scores: tuple[float, ...] = ()
    crowd: bool = False
    area: float | None = None


@dataclass(frozen=True)
class ObjectRecord:
    """What an evaluation keeps of a video or of some of its frames.

    Attributes:
        video: its number in the data set.
        start: the place of its first frame in the video.
        size: height and width of the frames.
        truth: the annotated tracks.
        found: the tracks that were found.
        length: the number of frames.
        frames: what they are called in their folder or file, see :class:`VideoObjects`; None for an
            image, or a file whose frames are counted from `start`.
    """

    video: int
    start: int
    size: tuple[int, int]
    truth: tuple[Track, ...]
    found: tuple[Track, ...]
    length: int = 1
    frames: Frames = None


def record_of(
    annotation: VideoObjects | MaskFiles, frames: Sequence[int], found: Iterable[Track]
) -> ObjectRecord:
    """The record of some frames of a video.

    Args:
        annotation: of the video, or of the part of it that its clip was taken from.
        frames: places among the annotated frames that the clip shows, rising, each once.
        found: tracks with one box, and mask, for each of them.
    """
    objects = annotation.objects() if isinstance(annotation, MaskFiles) else annotation
    truth = []
    for k, label in enumerate(objects.labels):
        boxes = tuple(objects.boxes[k][frame] for frame in frames)
        if all(box is None for box in boxes):
            continue
        shapes = tuple(objects.rle(k, frame) for frame in frames) if objects.has_masks else ()
        number, crowd, area = objects.ids[k], objects.crowd[k], objects.areas[k]
        truth.append(Track(label, number, boxes, shapes, crowd=crowd, area=area))
    start = objects.start + frames[0]
    return ObjectRecord(
        objects.video,
        start,
        objects.size,
        tuple(truth),
        tuple(found),
        len(frames),
        chosen_frames(objects.frames, frames),
    )


Tables = tuple[dict[str, Any], list[dict[str, Any]]]  # truth and detections, as JSON of COCO


def image_tables(records: Sequence[ObjectRecord], num_classes: int) -> Tables:
    """Every frame as an image: what :func:`videonet.tasks.mask_scores.coco_scores` takes."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    detections: list[dict[str, Any]] = []
    for record in records:
        height, width = record.size
        for frame in range(record.length):
            number = len(images) + 1
            images.append({"id": number, "height": height, "width": width})
            annotations += _in_frame(record.truth, frame, number)
            detections += _in_frame(record.found, frame, number)
    for one in detections:
        one.pop("area", None)
    return {
        "images": images,
        "categories": _categories(num_classes),
        "annotations": annotations,
    }, detections


def _in_frame(tracks: Iterable[Track], frame: int, image: int) -> list[dict[str, Any]]:
    found = []
    for track in tracks:
        box = track.boxes[frame]
        if box is None:
            continue
        one: dict[str, Any] = {
            "image_id": image,
            "category_id": track.label,
            "bbox": box,
            "iscrowd": int(track.crowd),
            "score": track.scores[frame] if track.scores else track.score,
        }
        if track.masks and track.masks[frame] is not None:
            one["segmentation"] = track.masks[frame]
        if track.area is not None and len(track.boxes) == 1:
            one["area"] = track.area  # of an image; that of a video is of no single frame
        found.append(one)
    return found


def video_tables(records: Sequence[ObjectRecord], num_classes: int) -> Tables:
    """Parts of videos put together: what :func:`videonet.tasks.video_instances.video_scores` takes.

    Tracks of one number are one track; its score is the mean over the frames it exists in.
    """
    parts: dict[int, list[ObjectRecord]] = {}
    for record in sorted(records, key=lambda record: (record.video, record.start)):
        parts.setdefault(record.video, []).append(record)
    videos: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    detections: list[dict[str, Any]] = []
    for number, of_video in parts.items():
        length = sum(record.length for record in of_video)
        height, width = of_video[0].size
        videos.append({"id": number, "height": height, "width": width, "length": length})
        annotations += _whole_tracks(number, length, of_video, [r.truth for r in of_video])
        detections += _whole_tracks(number, length, of_video, [r.found for r in of_video])
    return {
        "videos": videos,
        "categories": _categories(num_classes),
        "annotations": annotations,
    }, detections


def _whole_tracks(
    video: int, length: int, records: Sequence[ObjectRecord], parts: Sequence[Sequence[Track]]
) -> list[dict[str, Any]]:
    whole: dict[tuple[int, int], dict[str, Any]] = {}
    weights: dict[tuple[int, int], list[float]] = {}
    first = 0
    for record, tracks in zip(records, parts, strict=True):
        for track in tracks:
            key = track.number, track.label
            one = whole.setdefault(
                key,
                {
                    "video_id": video,
                    "category_id": track.label,
                    "iscrowd": int(track.crowd),
                    "segmentations": [None] * length,
                },
            )
            present = [k for k, mask in enumerate(track.masks) if mask is not None]
            for k in present:
                one["segmentations"][first + k] = track.masks[k]
            weights.setdefault(key, []).extend(
                [track.scores[k] if track.scores else track.score for k in present]
            )
        first += record.length
    for key, one in whole.items():
        one["score"] = float(np.mean(weights[key])) if weights[key] else 0.0
    return list(whole.values())


def _categories(num_classes: int) -> list[dict[str, Any]]:
    return [{"id": number} for number in range(num_classes)]


def object_scores(
    records: Sequence[ObjectRecord], num_classes: int, *, dilation: float = DILATION
) -> dict[str, AveragePrecision]:
    """Average precision of boxes and, where there are masks, of masks, boundaries and videos.

    Args:
        records: of all videos and images.
        num_classes: the number of classes.
        dilation: width of boundaries as a share of the image's diagonal.

    Returns:
        By "box", "mask", "boundary"; "video" where some video has several frames.
    """
    truth, found = image_tables(records, num_classes)
    scores = {"box": coco_scores(truth, found, "bbox")}
    # A frame may have boxes without masks, where only some frames have masks.
    truth["annotations"] = [one for one in truth["annotations"] if "segmentation" in one]
    if not truth["annotations"]:
        return scores
    drawn = [one for one in found if "segmentation" in one]
    scores["mask"] = coco_scores(truth, drawn, "segm")
    scores["boundary"] = coco_scores(truth, drawn, "boundary", dilation=dilation)
    if any(record.length > 1 or record.start for record in records):
        scores["video"] = video_scores(*video_tables(records, num_classes))
    return scores


def davis_scores(records: Sequence[ObjectRecord]) -> Mapping[str, float]:
    """J and F of DAVIS for one object per video: means over the frames, then over the videos.

    Of the tracks that were found the one with the highest score counts.
    """
    truth, found = video_tables(
        records, 1 + max((t.label for r in records for t in r.truth), default=0)
    )
    figures: dict[str, list[float]] = {"J": [], "F": []}
    for video in truth["videos"]:
        size, length = (video["height"], video["width"]), video["length"]
        wanted = _bitmaps(truth["annotations"], video["id"], size, length)
        best = max(
            (one for one in found if one["video_id"] == video["id"]),
            key=lambda one: one["score"],
            default=None,
        )
        given = _bitmaps([best] if best else [], video["id"], size, length)
        pairs = list(zip(given, wanted, strict=True))
        figures["J"].append(float(np.mean([region_similarity(*pair) for pair in pairs])))
        figures["F"].append(float(np.mean([contour_accuracy(*pair) for pair in pairs])))
    means = {name: float(np.mean(values)) for name, values in figures.items()}
    return {**means, "J&F": (means["J"] + means["F"]) / 2}


def _bitmaps(
    tracks: Iterable[Mapping[str, Any]], video: int, size: tuple[int, int], length: int
) -> Iterable[np.ndarray]:
    """The union of the masks of a video's tracks in each frame, bool (H, W)."""
    own = [one["segmentations"] for one in tracks if one["video_id"] == video]
    for frame in range(length):
        rles = [track[frame] for track in own if track[frame] is not None]
        yield decode_masks(rles, size).any(dim=0).numpy()
