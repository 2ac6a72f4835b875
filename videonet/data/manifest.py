"""What ``tools/data.py verify`` found out about the videos of a list, kept beside the list.

The manifest is JSON: a fingerprint of the data set and one row per video. The loader takes from
it which videos not to open and what is in the others. A row counts as long as its file has the
same number of bytes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from videonet.data.lists import VideoList
from videonet.data.video.info import VideoInfo
from videonet.errors import DataError

logger = logging.getLogger(__name__)

FORMAT = 1
INFO = tuple(field.name for field in fields(VideoInfo))
COLUMNS = ("path", "bytes", "digest", *INFO, "reason")
_WORDS = ("codec", "pixels", "container")


def manifest_path(name: str | os.PathLike[str]) -> Path:
    """The manifest of a list file, or of a folder of classes, lies beside it."""
    return Path(f"{os.fspath(name).rstrip('/')}.manifest.json")


def video_bytes(path: str) -> int:
    """The size of a video file, or of all pictures of a folder."""
    if os.path.isdir(path):
        return sum(entry.stat().st_size for entry in os.scandir(path))
    return os.path.getsize(path)


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
        self._words = sorted({row[key] for row in rows.values() for key in _WORDS if row[key]})
        numbers = {word: k for k, word in enumerate(self._words)}
        names = [key for key in INFO if key not in _WORDS]
        self._known = np.zeros(len(videos), dtype=bool)
        self._bytes = np.zeros(len(videos), dtype=np.int64)
        self._table = np.zeros(
            len(videos),
            dtype=[(key, np.float64) for key in names] + [(key, np.int32) for key in _WORDS],
        )
        for k, path in enumerate(videos.paths):
            row = rows.get(relative(path, videos.root))
            if row is None:
                continue
            if row["reason"]:
                if _same_size(path, row["bytes"]):
                    self.bad[k] = f"cannot read {path}: {row['reason']} ({name})"
                continue
            self._known[k], self._bytes[k] = True, row["bytes"]
            for key in names:
                self._table[k][key] = row[key]
            for key in _WORDS:
                self._table[k][key] = numbers[row[key]]

    def __len__(self) -> int:
        """Videos of the list that the manifest has."""
        return int(self._known.sum()) + len(self.bad)

    def info(self, index: int) -> VideoInfo | None:
        """What is in a readable video; None where the manifest does not know or is outdated."""
        path = self._paths[index]
        if not self._known[index] or not _same_size(path, self._bytes[index]):
            return None
        row = self._table[index]
        values = {
            key: self._words[int(row[key])] if key in _WORDS else _TYPES[key](row[key])
            for key in INFO
        }
        return VideoInfo(**values)


_TYPES = {
    field.name: {"int": int, "float": float, "bool": bool}.get(field.type, str)
    for field in fields(VideoInfo)
}


def read_manifest(videos: VideoList) -> Manifest | None:
    """The manifest of a list, if there is one. Raises DataError where it cannot be used."""
    path = manifest_path(videos.name)
    if not path.is_file():
        return None
    content = load_rows(path)
    manifest = Manifest(str(path), content["fingerprint"], content["rows"], videos)
    logger.info(
        "%s: %d of %d videos known, %d of them unreadable; data set %s",
        path, len(manifest), len(videos), len(manifest.bad), manifest.fingerprint,
    )  # fmt: skip
    return manifest


def load_rows(path: Path) -> dict[str, Any]:
    """``{"fingerprint": …, "rows": {path: row}}`` of a manifest file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8", errors="surrogateescape"))
        if content["format"] != FORMAT or tuple(content["columns"]) != COLUMNS:
            raise ValueError("another version")
        rows = [dict(zip(COLUMNS, row, strict=True)) for row in content["videos"]]
        return {
            "fingerprint": str(content["fingerprint"]),
            "rows": {row["path"]: row for row in rows},
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is no manifest that can be used ({type(error).__name__}: {error}): remove it "
            "or run tools/data.py verify --fresh"
        ) from None


def write_manifest(path: Path, rows: Iterable[Mapping[str, Any]], fingerprint: str) -> None:
    """Write a manifest in one step, so that a reader never sees half of one."""
    content = {
        "format": FORMAT,
        "fingerprint": fingerprint,
        "columns": COLUMNS,
        "videos": [[row[key] for key in COLUMNS] for row in rows],
    }
    part = path.with_name(f"{path.name}.part")
    try:
        with open(part, "w", encoding="utf-8", errors="surrogateescape") as file:
            json.dump(content, file, ensure_ascii=False)
        os.replace(part, path)
    except OSError as error:
        raise DataError(f"{path}: the manifest cannot be written: {error.strerror}") from None


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


def _same_size(path: str, size: int) -> bool:
    try:
        return video_bytes(path) == size
    except OSError:
        return False
