"""Something-Something V2 as it is distributed (Goyal et al. 2017).

``labels.json`` maps templates ("Holding something") to class numbers as text; ``train.json`` and
``validation.json`` list ``{"id": "78687", "template": "Holding [something]", …}``; ``test.json``
lists ids only, whose templates are in ``test-answers.csv``, one ``id;template`` a line. The video
of an id is ``<id>.webm``, or a folder ``<id>`` of its frames.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from fvcore.common.config import CfgNode

from videonet.data.datasets.arrays import PathArray
from videonet.data.datasets.form import Lists
from videonet.data.datasets.lists import VideoList, check_exist
from videonet.data.texts import lines_of, read_text
from videonet.data.transforms.sampling import SEGMENTS
from videonet.errors import DataError

LONG_NAME = "something-something-v2-"  # older downloads put it before every name
FILES = {
    "train": ("train.json", f"{LONG_NAME}train.json"),
    "val": ("validation.json", f"{LONG_NAME}validation.json"),
    "labels": ("labels.json", f"{LONG_NAME}labels.json"),
}
ANSWERS = "test-answers.csv"
VIDEO_FOLDERS = ("20bn-something-something-v2", "videos")


class SomethingSomething(Lists):
    """The files of the data set as it is distributed, or lists in their place."""

    sampling = SEGMENTS
    mirrors = False  # its labels have directions

    def find(self, cfg: CfgNode, split: str) -> Path:
        """The list that the config names, else the file of the data set."""
        path = super().find(cfg, split)
        if path.exists():
            return path
        return find_file(Path(cfg.DATA.PATH_TO_DATA_DIR), split) or path

    def own_classes(self, cfg: CfgNode, split: str) -> tuple[Path, list[str]] | None:
        """The templates of ``labels.json``, unless there is a list."""
        path = self.find_test(cfg) if split == "test" else self.find(cfg, split)
        labels = find_file(Path(cfg.DATA.PATH_TO_DATA_DIR), "labels")
        return (labels, read_labels(labels)) if labels is not None and _is_own(path) else None

    def read(self, cfg: CfgNode, path: Path, names: list[str]) -> VideoList:
        """See :func:`read_ssv2`."""
        if _is_own(path):
            return read_ssv2(path, len(names), prefix=cfg.DATA.PATH_PREFIX)
        return super().read(cfg, path, names)


def _is_own(path: Path) -> bool:
    """Whether a file is one of the data set, and not a list."""
    return path.suffix == ".json" or path.name == ANSWERS


def find_file(folder: Path, kind: str) -> Path | None:
    """The file of this kind (a key of :data:`FILES`) in a folder or in its ``labels`` folder."""
    for place in (folder, folder / "labels"):
        for name in FILES[kind]:
            if (place / name).is_file():
                return place / name
    return None


def read_labels(path: Path) -> list[str]:
    """The templates of ``labels.json`` in the order of their class numbers."""
    table = _read_json(path, dict, "an object of templates and class numbers")
    try:
        classes = {int(number): template for template, number in table.items()}
    except (TypeError, ValueError):
        raise DataError(f"{path}: a class number is not an integer") from None
    if sorted(classes) != list(range(len(table))):
        raise DataError(f"{path}: the class numbers are not 0 … {len(table) - 1}, each once")
    return [classes[number] for number in range(len(classes))]


def read_ssv2(path: str | os.PathLike[str], num_classes: int, *, prefix: str = "") -> VideoList:
    """Read ``train.json``, ``validation.json`` or ``test-answers.csv``, with its ``labels.json``.

    Videos are below ``prefix``, else in ``20bn-something-something-v2`` or ``videos`` beside the
    list or one folder up, else beside the list. Raises DataError, naming file and entry, for what
    cannot be used: a missing key, a template that ``labels.json`` does not have, a missing video.
    """
    path = Path(path)
    labels = find_file(path.parent, "labels")
    if labels is None:
        raise DataError(
            f"{path}: there is no {FILES['labels'][0]} beside it, which names the classes"
        )
    templates = read_labels(labels)
    if len(templates) != num_classes:
        raise DataError(
            f"{labels} has {len(templates)} classes, but MODEL.NUM_CLASSES is {num_classes}"
        )
    numbers = {_plain(template): k for k, template in enumerate(templates)}
    rows = _json_rows(path) if path.suffix == ".json" else _answer_rows(path)
    classes = np.empty(len(rows), dtype=np.int64)
    for k, (place, _, template) in enumerate(rows):
        if _plain(template) not in numbers:
            raise DataError(f"{path}, {place}: the template {template!r} is not one of {labels}")
        classes[k] = numbers[_plain(template)]
    root = Path(prefix) if prefix else _video_folder(path.parent)
    videos = _video_paths(root, [name for _, name, _ in rows])
    check_exist(path, videos, [place for place, _, _ in rows])
    return VideoList(str(path), PathArray(videos), classes, str(root))


def _plain(template: str) -> str:
    """A template as labels.json spells it: without the brackets around the placeholders."""
    return template.replace("[", "").replace("]", "").strip()


def _json_rows(path: Path) -> list[tuple[str, str, str]]:
    """(place, id, template) of every entry."""
    entries = _read_json(path, list, "a list of videos")
    rows = []
    for k, entry in enumerate(entries):
        place = f"entry {k}"
        if not isinstance(entry, dict) or "id" not in entry:
            raise DataError(f"{path}, {place}: there is no 'id' in {entry!r}")
        if not isinstance(entry.get("template"), str):
            raise DataError(
                f"{path}, {place}: there is no 'template' for video {entry['id']}, expected one "
                "such as 'Holding [something]' (the labels of test.json are in test-answers.csv)"
            )
        rows.append((place, str(entry["id"]), entry["template"]))
    if not rows:
        raise DataError(f"{path}: the list is empty, expected entries with 'id' and 'template'")
    return rows


def _answer_rows(path: Path) -> list[tuple[str, str, str]]:
    """(place, id, template) of every line ``id;template``."""
    rows = []
    for k, line in enumerate(lines_of(read_text(path, "list of videos")), 1):
        if not line.strip():
            continue
        video, found, template = line.strip().partition(";")
        if not found or not template.strip():
            raise DataError(f"{path}, line {k}: {line!r} is not of the form 'id;template'")
        rows.append((f"line {k}", video.strip(), template))
    if not rows:
        raise DataError(f"{path}: the list is empty, expected lines of the form 'id;template'")
    return rows


def _read_json(path: Path, kind: type, wanted: str) -> Any:
    try:
        content = json.loads(read_text(path, "list of videos"))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: {error.msg}, expected JSON") from None
    except (ValueError, RecursionError) as error:  # numbers of many digits, lists within lists
        raise DataError(f"{path}: it is no JSON that can be read: {error}") from None
    if not isinstance(content, kind):
        raise DataError(f"{path}: it holds a {type(content).__name__}, expected {wanted}")
    return content


def _video_folder(folder: Path) -> Path:
    for place in (folder, folder.parent):
        for name in VIDEO_FOLDERS:
            if (place / name).is_dir():
                return place / name
    return folder


def _video_paths(root: Path, names: list[str]) -> list[str]:
    """``<id>.webm`` of every id; ``<id>`` where that is a folder, of frames."""
    there = set(os.listdir(root)) if root.is_dir() else set()
    frames = {name for name in names if f"{name}.webm" not in there and name in there}
    return [os.path.join(root, name if name in frames else f"{name}.webm") for name in names]
