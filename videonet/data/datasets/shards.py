"""Data sets in tar files ("shards") as WebDataset has them, read at random by an index.

A list ``train.shards`` names the tar files, one a line: paths from its folder, or URLs, with ranges
such as ``train-{000000..000012}.tar``. Beside each tar file lies an index of where its videos are.
A tar file on a disk that has none is looked through instead.

WebDataset reads tar files in a stream and shuffles what passes by, so its batches depend on the
number of workers. Here every video is read where it lies: the order, the draws and the batches are
those of a list of files.
"""

from __future__ import annotations

import json
import logging
import os
import re
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from videonet.data.datasets.arrays import MultiHot, PathArray
from videonet.data.datasets.lists import SHARDS, VideoList
from videonet.data.texts import lines_of, read_text
from videonet.data.video.names import is_picture, is_video
from videonet.data.video.tar_members import Place, fetch, is_url
from videonet.errors import DataError
from videonet.files import replacing_text

logger = logging.getLogger(__name__)

INDEX = ".index.json"  # after the name of the tar file
FORMAT = 1
_RANGE = re.compile(r"\{(?P<first>\d{1,9})\.\.(?P<last>\d{1,9})\}")
_MOST_SHARDS = 10**6
_MOST_NOTES = 2**20  # bytes of the JSON beside a video
_BLOCK = 2**20


@dataclass(frozen=True)
class ShardedVideo:
    """A video in a tar file.

    Attributes:
        name: of the member.
        start: its first byte in the tar file.
        size: in bytes.
        crc: CRC-32 as eight hexadecimal digits, or empty.
        labels: numbers of its classes.
    """

    name: str
    start: int
    size: int
    crc: str
    labels: list[int]


@dataclass(frozen=True)
class Index:
    """What is in a tar file.

    Attributes:
        size: of the tar file in bytes.
        videos: in their order.
    """

    size: int
    videos: list[ShardedVideo]


def is_shards(path: Path) -> bool:
    """Whether a list is one of tar files, by its name."""
    return path.suffix == SHARDS


def read_shards(path: Path, num_classes: int, *, multi_label: bool = False) -> VideoList:
    """The videos of all tar files of a list, in their order.

    A tar file that is not as long as its index says is named in the log; those of its videos that
    are missing fail when they are read, as damaged files do.

    Args:
        path: the list.
        num_classes: labels are below.
        multi_label: a video may have any number of labels, not exactly one.

    Raises:
        DataError: the list, a tar file or an index is missing or cannot be used.
    """
    names, sets = [], []
    for shard, index in _indexes(path):
        _warn_of_another_size(shard, index)
        for video in index.videos:
            where = f"{shard}: {video.name}"
            if not multi_label and len(video.labels) != 1:
                raise DataError(
                    f"{where} has {len(video.labels)} labels, expected one (TRAIN.DATASET "
                    "multilabel is for several)"
                )
            bad = [label for label in video.labels if not 0 <= label < num_classes]
            if bad:
                raise DataError(
                    f"{where}: the label {bad[0]} is outside 0 … {num_classes - 1} "
                    f"(MODEL.NUM_CLASSES is {num_classes})"
                )
            names.append(str(Place(shard, video.start, video.size, video.crc, video.name)))
            sets.append(video.labels)
    if not names:
        raise DataError(f"{path}: there is no video in its tar files")
    labels: np.ndarray | MultiHot
    if multi_label:
        labels = MultiHot(sets, num_classes)
    else:
        labels = np.array([label for (label,) in sets], dtype=np.int64)
    return VideoList(str(path), PathArray(names), labels, str(path.parent))


def shard_labels(path: Path) -> list[str]:
    """The labels of all videos of a list of tar files. Raises DataError as :func:`read_shards`."""
    return [str(k) for _, index in _indexes(path) for video in index.videos for k in video.labels]


