"""Objects in the JSON of COCO (images) and of YouTube-VIS (videos).

COCO: ``images`` (``id``, ``file_name``, ``height``, ``width``), ``categories`` (``id``, ``name``)
and ``annotations`` (``image_id``, ``category_id``, ``bbox``, ``segmentation``, ``iscrowd``).
YouTube-VIS has ``videos`` instead, with ``file_names`` of pictures or, as an extension, the file
``video``, and annotations with ``video_id``, ``bboxes`` and ``segmentations``, with one per frame
or null.
Where several splits share a file, the entry ``split`` of each image or video tells them apart.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fvcore.common.config import CfgNode

from videonet.data.datasets.arrays import MultiHot, PackedRows, PathArray
from videonet.data.datasets.form import DatasetForm
from videonet.data.datasets.lists import VideoList, check_exist
from videonet.data.datasets.objects import INSTANCE_BOXES, INSTANCES, Frames, VideoObjects
from videonet.data.masks import mask_boxes, to_rle
from videonet.data.targets import Annotations
from videonet.data.texts import read_text
from videonet.errors import DataError

FOLDERS = (
    "images",
    "frames",
    "JPEGImages",
    "{split}2017",
    "{split}",
    "../images",
    "../{split}2017",
)


class CocoJson(DatasetForm):
    """One file per split, or one for all; the classes are its categories, by their ids."""

    spells_classes = True
    names_beside = False  # such a file is about another task of the same videos
    several_labels = True

    def find(self, cfg: CfgNode, split: str) -> Path:
        """The file that the config names, else one of a usual name."""
        named = super().find(cfg, split)
        if named.suffix == ".json":
            return named
        folder = Path(cfg.DATA.PATH_TO_DATA_DIR)
        for name in (f"instances_{split}.json", f"instances_{split}2017.json", "instances.json"):
            for place in (folder, folder / "annotations"):
                if (place / name).is_file():
                    return place / name
        return folder / f"instances_{split}.json"

    def find_test(self, cfg: CfgNode) -> Path:
        """The file that the config names, else that of the validation."""
        if cfg.DATA.TEST_LIST:
            return Path(cfg.DATA.PATH_TO_DATA_DIR) / cfg.DATA.TEST_LIST
        return self.find(cfg, "val")

    def own_classes(self, cfg: CfgNode, split: str) -> tuple[Path, list[str]]:
        """The names of the categories."""
        path = self.find_test(cfg) if split == "test" else self.find(cfg, split)
        changed = path.stat().st_mtime_ns if path.is_file() else 0
        return path, list(_class_names(path, changed))

    def read(self, cfg: CfgNode, path: Path, names: list[str]) -> VideoList:
        """See :func:`read_objects`."""
        return self.read_split(cfg, path, names, "")

    def read_split(self, cfg: CfgNode, path: Path, names: list[str], split: str) -> VideoList:
        """The images or videos of a split; in pieces where ``TEST.EVERY_FRAME`` says so."""
        pieces = cfg.DATA.NUM_FRAMES if cfg.TEST.EVERY_FRAME and split in ("val", "test") else 0
        return read_objects(
            path, len(names), split=split, prefix=cfg.DATA.PATH_PREFIX, pieces=pieces
        )


def read_objects(
    path: str | os.PathLike[str],
    num_classes: int | None = None,
    *,
    split: str = "",
    prefix: str = "",
    pieces: int = 0,
    with_objects: bool = True,
) -> VideoList:
    """The images or videos of a file with their objects.

    Args:
        path: the JSON file.
        num_classes: the number of categories, where it is known.
        split: of a file that several splits share; a test is the validation's where it has none.
        prefix: the folder that the names of pictures start from; empty: the first of
            :data:`FOLDERS` beside the file that has them, or the file's own.
        pieces: cut videos into parts of so many frames; 0 leaves them whole.
        with_objects: False reads no annotations; videos then have all their frames.

    Raises:
        DataError: names the file and the entry that cannot be used.
    """
    path = Path(path)
    content = read_json(path)
    categories = _categories(path, content)
    if num_classes is not None and num_classes != len(categories):
        raise DataError(f"{path} has {len(categories)} categories, but {num_classes} are expected")
    numbers = {one["id"]: k for k, one in enumerate(categories)}
    kind = "videos" if "videos" in content else "images"
    entries = _of_split(path, content.get(kind), kind, split)
    annotations = content.get("annotations", []) if with_objects else []
    objects = _objects(path, annotations, kind, entries, numbers)
    rows = [_video(path, kind[:-1], entry, objects[entry["id"]]) for entry in entries.values()]
    root = _root(path, [name for name, _ in rows], prefix, split)
    if pieces and kind == "videos":
        rows = [(name, part) for name, row in rows for part in _parts(row, pieces)]
    videos = [os.path.normpath(os.path.join(root, name)) for name, _ in rows]
    places = [row.place.removeprefix(f"{path}, ") for _, row in rows]
    check_exist(path, videos, places, f"; names start from {root}, or from DATA.PATH_PREFIX")
    maker = INSTANCES if any(row.has_masks for _, row in rows) else INSTANCE_BOXES
    return VideoList(
        str(path),
        PathArray(videos),
        MultiHot([sorted(set(row.labels)) for _, row in rows], len(categories)),
        str(root),
        Annotations(PackedRows([row for _, row in rows]), maker),
    )


@functools.lru_cache(maxsize=8)
def _class_names(path: Path, changed: int) -> tuple[str, ...]:
    """The names of the categories of a file that was changed last at this time."""
    return tuple(str(one["name"]) for one in _categories(path, read_json(path)))


@dataclass
class _Object:
    """An annotation, with one entry per frame."""

    number: int
    label: int
    crowd: bool
    area: float | None
    boxes: tuple[Any, ...]
    masks: tuple[Any, ...]


def read_json(path: Path, split: str = "") -> dict[str, Any]:
    """The content of a file, or what of it belongs to a split; see :func:`read_objects`.

    Raises:
        DataError: it is no JSON of this kind.
    """
    try:
        content = json.loads(read_text(path, "file of objects"))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: {error.msg}, expected JSON") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: it is no JSON that can be read: {error}") from None
    if not isinstance(content, dict) or not {"images", "videos"} & content.keys():
        raise DataError(f"{path}: there are no 'images' and no 'videos', expected JSON of COCO")
    if not split:
        return content
    kind = "videos" if "videos" in content else "images"
    entries = _of_split(path, content[kind], kind, split)
    of_split = [
        one for one in content.get("annotations", []) if one.get(f"{kind[:-1]}_id") in entries
    ]
    return {**content, kind: list(entries.values()), "annotations": of_split}


def _categories(path: Path, content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The categories by rising id, which are the classes from 0 on."""
    found = content.get("categories")
    if not isinstance(found, list) or not found:
        raise DataError(f"{path}: there are no 'categories'")
    for k, one in enumerate(found):
        if not isinstance(one, dict) or type(one.get("id")) is not int or "name" not in one:
            raise DataError(f"{path}, category {k}: expected 'id', an integer, and 'name'")
    for key in ("id", "name"):
        if len({one[key] for one in found}) < len(found):
            raise DataError(f"{path}: two categories have the same {key}")
    return sorted(found, key=lambda one: one["id"])


