"""A data set of one folder per class: ``train/<class>/<video>``, or pictures as in ImageNet.

The classes are the folders' names in alphabetical order. A video is a file with one of
the endings of :mod:`videonet.data.video.names`, or a folder of its frames; or all of them are
single pictures.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from fvcore.common.config import CfgNode

from videonet.data.datasets.arrays import PathArray
from videonet.data.datasets.form import DatasetForm
from videonet.data.datasets.lists import VideoList
from videonet.data.video.names import (
    PICTURE_SUFFIXES,
    VIDEO_SUFFIXES,
    is_hidden,
    is_picture,
    is_video,
)
from videonet.errors import DataError


class Folders(DatasetForm):
    """A folder per split, and in it one per class."""

    spells_classes = True
    test_name = "test"

    def find(self, cfg: CfgNode, split: str) -> Path:
        """The folder that the config names, else that of the split's name."""
        path = super().find(cfg, split)
        return path if path.is_dir() else Path(cfg.DATA.PATH_TO_DATA_DIR) / split

    def own_classes(self, cfg: CfgNode, split: str) -> tuple[Path, list[str]]:
        """The folders of training, where there are some, else of the split itself."""
        folder = self.find(cfg, "train")
        if not folder.is_dir() and split != "train":
            own = self.find_test(cfg) if split == "test" else self.find(cfg, split)
            folder = own if own.is_dir() else folder
        return folder, class_folders(folder)

    def read(self, cfg: CfgNode, path: Path, names: list[str]) -> VideoList:
        """See :func:`read_folders`."""
        return read_folders(path, names)


def class_folders(folder: Path) -> list[str]:
    """The names of the classes. Raises DataError where there is no folder of a class."""
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder, expected one folder per class in it")
    names = sorted(entry.name for entry in os.scandir(folder) if _is_folder(entry))
    if not names:
        raise DataError(f"{folder}: it holds no folders, expected one per class")
    return names


def read_folders(folder: str | os.PathLike[str], classes: list[str]) -> VideoList:
    """The videos below ``folder/<class>``, sorted by class and name.

    ``classes`` gives the labels. Raises DataError for a folder that is none of them, for a class
    folder with something else than videos in it, for videos among pictures, and where there is
    nothing at all.
    """
    folder = Path(folder)
    numbers = {name: k for k, name in enumerate(classes)}
    videos, labels = [], []
    for name in class_folders(folder):
        if name not in numbers:
            raise DataError(f"{folder}/{name}: the training data has no class {name!r}")
        found = _videos(folder / name)
        videos += found
        labels += [numbers[name]] * len(found)
    if not videos:
        raise DataError(f"{folder}: there is no video in the folders of the classes")
    pictures = [is_picture(path) for path in videos]
    if any(pictures) and not all(pictures):
        odd = pictures.index(sum(pictures) <= len(pictures) / 2)
        what = "a picture among videos" if pictures[odd] else "no picture, among pictures"
        raise DataError(f"{videos[odd]} is {what}: expected videos alone, or pictures alone")
    return VideoList(str(folder), PathArray(videos), np.array(labels, dtype=np.int64), str(folder))


def _videos(folder: Path) -> list[str]:
    found = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if is_hidden(entry.name):
            continue
        if not entry.is_dir() and not is_video(entry.name) and not is_picture(entry.name):
            raise DataError(
                f"{entry.path} is not a video, expected files with "
                f"{', '.join(VIDEO_SUFFIXES + PICTURE_SUFFIXES)} or folders of frames"
            )
        found.append(entry.path)
    return found


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir() and not is_hidden(entry.name)
