"""Lists of labelled videos, one ``path label`` a line, as Kinetics lists are written.

The separator may be a space, a comma or a tab; the label is what stands after the last one, so a
path may hold spaces, or commas when quoted or not. A header line and blank lines are skipped.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from videonet.errors import DataError

SEPARATORS = (" ", "\t", ",")


class PathArray(Sequence[str]):
    """A sequence of strings in two arrays, so that forked workers share its memory.

    Python strings would be copied page by page into every worker as their reference counts
    change.
    """

    def __init__(self, paths: Iterable[str]):
        encoded = [os.fsencode(path) for path in paths]
        self._ends = np.cumsum([len(path) for path in encoded], dtype=np.int64)
        self._bytes = np.frombuffer(b"".join(encoded), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> str:
        index = range(len(self))[index]  # negative indices and IndexError as a list has them
        start = self._ends[index - 1] if index else 0
        return os.fsdecode(self._bytes[start : self._ends[index]].tobytes())


@dataclass(frozen=True)
class VideoList:
    """Videos and their labels; ``name`` is the file they were read from."""

    name: str
    paths: PathArray
    labels: np.ndarray  # (videos,) int64

    def __len__(self) -> int:
        return len(self.labels)


def read_list(
    path: str | os.PathLike[str],
    num_classes: int,
    *,
    prefix: str = "",
    separator: str = " ",
) -> VideoList:
    """Read a list of ``path label`` lines; relative paths start at ``prefix``, else at its folder.

    ``separator`` is tried first, then space, tab and comma. Raises DataError, naming file and
    line, for a list that is missing or empty, a line without a label, a label that is no integer
    in ``0 … num_classes - 1``, and videos that are not there.
    """
    path = Path(path)
    rows = _rows(path, separator)
    root = Path(prefix) if prefix else path.parent
    videos, labels = [], np.empty(len(rows), dtype=np.int64)
    for k, (line, video, label) in enumerate(rows):
        labels[k] = _label(path, line, label, num_classes)
        videos.append(os.path.join(root, video))
    _check_exist(path, videos, [line for line, _, _ in rows])
    return VideoList(str(path), PathArray(videos), labels)


def _rows(path: Path, separator: str) -> list[tuple[int, str, str]]:
    """(line number, video, label text) of every line that names a video."""
    try:
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such list of videos") from None
    except OSError as error:
        raise DataError(f"{path}: the list cannot be read: {error.strerror}") from None
    lines = [(k, line.strip()) for k, line in enumerate(text.splitlines(), 1) if line.strip()]
    separator = _detect(lines, separator)
    if lines and _is_header(lines[0][1], separator):
        lines = lines[1:]
    if not lines:
        raise DataError(f"{path}: the list is empty, expected lines of the form 'path label'")
    return [(k, *_split(path, k, line, separator)) for k, line in lines]


def _detect(lines: list[tuple[int, str]], preferred: str) -> str:
    """The separator that splits an integer from the end of one of the first lines."""
    for _, line in lines[:2]:  # the first may be a header
        for separator in (preferred, *SEPARATORS):
            video, found, label = line.rpartition(separator)
            if found and _is_integer(label) and not video.endswith(("\t", ",")):
                return separator
    return preferred


def _is_header(line: str, separator: str) -> bool:
    """Two words, neither a file name nor a number: ``path label``, ``video,class``."""
    names = [name.strip(" \"'") for name in line.split(separator)]
    return len(names) >= 2 and all(name.isidentifier() for name in names)


def _split(path: Path, line: int, text: str, separator: str) -> tuple[str, str]:
    video, found, label = text.rpartition(separator)
    video, label = video.strip(), label.strip()
    if not found or not video:
        raise DataError(
            f"{path}, line {line}: no label in {text!r}, expected 'path label' separated by "
            f"{separator!r}"
        )
    if len(video) > 1 and video[0] == video[-1] and video[0] in "\"'":
        video = video[1:-1].replace(video[0] * 2, video[0])
    return video, label


def _label(path: Path, line: int, text: str, num_classes: int) -> int:
    if not _is_integer(text):
        raise DataError(f"{path}, line {line}: the label {text!r} is not an integer")
    label = int(text)
    if not 0 <= label < num_classes:
        raise DataError(
            f"{path}, line {line}: the label {label} is outside 0 … {num_classes - 1} "
            f"(MODEL.NUM_CLASSES is {num_classes})"
        )
    return label


def _is_integer(text: str) -> bool:
    text = text.strip().removeprefix("-")
    return text.isascii() and text.isdigit()


def _check_exist(path: Path, videos: list[str], lines: list[int]) -> None:
    """Refuse a list with missing videos; looks into each folder once, not at each file."""
    folders: dict[str, set[str]] = {}
    missing = []
    for line, video in zip(lines, videos, strict=True):
        folder, name = os.path.split(video)
        if folder not in folders:
            folders[folder] = set(os.listdir(folder)) if os.path.isdir(folder) else set()
        if name not in folders[folder]:
            missing.append((line, video))
    if missing:
        line, video = missing[0]
        count = f"{len(missing)} of {len(videos)} videos are missing"
        raise DataError(f"{path}, line {line}: there is no video {video} ({count})")
