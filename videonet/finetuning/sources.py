"""Labelled videos as people have them: a folder per class, or a table or list of files."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from videonet.config import load_config
from videonet.data.datasets.classes import class_names
from videonet.data.datasets.folders import class_folders
from videonet.data.datasets.lists import check_exist
from videonet.data.datasets.named_labels import HEADS
from videonet.data.loading.build import read_videos
from videonet.data.texts import lines_of, read_text
from videonet.data.video.names import is_hidden, is_picture, is_video
from videonet.errors import DataError
from videonet.terminal import printable

SPLIT_FOLDERS = dict.fromkeys(("train", "training"), "train") | dict.fromkeys(
    ("val", "valid", "validation", "test", "testing", "eval"), "val"
)
# What the columns of a table are called, in small letters.
PATHS = ("path", "video", "file", "filename", "file_name", "filepath", "video_path", "clip")
LABELS = ("label", "class", "class_name", "label_name", *sorted(HEADS))
GROUPS = (
    *("group", "person", "subject", "actor", "signer", "user", "participant", "patient"),
    *("player", "scene", "session", "source", "camera", "location"),
)
SPLITS = ("split", "subset", "set")


@dataclass(frozen=True)
class Labelled:
    """Videos with one label each.

    Attributes:
        place: the folder or the list.
        paths: of the videos.
        labels: number of the class of each.
        classes: names, in the order of their numbers.
        groups: what each video belongs to (a person, a scene), as a column says; empty without.
        column: that column; empty without.
        splits: "train" or "val" of each video where the data are divided already; empty without.
        left_out: (path, why) of what was found and is not used.
    """

    place: str
    paths: Sequence[str]
    labels: Sequence[int]
    classes: Sequence[str]
    groups: Sequence[str] = ()
    column: str = ""
    splits: Sequence[str] = ()
    left_out: Sequence[tuple[str, str]] = field(default=())

    @property
    def counts(self) -> list[int]:
        """The number of videos of each class."""
        found = Counter(self.labels)
        return [found[label] for label in range(len(self.classes))]


def find_labelled(place: str | os.PathLike[str], columns: Mapping[str, str] = {}) -> Labelled:
    """The labelled videos of a folder or a list.

    Args:
        place: a folder with a folder per class (also below ``train`` and ``val``), whose videos may
            lie in folders of their own; a table with named columns; or a list of ``path label``.
        columns: names of a table's columns for "path", "label", "group" and "split", where they are
            not those that are known.

    Raises:
        DataError: it is neither, it holds no videos, or fewer than two classes.
    """
    path = Path(os.path.abspath(place))
    if path.is_dir():
        found = _from_folder(path)
    elif path.exists():
        found = _from_table(path, columns) or _from_list(path)
    else:
        raise DataError(f"{path}: there is no such folder or list")
    return _checked(found)


def _checked(found: Labelled) -> Labelled:
    """The same without the classes that have no video."""
    used = [label for label, count in enumerate(found.counts) if count]
    if not used:
        raise DataError(f"{found.place}: there is no video in it")
    if len(used) == 1:
        raise DataError(
            f"{found.place}: all {len(found.paths)} videos are of the class "
            f"{found.classes[used[0]]!r}, so there is nothing to tell apart: give a second class, "
            "such as videos without it"
        )
    return without_classes(found, [k for k in range(len(found.classes)) if k not in used])


def without_classes(found: Labelled, labels: Sequence[int]) -> Labelled:
    """Labelled videos without some classes; those left are numbered anew."""
    if not labels:
        return found
    kept = [label for label in range(len(found.classes)) if label not in labels]
    number = {label: k for k, label in enumerate(kept)}
    rows = [k for k, label in enumerate(found.labels) if label in number]
    gone = [(found.classes[label], "the class has no video that can be used") for label in labels]
    return Labelled(
        found.place,
        [found.paths[k] for k in rows],
        [number[found.labels[k]] for k in rows],
        [found.classes[label] for label in kept],
        [found.groups[k] for k in rows] if found.groups else (),
        found.column,
        [found.splits[k] for k in rows] if found.splits else (),
        [*found.left_out, *gone],
    )


def _from_folder(folder: Path) -> Labelled:
    names = _class_folders(folder)
    parts = {name: SPLIT_FOLDERS.get(name.lower(), "") for name in names}
    divided = {"train", "val"} <= set(parts.values()) and all(parts.values())
    roots = {folder / name: part for name, part in parts.items()} if divided else {folder: ""}
    classes: dict[str, int] = {}
    paths, labels, splits = [], [], []
    left_out = [] if divided else list(_beside_folders(folder))
    for root, part in roots.items():
        for name in class_folders(root):
            label = classes.setdefault(name, len(classes))
            for path, why in _videos_below(root / name):
                if why:
                    left_out.append((path, why))
                    continue
                paths.append(path)
                labels.append(label)
                splits.append(part)
    order = sorted(classes)
    number = {classes[name]: k for k, name in enumerate(order)}
    return Labelled(
        str(folder),
        paths,
        [number[label] for label in labels],
        _shown(order),
        splits=splits if divided else (),
        left_out=left_out,
    )


def _class_folders(folder: Path) -> list[str]:
    try:
        return class_folders(folder)
    except DataError:
        entries = [entry.name for entry in os.scandir(folder) if not is_hidden(entry.name)]
        if any(map(is_video, entries)):
            raise DataError(
                f"{folder} holds videos, but no folders: put the videos of each class into a "
                "folder that is called as the class, or give a list of 'path label' lines"
            ) from None
        raise


def _beside_folders(folder: Path) -> Iterator[tuple[str, str]]:
    """Files that lie beside the folders of the classes."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if not entry.is_dir() and is_video(entry.name):
            yield entry.path, "lies in no folder of a class"