def _of_split(path: Path, entries: Any, kind: str, split: str) -> dict[int, dict[str, Any]]:
    """The images or videos of a split by their id."""
    if not isinstance(entries, list) or not entries:
        raise DataError(f"{path}: there are no {kind}")
    found: dict[int, dict[str, Any]] = {}
    for k, entry in enumerate(entries):
        if not isinstance(entry, dict) or type(entry.get("id")) is not int:
            raise DataError(f"{path}, {kind[:-1]} {k}: expected an 'id', an integer")
        if entry["id"] in found:
            raise DataError(f"{path}: two {kind} have the id {entry['id']}")
        found[entry["id"]] = entry
    splits = {entry.get("split") for entry in found.values()} - {None}
    if split == "test" and "test" not in splits:
        split = "val"
    if len(splits) < 2 or not split:
        return found
    chosen = {number: entry for number, entry in found.items() if entry.get("split") == split}
    if not chosen:
        raise DataError(f"{path}: no {kind[:-1]} has the split {split!r}")
    return chosen


def _objects(
    path: Path,
    annotations: Any,
    kind: str,
    entries: Mapping[int, Mapping[str, Any]],
    numbers: Mapping[int, int],
) -> dict[int, list[_Object]]:
    """The annotations of each image or video that is in `entries`."""
    found: dict[int, list[_Object]] = {number: [] for number in entries}
    key = f"{kind[:-1]}_id"
    if not isinstance(annotations, list):
        raise DataError(f"{path}: 'annotations' is no list")
    for k, one in enumerate(annotations):
        if not isinstance(one, dict) or key not in one:
            raise DataError(f"{path}, annotation {k}: there is no {key!r}")
        place = f"{path}, annotation {one.get('id', k)}"
        if one[key] not in entries:
            continue  # of another split
        if one.get("category_id") not in numbers:
            raise DataError(f"{place}: there is no category {one.get('category_id')!r}")
        entry = entries[one[key]]
        length = int(entry.get("length", 1)) if kind == "videos" else 1
        names = ("bboxes", "segmentations") if kind == "videos" else ("bbox", "segmentation")
        boxes, shapes = (one.get(name) if kind == "videos" else [one.get(name)] for name in names)
        done = _Object(
            int(one.get("id", k)),
            numbers[one["category_id"]],
            bool(one.get("iscrowd", 0)),
            one.get("area"),
            _per_frame(place, names[0], boxes, length),
            _per_frame(place, names[1], shapes, length),
        )
        _complete(place, done, entry)
        found[one[key]].append(done)
    return found