def shard_names(path: Path) -> list[str]:
    """The paths and URLs of a list of tar files, with its ranges written out.

    Raises:
        DataError: it cannot be read, names none, or one of them twice.
    """
    names: list[str] = []
    for number, line in enumerate(lines_of(read_text(path, "list of shards", names=True)), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        for name in _written_out(line, f"{path}, line {number}"):
            if "::" in name and not is_url(name):
                raise DataError(f"{path}, line {number}: a tar file must not have '::' in its name")
            names.append(name if is_url(name) else os.path.join(path.parent, name))
    if not names:
        raise DataError(f"{path}: the list is empty, expected the name of a tar file a line")
    if len(set(names)) < len(names):
        twice = next(name for k, name in enumerate(names) if name in names[:k])
        raise DataError(f"{path} names {twice} twice")
    return names


def _written_out(line: str, where: str) -> Iterator[str]:
    """``a-{08..10}`` is ``a-08``, ``a-09``, ``a-10``, as in WebDataset and the shell."""
    match = _RANGE.search(line)
    if match is None:
        yield line
        return
    first, last = int(match["first"]), int(match["last"])
    if not 0 <= last - first < _MOST_SHARDS:
        raise DataError(f"{where}: {match[0]} is no range of at most {_MOST_SHARDS:,} numbers")
    for number in range(first, last + 1):
        digits = f"{number:0{len(match['first'])}d}"
        yield from _written_out(line[: match.start()] + digits + line[match.end() :], where)


def _indexes(path: Path) -> Iterator[tuple[str, Index]]:
    """Every tar file of a list with its index."""
    for shard in shard_names(path):
        yield shard, read_index(shard)


def read_index(shard: str) -> Index:
    """The index of a tar file; one on a disk without an index is looked through.

    Raises:
        DataError: there is no tar file, or its index cannot be used.
    """
    place = shard + INDEX
    if is_url(shard):
        try:
            text = fetch(place, lambda system, path: system.cat_file(path)).decode()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(
                f"{place} cannot be read: {error}; a tar file behind a URL needs its index, which "
                "videonet data shard and videonet data index write"
            ) from None
    elif not os.path.isfile(shard):
        raise DataError(f"there is no tar file {shard}")
    elif not os.path.isfile(place):
        return scan(shard)
    else:
        text = read_text(Path(place), "index of a tar file")
    try:
        return _parsed(json.loads(text))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise DataError(f"{place} is no index of a tar file that can be used: {error}") from None


def write_index(shard: str, index: Index) -> Path:
    """Write the index of a tar file beside it. Raises WriteError where that cannot be."""
    path = Path(shard + INDEX)
    rows = [[v.name, v.start, v.size, v.crc, v.labels] for v in index.videos]
    with replacing_text(path) as file:
        json.dump({"format": FORMAT, "bytes": index.size, "videos": rows}, file)
    return path


def _parsed(content: Any) -> Index:
    """The index that its JSON says. Raises ValueError and others for what is none."""
    if content["format"] != FORMAT:
        raise ValueError(f"its format is {content['format']!r}, expected {FORMAT}")
    size, videos = _count(content["bytes"]), []
    for name, start, length, crc, labels in content["videos"]:
        if not isinstance(name, str) or not re.fullmatch(r"[0-9a-f]{8}|", crc):
            raise ValueError(f"{name!r} has no name or no checksum")
        if _count(start) + _count(length) > size:
            raise ValueError(f"{name} ends after the {size:,} bytes of the tar file")
        videos.append(ShardedVideo(name, start, length, crc, [_count(label) for label in labels]))
    return Index(size, videos)


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**53:
        raise ValueError(f"{value!r} is no number of bytes or of a class")
    return value


def _warn_of_another_size(shard: str, index: Index) -> None:
    if is_url(shard):
        return
    found = os.path.getsize(shard)
    if found != index.size:
        lost = sum(video.start + video.size > found for video in index.videos)
        logger.warning(
            "%s has %d bytes, its index says %d: it is damaged or was replaced; %d of its %d "
            "videos are missing",
            shard, found, index.size, lost, len(index.videos),
        )  # fmt: skip


def scan(shard: str, *, checksums: bool = False) -> Index:
    """Look through a tar file on a disk, whoever wrote it.

    Videos and pictures are told by their endings. Their labels are in a member of the same key, as
    WebDataset calls the name up to its first dot: ``KEY.cls`` holds a number, ``KEY.json`` an
    object with ``label`` or ``labels``. Nothing is extracted.

    Args:
        shard: the tar file.
        checksums: read all videos for the checksums of their bytes.

    Raises:
        DataError: it is no tar file, or a video has no label.
    """
    found: dict[str, tarfile.TarInfo] = {}
    labels: dict[str, list[int]] = {}
    try:
        with tarfile.open(shard, "r:") as archive, open(shard, "rb") as file:
            for member in archive:
                if not member.isreg() or member.issparse():
                    continue
                folder, base = os.path.split(member.name)
                key = os.path.join(folder, base.split(".")[0])
                if is_video(base) or is_picture(base):
                    if key in found:
                        raise DataError(f"{shard}: two videos have the key {key!r}")
                    found[key] = member
                elif base.endswith((".json", ".cls")):
                    file.seek(member.offset_data)
                    text = file.read(min(member.size, _MOST_NOTES))
                    read = _labels(text, base, f"{shard}: {member.name}")
                    labels[key] = read if read is not None else labels.get(key, [])
            size = os.path.getsize(shard)
            videos = []
            for key, member in found.items():
                if key not in labels:
                    raise DataError(f"{shard}: {member.name} has no label in a .cls or .json")
                start, length = member.offset_data, member.size
                if start + length > size:
                    raise DataError(f"{shard}: it ends within {member.name}")
                crc = _checksum(file, start, length) if checksums else ""
                name = os.path.basename(member.name)
                videos.append(ShardedVideo(name, start, length, crc, labels[key]))
    except (OSError, tarfile.TarError, ValueError) as error:
        raise DataError(f"{shard} is no tar file that can be read: {error}") from None
    return Index(size, videos)


def _labels(text: bytes, name: str, where: str) -> list[int] | None:
    """The labels that a member holds; None for JSON without any."""
    try:
        content = json.loads(text)  # a number is JSON too
        if name.endswith(".json"):
            if not isinstance(content, dict) or not {"label", "labels"} & set(content):
                return None
            content = content["labels"] if "labels" in content else content["label"]
        return [_count(label) for label in (content if isinstance(content, list) else [content])]
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: its label cannot be used: {error}") from None


def _checksum(file: Any, start: int, size: int) -> str:
    """CRC-32 of a part of a file."""
    crc = 0
    file.seek(start)
    while size > 0 and (block := file.read(min(size, _BLOCK))):
        crc, size = zlib.crc32(block, crc), size - len(block)
    return f"{crc:08x}"
