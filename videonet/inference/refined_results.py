"""Files of results in the JSON of COCO or YouTube-VIS with refined masks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from videonet.data.datasets.boundary_patches import made_coarse
from videonet.data.datasets.coco import read_json, read_objects
from videonet.data.datasets.objects import Frames, VideoObjects
from videonet.data.datasets.results import bitmaps_of, place_of
from videonet.data.decode import open_video
from videonet.data.masks import encode_masks, mask_areas, mask_boxes
from videonet.errors import DataError
from videonet.inference.refinement import MaskRefiner
from videonet.tasks.boundaries import DILATION
from videonet.tasks.mask_scores import coco_scores
from videonet.terminal import progress_bar

Entry = dict[str, Any]


def refine_results(
    refiner: MaskRefiner,
    data: str | Path,
    results: Sequence[Mapping[str, Any]],
    *,
    split: str = "",
    prefix: str = "",
    progress: bool = False,
) -> list[Entry]:
    """Detections with refined masks, and with the boxes and areas of these.

    Args:
        refiner: refines them.
        data: JSON with the ``images`` or ``videos`` that they are of, as
            :func:`videonet.data.datasets.coco.read_objects` reads it.
        results: of COCO (``image_id``, ``segmentation``) or of YouTube-VIS (``video_id``,
            ``segmentations``, one per frame or null).
        split: of a file that several splits share, as there.
        prefix: the folder that the names of pictures start from; empty as there.
        progress: show a bar.

    Returns:
        The detections in their order; all else in them stays.

    Raises:
        DataError: a detection cannot be used.
        DecodeError: a picture cannot be read.
    """
    videos = read_objects(data, split=split, prefix=prefix, with_objects=False)
    assert videos.annotations is not None
    rows: list[VideoObjects] = [videos.annotations.rows[k] for k in range(len(videos))]
    places = {row.video: k for k, row in enumerate(rows)}
    of_videos: dict[int, list[int]] = {}
    for k, entry in enumerate(results):
        number = place_of(entry)
        if number not in places:
            of_split = f" of the split {split!r}" if split else ""
            raise DataError(
                f"detection {k}: there is no image or video {number!r}{of_split} in {data}"
            )
        of_videos.setdefault(places[number], []).append(k)

    def objects() -> Iterator[tuple[Tensor, Tensor]]:
        for place, numbers in sorted(of_videos.items()):
            row = rows[place]
            with open_video(videos.paths[place], frames=row.frames) as reader:
                frames = reader.frames_at(torch.arange(reader.info.frames))
            if tuple(frames.shape[1:3]) != row.size:
                raise DataError(
                    f"{row.place}: its frames have {frames.shape[2]} x {frames.shape[1]} pixels, "
                    f"but {row.size[1]} x {row.size[0]} are named"
                )
            for k in numbers:
                yield frames, bitmaps_of(results[k], row.size, range(len(frames)), f"detection {k}")

    order = [k for _, numbers in sorted(of_videos.items()) for k in numbers]
    found: dict[int, Entry] = {}
    bar = progress_bar(total=len(order), show=progress, desc="refine", unit="objects")
    with bar:
        for k, refined in zip(order, refiner.stream(objects()), strict=True):
            found[k] = refined_entry(results[k], refined)
            bar.update()
    return [found[k] for k in range(len(results))]


def refined_entry(entry: Mapping[str, Any], refined: Tensor) -> Entry:
    """A detection with other masks.

    Args:
        entry: of COCO or of YouTube-VIS.
        refined: bool (T, H, W), T being 1 in an image.
    """
    rles = encode_masks(refined)
    boxes, areas = mask_boxes(rles).tolist(), mask_areas(rles).tolist()
    if "video_id" not in entry:
        return {**entry, "segmentation": rles[0], "bbox": boxes[0], "area": areas[0]}
    return {
        **entry,
        "segmentations": _where(areas, rles),
        "bboxes": _where(areas, boxes),
        "areas": _where(areas, areas),
    }


def _where(areas: Iterable[int], values: Iterable[Any]) -> list[Any]:
    """Null for frames without a mask."""
    return [value if area else None for area, value in zip(areas, values, strict=True)]


def coarse_results(
    data: str | Path,
    cells: tuple[int, int],
    *,
    split: str = "",
    prefix: str = "",
    seed: int = 0,
) -> list[Entry]:
    """The true masks of a data set made coarse, as if something had found them.

    Args:
        data: JSON of COCO or YouTube-VIS.
        cells: lowest and highest number of cells along each side of an object's box.
        split: of a file that several splits share.
        prefix: the folder that the names of pictures start from.
        seed: of these numbers, see :func:`videonet.data.datasets.boundary_patches.read_patches`.
    """
    content = read_json(Path(data), split)
    key = "video_id" if "videos" in content else "image_id"
    categories = sorted(one["id"] for one in content["categories"])
    videos = read_objects(data, split=split, prefix=prefix)
    assert videos.annotations is not None
    lengths = {one["id"]: one["length"] for one in content.get("videos", [])}
    found: list[Entry] = []
    for k in range(len(videos)):
        objects: VideoObjects = videos.annotations.rows[k]
        for label, coarse, _ in made_coarse(objects, cells, seed):
            entry = {key: objects.video, "category_id": categories[label], "score": 1.0}
            if objects.video in lengths:  # of its frames only some may be annotated
                masks = coarse.new_zeros(lengths[objects.video], *objects.size)
                masks[_numbers(objects.frames, len(masks))] = coarse
                coarse = masks
            found.append(refined_entry(entry, coarse))
    return found


def _numbers(frames: Frames, length: int) -> list[int]:
    """The places of the frames that a video's annotation is about."""
    numbers = [frame for frame in frames or () if isinstance(frame, int)]
    return numbers or list(range(length))


