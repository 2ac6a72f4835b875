"""What ``tools/data.py verify`` found out about the videos of a list, kept beside the list.

The manifest is JSON: a fingerprint of the data set and one row per video. The loader takes from
it which videos not to open and what is in the others. A row counts as long as its file has the
same number of bytes and was not changed since.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np

from videonet.data.datasets.lists import VideoList
from videonet.data.texts import read_text
from videonet.data.video.info import VideoInfo
from videonet.data.video.tar_members import is_url, place_of
from videonet.errors import DataError
from videonet.files import replacing_text

logger = logging.getLogger(__name__)

FORMAT = 2
INFO = tuple(field.name for field in fields(VideoInfo))
COLUMNS = ("path", "bytes", "modified", "digest", *INFO, "reason")
_WORDS = ("codec", "pixels", "container", "counted")


def manifest_path(name: str | os.PathLike[str]) -> Path:
    """The manifest of a list file, or of a folder of classes, lies beside it."""
    return Path(f"{os.fspath(name).rstrip('/')}.manifest.json")


def files_of(path: str) -> list[str]:
    """A video file, or all files of a folder of pictures."""
    if not os.path.isdir(path):
        return [path]
    return [entry.path for entry in os.scandir(path) if entry.is_file()]


def state_of(path: str) -> tuple[int, int] | tuple[None, None]:
    """Bytes of a video file, or of all pictures of a folder, and when one was changed last (ns).

    Of a member of a tar file its own bytes, and the change of the tar file. Nothing for a file that
    is not there.
    """
    place = place_of(path)
    try:
        if place is not None:  # the name says where the bytes lie, and what they are
            changed = 0 if is_url(place.shard) else os.stat(place.shard).st_mtime_ns
            return place.size, changed
        states = [os.stat(name) for name in files_of(path)]
        return sum(s.st_size for s in states), max((s.st_mtime_ns for s in states), default=0)
    except (OSError, ValueError):
        return None, None


class Manifest:
    """The rows of a manifest in the order of a list, in arrays that workers may share.

    ``bad``: index of every video that cannot be read, and why; ``fingerprint`` stands for the
    list, its labels and the content of all files.
    """

    def __init__(
        self, name: str, fingerprint: str, rows: Mapping[str, Mapping[str, Any]], videos: VideoList
    ):
        self.name, self.fingerprint = name, fingerprint
        self.bad: dict[int, str] = {}
        self._paths = videos.paths
        self._words = sorted(
            {row[key] for row in rows.values() for key in _WORDS if row[key]} | {""}
        )
        numbers = {word: k for k, word in enumerate(self._words)}
        names = [key for key in INFO if key not in _WORDS]
        self._known = np.zeros(len(videos), dtype=bool)
        self._states = np.zeros((len(videos), 2), dtype=np.int64)  # bytes, time of change
        self._table = np.zeros(
            len(videos),
            dtype=[(key, np.float64) for key in names] + [(key, np.int32) for key in _WORDS],
        )
        for k, path in enumerate(videos.paths):
            row = rows.get(relative(path, videos.root))
            if row is None:
                continue
            if row["reason"]:
                if state_of(path) == (row["bytes"], row["modified"]):
                    self.bad[k] = f"cannot read {path}: {row['reason']} ({name})"
                continue
            self._known[k], self._states[k] = True, (row["bytes"], row["modified"])
            for key in names:
                self._table[k][key] = row[key]
            for key in _WORDS:
                self._table[k][key] = numbers[row[key] or ""]

    def __len__(self) -> int:
        """Videos of the list that the manifest has."""
        return int(self._known.sum()) + len(self.bad)

    def info(self, index: int) -> VideoInfo | None:
        """What is in a readable video; None where the manifest does not know or is outdated."""
        path = self._paths[index]
        if not self._known[index] or state_of(path) != tuple(self._states[index].tolist()):
            return None
        row = self._table[index]
        values: dict[str, Any] = {
            key: self._words[int(row[key])] if key in _WORDS else _TYPES[key](row[key])
            for key in INFO
        }
        return VideoInfo(**values)


_TYPES: dict[str, Callable[[Any], Any]] = get_type_hints(VideoInfo)


def read_manifest(videos: VideoList) -> Manifest | None:
    """The manifest of a list, if there is one. Raises DataError where it cannot be used."""
    path = manifest_path(videos.name)
    if not path.is_file():
        return None
    content = load_rows(path)
    if content is None:
        logger.warning(
            "%s was written by an earlier version and is not used: run tools/data.py verify", path
        )
        return None
    manifest = Manifest(str(path), content["fingerprint"], content["rows"], videos)
    logger.info(
        "%s: %d of %d videos known, %d of them unreadable; data set %s",
        path, len(manifest), len(videos), len(manifest.bad), manifest.fingerprint,
    )  # fmt: skip
    return manifest


def load_rows(path: Path) -> dict[str, Any] | None:
    """``{"fingerprint": …, "rows": {path: row}}`` of a manifest file; None for an older version.

    Raises DataError for another file, and for a row that nothing can be like.
    """
    try:
        content = json.loads(read_text(path, "manifest", names=True))
        if content["format"] in range(1, FORMAT):
            return None
        if content["format"] != FORMAT or tuple(content["columns"]) != COLUMNS:
            raise ValueError("another version")
        rows = [dict(zip(COLUMNS, row, strict=True)) for row in content["videos"]]
        for row in rows:
            _check_row(row)
        return {
            "fingerprint": str(content["fingerprint"]),
            "rows": {row["path"]: row for row in rows},
        }
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f"{path} is no manifest that can be used ({type(error).__name__}: {error}): remove it "
            "or run tools/data.py verify --fresh"
        ) from None


def _check_row(row: Mapping[str, Any]) -> None:
    """Raise ValueError, naming video and column, for a value that no video has."""
    if not isinstance(row["path"], str) or not isinstance(row["reason"], str):
        raise ValueError(f"the row of {row['path']!r} has no name or no reason")
    if row["reason"]:
        return
    for key, is_possible in _POSSIBLE.items():
        if not is_possible(row[key]):
            raise ValueError(f"{row['path']}: {key} is {row[key]!r}")


def _is_count(least: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and least <= value < 2**53


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and value > 0


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_word(value: Any) -> bool:
    return isinstance(value, str)


_POSSIBLE: dict[str, Callable[[Any], bool]] = {
    "bytes": _is_count(0),
    "modified": lambda value: type(value) is int and abs(value) < 2**63,
    "frames": _is_count(1),
    "fps": _is_number,
    "width": _is_count(1),
    "height": _is_count(1),
    "rotation": lambda value: value in (0, 90, 180, 270) and type(value) is int,
    "duration": _is_number,
    "codec": _is_word,
    "pixels": _is_word,
    "container": _is_word,
    "open_gop": _is_bool,
    "even": _is_bool,
    "mirrored": _is_bool,
    "counted": _is_word,
}


def write_manifest(path: Path, rows: Iterable[Mapping[str, Any]], fingerprint: str) -> None:
    """Write a manifest in one step, so that a reader never sees half of one.

    Raises:
        WriteError: it cannot be written.
    """
    content = {
        "format": FORMAT,
        "fingerprint": fingerprint,
        "columns": COLUMNS,
        "videos": [[row[key] for key in COLUMNS] for row in rows],
    }
    with replacing_text(path) as file:
        json.dump(content, file, ensure_ascii=False)


def fingerprint(videos: VideoList, rows: Mapping[str, Mapping[str, Any]]) -> str:
    """A hash over path, labels and content of every video, whatever their order."""
    lines = []
    for k, path in enumerate(videos.paths):
        name = relative(path, videos.root)
        lines.append(f"{name}\t{videos.classes_of(k)}\t{rows[name]['digest']}\n")
    text = "".join(sorted(lines)).encode("utf-8", errors="surrogateescape")
    return hashlib.sha256(text).hexdigest()[:16]


def relative(path: str, root: str) -> str:
    """A video's name in the manifest: its path from the folder that the list's names start at."""
    prefix = os.path.join(root, "")
    return path[len(prefix) :] if path.startswith(prefix) else path
