"""Files of detections with masks, as evaluations of COCO and of YouTube-VIS take them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from videonet.data.masks import decode_masks, to_rle
from videonet.data.texts import read_text
from videonet.errors import DataError


def read_results(path: str | Path) -> list[dict[str, Any]]:
    """The detections in a file: a list, or what is under ``annotations``.

    Each is of an image (``image_id``, ``segmentation``) or of a video (``video_id``,
    ``segmentations``, one per frame or null).

    Raises:
        DataError: there is no such list, or an entry has no masks.
    """
    path = Path(path)
    try:
        content = json.loads(read_text(path, "file of results"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: it is no JSON that can be read: {error}") from None
    entries = content.get("annotations") if isinstance(content, dict) else content
    if not isinstance(entries, list):
        raise DataError(f"{path}: expected a list of detections, or 'annotations'")
    for k, entry in enumerate(entries):
        if not isinstance(entry, dict) or not {"image_id", "video_id"} & entry.keys():
            raise DataError(f"{path}, detection {k}: there is no 'image_id' and no 'video_id'")
        name = "segmentations" if "video_id" in entry else "segmentation"
        if name not in entry:
            raise DataError(f"{path}, detection {k}: there is no {name!r}")
        if "video_id" in entry and not isinstance(entry[name], list):
            raise DataError(f"{path}, detection {k}: 'segmentations' is no list")
    return entries


def place_of(entry: Mapping[str, Any]) -> Any:
    """The number of the image or video that a detection is of."""
    return entry["video_id"] if "video_id" in entry else entry["image_id"]


def bitmaps_of(
    entry: Mapping[str, Any], size: tuple[int, int], frames: Sequence[int], place: str
) -> Tensor:
    """The masks of a detection in some frames of its video.

    Args:
        entry: the detection.
        size: height and width of the frames.
        frames: their places in the whole video.
        place: file and entry, for messages.

    Returns:
        bool (T, H, W), empty where the object is absent.

    Raises:
        DataError: a mask cannot be decoded, or there is none for such a frame.
    """
    shapes = entry["segmentations"] if "video_id" in entry else [entry["segmentation"]]
    if frames and max(frames) >= len(shapes):
        raise DataError(
            f"{place}: there are {len(shapes)} segmentations, expected one per frame, or null, "
            f"and a frame {max(frames)}"
        )
    bitmaps = torch.zeros(len(frames), *size, dtype=torch.bool)
    for row, frame in enumerate(frames):
        if not shapes[frame]:
            continue
        try:
            bitmaps[row] = decode_masks([to_rle(shapes[frame], *size)], size)[0]
        except DataError as error:
            raise DataError(f"{place}: {error}") from None
    return bitmaps