Tables = tuple[dict[str, Any], list[Entry]]  # truth and detections, as JSON of COCO


def frame_tables(
    data: str | Path, results: Sequence[Mapping[str, Any]], *, split: str = ""
) -> Tables:
    """Every annotated frame as an image, for :func:`videonet.tasks.mask_scores.coco_scores`.

    Args:
        data: JSON of COCO or YouTube-VIS.
        results: detections in it.
        split: of a file that several splits share.
    """
    content = read_json(Path(data), split)
    if "videos" not in content:
        return content, [dict(entry) for entry in results]
    images: list[Entry] = []
    numbers: dict[tuple[int, int], int] = {}
    present: dict[int, set[int]] = {}
    for track in content.get("annotations", []):
        shown = {frame for frame, shape in enumerate(track["segmentations"]) if shape}
        present.setdefault(track["video_id"], set()).update(shown)
    for video in content["videos"]:
        # Of a video file only some frames may be annotated; pictures that are listed all are.
        frames = sorted(present.get(video["id"], ())) if "video" in video else []
        for frame in frames or range(video["length"]):
            number = numbers.setdefault((video["id"], frame), len(numbers) + 1)
            size = {"height": video["height"], "width": video["width"]}
            images.append({"id": number, **size})
    truth = {"images": images, "categories": content["categories"]}
    truth["annotations"] = list(_frames(content.get("annotations", []), numbers))
    return truth, list(_frames(results, numbers))


def _frames(
    tracks: Iterable[Mapping[str, Any]], numbers: Mapping[tuple[int, int], int]
) -> Iterator[Entry]:
    kept = ("category_id", "score", "iscrowd")
    for track in tracks:
        for frame, shape in enumerate(track["segmentations"]):
            if shape and (image := numbers.get((track["video_id"], frame))):
                of_track = {name: track[name] for name in kept if name in track}
                yield {**of_track, "image_id": image, "segmentation": shape}


def result_scores(
    data: str | Path,
    results: Sequence[Mapping[str, Any]],
    *,
    split: str = "",
    max_detections: int = 100,
    dilation: float = DILATION,
) -> dict[str, float]:
    """AP of boxes, masks and boundaries over all frames, 0 to 1.

    Args:
        data: JSON of COCO or YouTube-VIS, with annotations.
        results: detections in it, with masks.
        split: of a file that several splits share.
        max_detections: per frame and category.
        dilation: width of a boundary as a share of the image's diagonal.
    """
    truth, found = frame_tables(data, results, split=split)
    for one in found:
        one.pop("bbox", None)  # around the mask
        one.pop("area", None)
    limits = (1, 10, max_detections)
    kinds = {"box AP": "bbox", "mask AP": "segm", "boundary AP": "boundary"}
    return {
        name: coco_scores(truth, found, kind, max_detections=limits, dilation=dilation).average()
        for name, kind in kinds.items()
    }
