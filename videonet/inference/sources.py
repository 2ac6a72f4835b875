"""The videos that files, folders, glob patterns and lists stand for."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from videonet.choices import LIST_SUFFIXES
from videonet.data.datasets.lists import read_paths
from videonet.data.video.names import is_hidden, is_video
from videonet.errors import DataError
from videonet.inference.buckets import is_address, list_videos
from videonet.inference.inputs import SCHEMES

_RECURSIVE = re.compile(r"(?:^|/)(?P<stars>\*\*)(?:/|$)")  # the part of a pattern for all folders


@dataclass(frozen=True)
class Source:
    """A video to read.

    Attributes:
        path: its file.
        label: as a list gave it; None where none did.
    """

    path: str
    label: int | None = None


def find_videos(inputs: Iterable[str | Path]) -> list[Source]:
    """The videos that the words of a command stand for, each once.

    A list is a text file (``.txt``, ``.csv``, ``.tsv``, ``.list``) with a path, or a path and a
    label, on each line; relative paths start at its folder. A file that does not exist stays in the
    result: it fails when it is read.

    Args:
        inputs: files, folders (with the folders in them), glob patterns, lists, and addresses of
            files or of folders in buckets (``s3://…``, see :mod:`videonet.inference.buckets`).

    Returns:
        The videos in the order of `inputs`.

    Raises:
        DataError: an input without a single video, or a list that cannot be read.
    """
    found: dict[str, Source] = {}
    for item in inputs:
        for source in _expand(os.fspath(item)):
            found.setdefault(source.path, source)
    return list(found.values())


def _expand(item: str) -> list[Source]:
    path = Path(item)
    if is_address(item) and not item.lower().startswith(SCHEMES):
        return _some([Source(name) for name in list_videos(item)], f"{item} holds no video file")
    if os.path.isdir(item):
        return _some(_videos_below(path), f"{item} holds no video file")
    if path.suffix.lower() in LIST_SUFFIXES:
        listed = [Source(video, label) for video, label in read_paths(path)]
        return _some(listed, f"{item}: the list names no video")
    if not os.path.exists(item) and glob.has_magic(item):
        files = filter(os.path.isfile, sorted(_fitting(item)))
        return _some([Source(file) for file in files], f"no file fits the pattern {item}")
    return [Source(item)]


def _fitting(pattern: str) -> set[str]:
    """The paths that fit; ``**`` goes through no links, which may lead in circles."""
    match = _RECURSIVE.search(pattern)
    if match is None:
        return set(glob.glob(pattern))
    before, rest = pattern[: match.start("stars")], pattern[match.end() :] or "*"
    found = set()
    for start in glob.glob(before) if before else [""]:
        for folder, folders, _ in os.walk(start or os.curdir):
            folders[:] = [name for name in folders if not is_hidden(name)]
            folder = folder if start else os.path.normpath(folder).removeprefix(os.curdir)
            found |= _fitting(os.path.join(glob.escape(folder), rest))
    return found


def _videos_below(folder: Path) -> list[Source]:
    """The videos in a folder and the folders in it, except in hidden ones and behind links.

    A link to a file that is gone is one of them: it fails when it is read.

    Raises:
        DataError: a folder cannot be listed.
    """
    found, folders = [], [os.fspath(folder)]
    while folders:
        place = folders.pop()
        try:
            with os.scandir(place) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        if not is_hidden(entry.name):
                            folders.append(entry.path)
                    elif is_video(entry.name) and (entry.is_file() or _leads_nowhere(entry)):
                        found.append(entry.path)
        except OSError as error:
            raise DataError(f"cannot list the folder {place}: {error.strerror}") from error
    return [Source(path) for path in sorted(found)]


def _leads_nowhere(entry: os.DirEntry[str]) -> bool:
    return entry.is_symlink() and not os.path.exists(entry.path)


def _some(sources: list[Source], otherwise: str) -> list[Source]:
    if not sources:
        raise DataError(otherwise)
    return sources
