"""Clip embeddings on disk: a folder with an index and one file, or some, per video.

``index.jsonl`` has a line per finished video (``video``, ``file``, ``label``, ``clips``), written
after its file, so a stopped extraction goes on where it was; ``features.json`` says what made them.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from videonet.data.texts import lines_of, read_text, short_stem
from videonet.errors import ConfigError, DataError

INDEX, DESCRIPTION = "index.jsonl", "features.json"
FORMATS = ("safetensors", "npy")


@dataclass(frozen=True)
class VideoFeatures:
    """The embeddings of the clips of one video.

    Attributes:
        features: (N, C) float32, one vector per clip.
        times: (N, 2) float32, start and end of each clip in seconds.
        frames: (N, T', C) float32, a vector per frame of the last stage's grid, or None.
        label: its class, where the list of videos gave one.
    """

    video: str
    features: np.ndarray
    times: np.ndarray
    frames: np.ndarray | None = None
    label: int | None = None


class FeatureWriter:
    """Adds videos to a folder of features.

    Args:
        description: what the features depend on, JSON; a folder made with something else is
            refused.
        kind: "safetensors" (one file with ``features``, ``times`` and perhaps ``frames``) or
            "npy" (a file for each: ``x.npy``, ``x.times.npy``, ``x.frames.npy``).

    Attributes:
        done: the videos that the folder already holds.
    """

    def __init__(self, folder: Path, description: dict, kind: str = "safetensors"):
        if kind not in FORMATS:
            raise ConfigError(f"features are written as {' or '.join(FORMATS)}, not as {kind!r}")
        self.folder, self.kind = folder, kind
        folder.mkdir(parents=True, exist_ok=True)
        wanted = description | {"format": kind}
        path = folder / DESCRIPTION
        if path.exists():
            found = read_description(folder)
            for key in sorted(found.keys() | wanted.keys()):
                if found.get(key) != wanted.get(key):
                    raise DataError(
                        f"{folder} holds other features: {key} is {found.get(key)!r} in "
                        f"{DESCRIPTION}, {wanted.get(key)!r} was asked for"
                    )
        else:
            path.write_text(json.dumps(wanted, indent=1) + "\n", encoding="utf-8")
        records = _read_index(folder)
        self.done = frozenset(record["video"] for record in records)
        text = "".join(json.dumps(record) + "\n" for record in records)
        (folder / INDEX).write_text(text, encoding="utf-8")  # without a line cut short
        self._index = open(folder / INDEX, "a", encoding="utf-8")  # noqa: SIM115

    def add(self, video: VideoFeatures) -> None:
        """Write the file of a video, then its line in the index."""
        digest = hashlib.sha1(os.fsencode(video.video), usedforsecurity=False).hexdigest()[:10]
        stem = f"{short_stem(Path(video.video).stem)}-{digest}"
        arrays = {"features": video.features, "times": video.times}
        if video.frames is not None:
            arrays["frames"] = video.frames
        arrays = {name: np.ascontiguousarray(a, dtype=np.float32) for name, a in arrays.items()}
        if self.kind == "safetensors":
            save_file(arrays, self.folder / f"{stem}.safetensors")
        else:
            for name, array in arrays.items():
                part = "" if name == "features" else f".{name}"
                np.save(self.folder / f"{stem}{part}.npy", array)
        suffix = ".safetensors" if self.kind == "safetensors" else ".npy"
        record = {"video": video.video, "file": stem + suffix, "label": video.label}
        self._index.write(json.dumps(record | {"clips": len(video.features)}) + "\n")
        self._index.flush()

    def __enter__(self) -> FeatureWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._index.close()


def read_description(folder: Path) -> dict:
    """What made the features of a folder.

    Raises:
        DataError: it is no folder of features.
    """
    try:
        return json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{folder} holds no features: there is no {DESCRIPTION}") from None
    except ValueError as error:
        raise DataError(f"{folder / DESCRIPTION} is not JSON: {error}") from error


def read_features(folder: Path) -> list[VideoFeatures]:
    """All videos of a folder, in the order they were added.

    Raises:
        DataError: it is no folder of features, or one of its files is missing or damaged.
    """
    read_description(folder)
    videos = []
    for record in _read_index(folder):
        path = folder / record["file"]
        try:
            arrays = _read_arrays(path)
        except (OSError, ValueError, EOFError, MemoryError, SafetensorError) as error:
            raise DataError(f"{path}: the features cannot be read: {error}") from error
        videos.append(
            VideoFeatures(
                record["video"],
                arrays["features"],
                arrays["times"],
                arrays.get("frames"),
                record["label"],
            )
        )
    if not videos:
        raise DataError(f"{folder} holds the features of no video")
    return videos


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


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    if path.suffix == ".safetensors":
        return load_file(path)
    files = {"features": path, "times": path.with_suffix(".times.npy")}
    frames = path.with_suffix(".frames.npy")
    files |= {"frames": frames} if frames.exists() else {}
    return {name: np.load(file, allow_pickle=False) for name, file in files.items()}


def _read_index(folder: Path) -> list[dict]:
    path = folder / INDEX
    if not path.exists():
        return []
    records = []
    lines = lines_of(read_text(path, "index of features"))
    for number, line in enumerate(lines, start=1):
        try:
            records.append(json.loads(line))
        except ValueError:
            if number < len(lines):  # the last line may be cut short by what stopped the run
                raise DataError(f"{path}, line {number}: not JSON") from None
    return records
