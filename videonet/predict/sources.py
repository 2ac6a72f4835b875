"""Which videos are meant: a file, a folder, a glob pattern or a list."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from videonet.errors import DataError

VIDEO_SUFFIXES = frozenset(
    (
        *(".3gp", ".asf", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4"),
        *(".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".vob", ".webm", ".wmv"),
    )
)
LIST_SUFFIXES = frozenset((".csv", ".list", ".tsv", ".txt"))
_LABELLED = re.compile(r"(?P<path>.+?)\s*[ ,\t]\s*(?P<label>-?\d+)")


@dataclass(frozen=True)
class Source:
    """A video to read and, where a list gave one, its label."""

    path: str
    label: int | None = None


def find_videos(inputs: Iterable[str | Path]) -> list[Source]:
    """The videos of files, folders (searched below), glob patterns and lists, in this order.

    A list is a text file (``.txt``, ``.csv``, ``.tsv``, ``.list``) with a path, or a path and a
    label, on each line; relative paths start at its folder. A file that is named but is not there
    stays in the result: reading it is what fails.

    Raises:
        DataError: an input without a single video, or a list that cannot be read.
    """
    found: dict[str, Source] = {}
    for item in map(os.fspath, inputs):
        for source in _expand(item):
            found.setdefault(source.path, source)
    return list(found.values())


def _expand(item: str) -> list[Source]:
    path = Path(item)
    if path.is_dir():
        return _some(_videos_below(path), f"{item} holds no video file")
    if path.suffix.lower() in LIST_SUFFIXES:
        return _some(_read_list(path), f"{item}: the list names no video")
    if not path.exists() and glob.has_magic(item):
        files = filter(os.path.isfile, sorted(glob.glob(item, recursive=True)))
        return _some([Source(file) for file in files], f"no file fits the pattern {item}")
    return [Source(item)]


def _videos_below(folder: Path) -> list[Source]:
    files = (path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES)
    return [Source(str(path)) for path in sorted(files) if path.is_file()]


def _read_list(path: Path) -> list[Source]:
    try:
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such list of videos") from None
    except OSError as error:
        raise DataError(f"{path}: the list cannot be read: {error.strerror}") from None
    lines = [line.strip() for line in text.splitlines()]
    sources = [_source(path.parent, line) for line in lines if line]
    # A header is a first line whose words are no file: "path label".
    if len(sources) > 1 and not Path(sources[0].path).suffix and sources[0].label is None:
        sources = sources[1:] if not Path(sources[0].path).exists() else sources
    return sources


def _source(folder: Path, line: str) -> Source:
    if (folder / line).is_file():
        return Source(str(folder / line))
    match = _LABELLED.fullmatch(line)
    path = match["path"] if match else line
    if len(path) > 1 and path[0] == path[-1] and path[0] in "\"'":
        path = path[1:-1]
    return Source(str(folder / path), int(match["label"]) if match else None)


def _some(sources: list[Source], otherwise: str) -> list[Source]:
    if not sources:
        raise DataError(otherwise)
    return sources