def _refuse(error: OSError) -> None:
    raise DataError(f"cannot list the folder {error.filename}: {error.strerror}") from error


def _videos_below(folder: Path) -> Iterator[tuple[str, str]]:
    """(path, why it is left out) of all files below a class's folder; the videos without a why.

    A folder of pictures below it is one video; pictures right in it are pictures of the class,
    where they are more than the videos.
    """
    seen = set()
    for place, folders, files in os.walk(folder, onerror=_refuse, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # a link to a folder above
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        names = sorted(name for name in files if not is_hidden(name))
        pictures, videos = list(filter(is_picture, names)), list(filter(is_video, names))
        of_pictures = len(pictures) > len(videos)
        if of_pictures and place != str(folder) and len(pictures) > 1:
            yield place, ""
            continue
        for name in names:
            path = os.path.join(place, name)
            if any(letter in path for letter in "\r\n"):
                yield path, "has a line's end in its name"
            elif name in videos or (of_pictures and name in pictures):
                yield path, ""
            else:
                yield path, "is no video"


def _shown(names: Sequence[str]) -> list[str]:
    """Names of classes as a file of them can hold them, all different."""
    shown: list[str] = []
    for name in names:
        text = printable(name).strip() or "class"
        while text in shown:
            text += "_"
        shown.append(text)
    return shown


def _from_table(path: Path, columns: Mapping[str, str]) -> Labelled | None:
    """A table whose first line names its columns; None where that is none."""
    lines = [line for line in lines_of(read_text(path, "list of videos", names=True)) if line]
    if not lines:
        raise DataError(f"{path}: the list is empty, expected lines of the form 'path label'")
    mark = max(",\t;", key=lines[0].count)
    head = [name.strip() for name in next(csv.reader(lines[:1], delimiter=mark))]
    known = {"path": PATHS, "label": LABELS, "group": GROUPS, "split": SPLITS}
    found = {
        what: _column(path, head, columns.get(what, ""), names) for what, names in known.items()
    }
    if found["path"] is None or found["label"] is None:
        if any(columns.values()):
            raise DataError(
                f"{path}: its first line names no column of paths and labels, but {head[:12]}: "
                "give --path-column and --label-column"
            )
        return None
    rows = [row for row in csv.reader(lines[1:], delimiter=mark) if any(map(str.strip, row))]
    for k, row in enumerate(rows, 2):
        if len(row) != len(head):
            raise DataError(f"{path}, row {k}: {len(row)} cells, but {len(head)} columns are named")

    def cells(what: str) -> list[str]:
        place = found[what]
        return [] if place is None else [row[place].strip() for row in rows]

    listed, written = cells("path"), cells("label")
    videos = [os.path.join(path.parent, name) for name in listed]
    check_exist(path, videos, [f"row {k}" for k in range(2, len(rows) + 2)])
    # Numbers in their order, then names.
    names = sorted(
        set(written), key=lambda name: (not name.isdigit(), len(name) * name.isdigit(), name)
    )
    numbers = {name: k for k, name in enumerate(names)}
    splits = [SPLIT_FOLDERS.get(part.lower(), "") for part in cells("split")]
    return Labelled(
        str(path),
        videos,
        [numbers[name] for name in written],
        _shown(names),
        cells("group"),
        "" if found["group"] is None else head[found["group"]],
        splits if splits and all(splits) and len(set(splits)) == 2 else (),
    )


def _column(path: Path, head: Sequence[str], given: str, known: Sequence[str]) -> int | None:
    """The place of a column; raises DataError where one is asked for and is not there."""
    if given:
        if given not in head:
            raise DataError(f"{path} has no column {given!r}, only {', '.join(head[:12])}")
        return head.index(given)
    low = [name.lower() for name in head]
    return next((low.index(name) for name in known if name in low), None)


def _from_list(path: Path) -> Labelled:
    """A list of ``path label`` lines, as the training reads it."""
    cfg = load_config(
        None, ["DATA.PATH_TO_DATA_DIR", str(path.parent), "DATA.TRAIN_LIST", path.name]
        + ["DATA.VAL_LIST", path.name, "MODEL.NAME", "mvit_v2_xs", "MODEL.NUM_CLASSES", "0"],
    )  # fmt: skip
    videos = read_videos(cfg, "train")
    labels = [int(label) for label in videos.labels]
    return Labelled(str(path), list(videos.paths), labels, _shown(class_names(cfg)))
