"""Clip embeddings on disk: a folder with an index and one file, or some, per video.

``index.jsonl`` has a line per finished video (``video``, ``file``, ``label``, ``clips``), written
after its file, so a stopped extraction goes on where it was; ``features.json`` says what made them.
``failures.jsonl`` has a line (``video``, ``error``) for each one that failed in the last run.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from videonet.choices import FEATURE_FORMATS
from videonet.data.claims import Claim
from videonet.data.texts import json_line, read_json_lines, read_text, short_stem
from videonet.errors import ConfigError, DataError
from videonet.files import AppendedText, make_folder, remove_unfinished, replacing, writing
from videonet.terminal import ShortRepr

INDEX, DESCRIPTION, FAILURES = "index.jsonl", "features.json", "failures.jsonl"
DIMENSIONS = {"features": 2, "times": 2, "frames": 3, "tokens": 3}  # of the arrays of a video
SUFFIXES = tuple(f".{kind}" for kind in FEATURE_FORMATS)


@dataclass(frozen=True, repr=False)
class VideoFeatures(ShortRepr):
    """The embeddings of the clips of one video.

    Attributes:
        features: (N, C) float32, one vector per clip.
        times: (N, 2) float32, start and end of each clip in seconds.
        frames: (N, T', C) float32, a vector per frame of the last stage's grid, or None.
        label: its class, where the list of videos gave one.
        tokens: (N, n, C) float16, all tokens of the last stage, or None.
    """

    video: str
    features: np.ndarray
    times: np.ndarray
    frames: np.ndarray | None = None
    label: int | None = None
    tokens: np.ndarray | None = None


class FeatureWriter:
    """Adds videos to a folder of features.

    Args:
        description: what the features depend on, JSON; a folder made with something else is
            refused.
        kind: "safetensors" (one file with ``features``, ``times`` and perhaps ``frames``) or
            "npy" (a file for each: ``x.npy``, ``x.times.npy``, ``x.frames.npy``,
            ``x.tokens.npy``).
        overwrite: remove the features that the folder holds first, whatever made them.

    Raises:
        ConfigError: another process writes to the folder.
        DataError: it holds features of something else.
        WriteError: it cannot be written.

    Attributes:
        done: the videos that the folder already holds.
    """

    def __init__(
        self,
        folder: Path,
        description: dict,
        kind: str = "safetensors",
        *,
        overwrite: bool = False,
    ):
        if kind not in FEATURE_FORMATS:
            raise ConfigError(
                f"features are written as {' or '.join(FEATURE_FORMATS)}, not as {kind!r}"
            )
        self.folder, self.kind = folder, kind
        make_folder(folder)
        self._claim = Claim(folder / DESCRIPTION, folder)
        try:
            remove_unfinished(folder)
            records = _read_index(folder)
            if overwrite:
                _remove(folder, records)
                records = []
            self._claim.settle(description | {"format": kind}, begun=bool(records))
            self.done = frozenset(record["video"] for record in records)
            self._index = AppendedText(folder / INDEX, map(json_line, records))
            self._failures: AppendedText | None = None
            with writing(folder / FAILURES):
                (folder / FAILURES).unlink(missing_ok=True)
        except BaseException:
            self._claim.close()
            raise

    def add(self, video: VideoFeatures) -> None:
        """Write the file of a video, then its line in the index."""
        digest = hashlib.sha1(os.fsencode(video.video), usedforsecurity=False).hexdigest()[:10]
        stem = f"{short_stem(Path(video.video).stem)}-{digest}"
        arrays = {"features": video.features, "times": video.times}
        if video.frames is not None:
            arrays["frames"] = video.frames
        arrays = {name: np.ascontiguousarray(a, dtype=np.float32) for name, a in arrays.items()}
        if video.tokens is not None:
            arrays["tokens"] = np.ascontiguousarray(video.tokens, dtype=np.float16)
        if self.kind == "safetensors":
            with replacing(self.folder / f"{stem}.safetensors") as temporary:
                _save_safetensors(arrays, temporary)
        else:
            for name, array in arrays.items():
                part = "" if name == "features" else f".{name}"
                with replacing(self.folder / f"{stem}{part}.npy") as temporary:
                    np.save(temporary, array)
        suffix = ".safetensors" if self.kind == "safetensors" else ".npy"
        record = {"video": video.video, "file": stem + suffix, "label": video.label}
        self._index.append(json_line(record | {"clips": len(video.features)}))

    def failure(self, video: str, reason: str) -> None:
        """Write that a video failed, and why; the next run tries it again."""
        if self._failures is None:
            self._failures = AppendedText(self.folder / FAILURES, ())
        self._failures.append(json_line({"video": video, "error": reason}))

    def __enter__(self) -> FeatureWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._index.close()
        if self._failures is not None:
            self._failures.close()
        self._claim.close()


def _save_safetensors(arrays: dict[str, np.ndarray], path: Path) -> None:
    try:
        save_file(arrays, path)
    except SafetensorError as error:  # it hides what the system said in its text
        raise OSError(str(error)) from error


def _remove(folder: Path, records: list[dict]) -> None:
    """Take away the index first, then the files that it names."""
    with writing(folder):
        (folder / INDEX).unlink(missing_ok=True)
        for record in records:
            for path in _files_of(folder, record):
                path.unlink(missing_ok=True)


def read_description(folder: Path) -> dict:
    """What made the features of a folder.

    Raises:
        DataError: it is no folder of features.
    """
    path = folder / DESCRIPTION
    if not path.is_file():
        raise DataError(f"{folder} holds no features: there is no {DESCRIPTION}")
    try:
        content = json.loads(read_text(path, "description of features"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    names = content.get("classes") if isinstance(content, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{path} does not name the classes")
    return content


def read_features(folder: Path) -> list[VideoFeatures]:
    """All videos of a folder, in the order they were added.

    Raises:
        DataError: it is no folder of features, or one of its files is missing or damaged.
    """
    read_description(folder)
    videos = list(iterate_features(folder))
    if not videos:
        raise DataError(f"{folder} holds the features of no video")
    return videos


def read_videos_of(folder: Path) -> tuple[list[str], list[int | None], list[int]]:
    """Paths, labels and numbers of clips of the videos of a folder, in the order they were added.

    Raises:
        DataError: its index cannot be read.
    """
    records = _read_index(folder)
    for record in records:
        if type(record.get("clips")) is not int or record["clips"] < 0:
            raise DataError(f"{folder / INDEX}: nothing says how many clips {record['video']} has")
    return (
        [record["video"] for record in records],
        [record["label"] for record in records],
        [record["clips"] for record in records],
    )


def read_failures(folder: Path) -> dict[str, str]:
    """Why videos failed in the last run, by video.

    Raises:
        DataError: the file of them cannot be read.
    """
    path = folder / FAILURES
    if not path.is_file():
        return {}
    rows = [row for _, row in read_json_lines(path, "failures of features")]
    return {str(row["video"]): str(row["error"]) for row in rows}


def iterate_features(folder: Path) -> Iterator[VideoFeatures]:
    """The videos of a folder one by one, in the order they were added.

    Raises:
        DataError: one of its files is missing or damaged.
    """
    for record in _read_index(folder):
        path = folder / record["file"]
        try:
            arrays = _read_arrays(folder, record)
        except (OSError, ValueError, EOFError, MemoryError, SafetensorError) as error:
            raise DataError(f"{path}: the features cannot be read: {error}") from error
        yield VideoFeatures(
            record["video"],
            arrays["features"],
            arrays["times"],
            arrays.get("frames"),
            record["label"],
            arrays.get("tokens"),
        )


def labels_of(videos: list[VideoFeatures], num_classes: int) -> np.ndarray:
    """The labels (M,) of videos that were listed with labels.

    Raises:
        DataError: a video without a label, or a label of no class.
    """
    for video in videos:
        if video.label is None or not 0 <= video.label < num_classes:
            raise DataError(
                f"{video.video} has the label {video.label}, expected 0 … {num_classes - 1}: "
                "extract the features of a list with labels"
            )
    return np.array([video.label for video in videos], dtype=np.int64)


def _files_of(folder: Path, record: dict) -> list[Path]:
    """The file of a video's features; where it is an ``.npy``, also of the other arrays."""
    path = folder / record["file"]
    if path.suffix == ".safetensors":
        return [path]
    return [path, *(path.with_suffix(f".{name}.npy") for name in list(DIMENSIONS)[1:])]


def _read_arrays(folder: Path, record: dict) -> dict[str, np.ndarray]:
    """The arrays of a video, which have to be what :class:`VideoFeatures` says.

    Raises ValueError where they are not, and what the formats raise.
    """
    files = _files_of(folder, record)
    if not all(path.is_file() for path in files if path.exists()):
        raise ValueError("it is no regular file")
    if files[0].suffix == ".safetensors":
        arrays = load_file(files[0])
    else:
        named = zip(DIMENSIONS, files, strict=True)
        arrays = {name: _load(path) for name, path in named if path.exists()}
    for name, dimensions in DIMENSIONS.items():
        array = arrays.get(name)
        if array is None and name not in ("features", "times"):
            continue
        if array is None or array.ndim != dimensions or array.dtype.kind != "f":
            raise ValueError(f"{name} is missing, or no array of {dimensions} dimensions of floats")
        if len(array) != len(arrays["features"]) or not np.isfinite(array).all():
            raise ValueError(f"{name} has not a row per clip, or numbers that are not finite")
    return arrays


def _load(path: Path) -> np.ndarray:
    """The array of an ``.npy`` file; no object in it is unpickled.

    A map holds what the file has, where reading would first reserve what its header claims.
    """
    return np.array(np.lib.format.open_memmap(path, mode="r"))


def _read_index(folder: Path) -> list[dict]:
    path = folder / INDEX
    if not path.exists():
        return []
    records = []
    for number, record in read_json_lines(path, "index of features"):
        _check_record(record, f"{path}, line {number}")
        records.append(record)
    return records


def _check_record(record: object, where: str) -> None:
    """Refuse a line of an index that is not as :class:`FeatureWriter` writes it."""
    if not isinstance(record, dict) or not isinstance(record.get("video"), str):
        raise DataError(f"{where}: it names no video")
    file, label = record.get("file"), record.get("label")
    if not isinstance(file, str) or os.path.basename(file) != file or not file.endswith(SUFFIXES):
        raise DataError(f"{where}: {file!r} is no name of a file of features in this folder")
    if label is not None and type(label) is not int:
        raise DataError(f"{where}: the label is {label!r}, expected a number or null")