def _per_frame(place: str, name: str, values: Any, length: int) -> tuple[Any, ...]:
    if values is None:
        return (None,) * length
    if not isinstance(values, list) or len(values) != length:
        raise DataError(f"{place}: expected {length} {name}, one per frame, or null")
    return tuple(value or None for value in values)


def _complete(place: str, one: _Object, entry: Mapping[str, Any]) -> None:
    """Check the boxes, and make those that are missing from the masks."""
    boxes = list(one.boxes)
    for k, box in enumerate(boxes):
        if box is not None and (
            not isinstance(box, list)
            or len(box) != 4
            or not all(isinstance(side, (int, float)) for side in box)
            or min(box[2:]) < 0
        ):
            raise DataError(f"{place}: the box {box!r} is not [x, y, width, height]")
        if box is None and one.masks[k] is not None:
            try:
                rle = to_rle(one.masks[k], entry["height"], entry["width"])
            except DataError as error:
                raise DataError(f"{place}: {error}") from None
            boxes[k] = mask_boxes([rle])[0].tolist()
    one.boxes = tuple(boxes)


def _video(
    path: Path, kind: str, entry: Mapping[str, Any], objects: list[_Object]
) -> tuple[str, VideoObjects]:
    """The name of a video's file or folder, and its objects."""
    place = f"{path}, {kind} {entry['id']}"
    for key in ("height", "width"):
        if type(entry.get(key)) is not int or entry[key] < 1:
            raise DataError(f"{place}: there is no {key!r} in pixels")
    present = [
        any(one is not None for track in objects for one in (track.boxes[t], track.masks[t]))
        for t in range(int(entry.get("length", 1)) if kind == "video" else 1)
    ]
    name, pictures = _files(place, kind, entry)
    # Of a video file only some frames may be annotated; pictures that are listed all are.
    numbers = [t for t, there in enumerate(present) if there or not any(present) or pictures]
    frames: Frames = tuple(numbers) if len(numbers) < len(present) else pictures
    found = VideoObjects(
        place,
        entry["id"],
        (entry["height"], entry["width"]),
        tuple(one.label for one in objects),
        tuple(one.number for one in objects),
        tuple(one.crowd for one in objects),
        tuple(tuple(one.boxes[t] for t in numbers) for one in objects),
        tuple(tuple(one.masks[t] for t in numbers) for one in objects),
        tuple(one.area for one in objects),
        (True,) * len(numbers),
        frames,
    )
    return name, found


def _files(place: str, kind: str, entry: Mapping[str, Any]) -> tuple[str, tuple[str, ...] | None]:
    """The file or folder of an image or video, and the pictures in the folder."""
    if kind == "image" or "video" in entry:
        name = entry.get("file_name" if kind == "image" else "video")
        if not isinstance(name, str) or not name:
            raise DataError(f"{place}: there is no file name")
        return name, None
    names = entry.get("file_names")
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise DataError(f"{place}: there are no 'file_names' and no 'video'")
    if len(names) != entry.get("length", len(names)):
        raise DataError(f"{place}: {len(names)} file names for {entry['length']} frames")
    folders = {os.path.dirname(name) for name in names}
    if len(folders) > 1:
        raise DataError(f"{place}: its pictures lie in {len(folders)} folders, expected one")
    return folders.pop(), tuple(os.path.basename(name) for name in names)


def _parts(row: VideoObjects, length: int) -> Iterable[VideoObjects]:
    """A video in pieces of `length` frames, the last one maybe shorter."""
    for start in range(0, len(row.seen), length):
        yield row.part(start, min(start + length, len(row.seen)))


def _root(path: Path, names: list[str], prefix: str, split: str) -> Path:
    """The folder that names of pictures start from."""
    if prefix:
        return Path(prefix)
    for name in FOLDERS:
        folder = path.parent / name.format(split=split or "train")
        if names and (folder / names[0]).exists():
            return folder
    return path.parent
