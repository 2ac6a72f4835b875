"""Writing a data set into tar files ("shards") as WebDataset has them, with an index of each."""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from videonet.data.claims import Claim
from videonet.data.datasets.lists import SHARDS, VideoList
from videonet.data.datasets.shards import INDEX, Index, ShardedVideo, shard_names, write_index
from videonet.data.loading.workers import WorkerFailure, WorkerPool
from videonet.data.preparing.manifest import relative
from videonet.data.preparing.prepare import Encoder
from videonet.data.video.access import check_plain_file
from videonet.data.video.content import Source, open_bytes, size_of
from videonet.data.video.tar_members import place_of, source_of
from videonet.errors import DataError, DecodeError
from videonet.files import make_folder, remove_unfinished, replacing, replacing_text, writing
from videonet.terminal import progress_bar

LOCK = ".shard.lock"
CLASSES = "classes.txt"
_TOGETHER = 64  # videos that are encoded before they are written


class _Sample(NamedTuple):
    """A video to write: its place in the list, and where its bytes are."""

    number: int
    source: Source


def write_shards(
    videos: VideoList,
    folder: Path,
    split: str,
    *,
    names: Sequence[str] = (),
    most_bytes: int = 2**29,
    most_videos: int = 10_000,
    encode: Encoder | None = None,
    workers: int = 1,
    timeout: float = 0.0,
    overwrite: bool = False,
) -> tuple[Path, dict[str, str]]:
    """Write the videos of a list to ``folder/SPLIT-000000.tar``, …, and the list of those.

    Args:
        videos: in the order of their list; the bytes of their files are written as they are, with
            the labels in a JSON member beside each.
        folder: for the tar files, their indexes and the list.
        split: how the names begin.
        names: of the classes, for ``classes.txt``; empty for none.
        most_bytes: of a tar file, unless one video has more.
        most_videos: of a tar file.
        encode: writes the videos again first, small and with many key frames.
        workers: processes that do so.
        timeout: seconds for one video.
        overwrite: replace the tar files of an earlier list.

    Returns:
        The list's path, and why each video that could not be encoded is not in it.

    Raises:
        ConfigError: another process writes to the folder.
        DataError: there is such a list already, a video is a folder of pictures, or the data set
            has annotations beside labels.
        DecodeError: a video is no file that can be read.
        WriteError: a file cannot be written.
    """
    if videos.annotations is not None:
        raise DataError(
            f"{videos.name}: its videos have annotations that tar files have no form for; expected "
            "videos with labels alone"
        )
    make_folder(folder)
    path = folder / f"{split}{SHARDS}"
    claim = Claim(folder / LOCK, folder)
    try:
        remove_unfinished(folder)
        if path.exists():
            if not overwrite:
                raise DataError(f"{path} is there: give another --output, or --overwrite")
            _remove(path, folder)
        failed: dict[str, str] = {}
        bar = progress_bar(total=len(videos), desc="shard", unit="videos")
        with bar, tempfile.TemporaryDirectory(prefix=".part.", dir=folder) as scratch:
            samples = _encoded(videos, Path(scratch), encode, workers, timeout, failed)
            shards = _Shards(videos, folder, split, names, most_bytes, most_videos)
            written = shards.write(_counted(samples, bar))
        with replacing_text(path) as file:
            file.writelines(f"{name}\n" for name in written)
        if names:
            with replacing_text(folder / CLASSES) as file:
                file.writelines(f"{name}\n" for name in names)
    finally:
        claim.close()
    return path, failed


def _remove(path: Path, folder: Path) -> None:
    """Take away a list, then its tar files, where they lie in the folder."""
    shards = [Path(name) for name in shard_names(path)]
    with writing(folder):
        path.unlink()
        for shard in shards:
            if shard.parent == folder and shard.suffix == ".tar":
                shard.unlink(missing_ok=True)
                Path(f"{shard}{INDEX}").unlink(missing_ok=True)


def _counted(samples: Iterator[_Sample], bar: Any) -> Iterator[_Sample]:
    for sample in samples:
        yield sample
        bar.update()


def _encoded(
    videos: VideoList,
    scratch: Path,
    encode: Encoder | None,
    workers: int,
    timeout: float,
    failed: dict[str, str],
) -> Iterator[_Sample]:
    """The videos in their order: their files, or what ``encode`` makes of them, some at a time."""
    if encode is None:
        for number, path in enumerate(videos.paths):
            if os.path.isdir(path):
                raise DataError(
                    f"{path} is a folder of pictures: give --short-side, which writes it as a video"
                )
            yield _Sample(number, source_of(path))
        return
    pool: WorkerPool[int, tuple[str, str], str | None] = WorkerPool(encode, workers, timeout)
    try:
        for first in range(0, len(videos), _TOGETHER):
            numbers = range(first, min(first + _TOGETHER, len(videos)))
            for number in numbers:
                pool.submit(number, (videos.paths[number], str(scratch / f"{number}.mp4")))
            while (done := pool.result()) is not None:
                number, reason = done
                if isinstance(reason, WorkerFailure):
                    reason = f"cannot read {videos.paths[number]}: {reason.reason}"
                if reason:
                    failed[videos.paths[number]] = reason
            for number in numbers:
                file = scratch / f"{number}.mp4"
                if videos.paths[number] not in failed:
                    yield _Sample(number, str(file))
                file.unlink(missing_ok=True)
    finally:
        pool.close()


class _Shards:
    """Writes samples into one tar file after the other, each whole or not at all."""

    def __init__(
        self,
        videos: VideoList,
        folder: Path,
        split: str,
        names: Sequence[str],
        most_bytes: int,
        most_videos: int,
    ):
        self._videos, self._folder, self._split, self._names = videos, folder, split, names
        self._most_bytes, self._most_videos = most_bytes, most_videos

    def write(self, samples: Iterator[_Sample]) -> list[str]:
        """Write all; returns the names of the tar files."""
        written: list[str] = []
        sample = next(samples, None)
        while sample is not None:
            name = f"{self._split}-{len(written):06d}.tar"
            shard = self._folder / name
            with replacing(shard) as part:
                found: list[ShardedVideo] = []
                with tarfile.open(part, "w", format=tarfile.PAX_FORMAT) as archive:
                    while sample is not None and self._has_room(archive, found, sample):
                        found.append(self._add(archive, sample))
                        sample = next(samples, None)
                size = part.stat().st_size
            write_index(str(shard), Index(size, found))
            written.append(name)
        return written

    def _has_room(
        self, archive: tarfile.TarFile, found: list[ShardedVideo], sample: _Sample
    ) -> bool:
        if not found:
            return True
        path = self._videos.paths[sample.number]
        try:
            size = size_of(sample.source)
        except OSError as error:
            raise DecodeError(f"cannot read {path}: {error.strerror}") from None
        return len(found) < self._most_videos and archive.offset + size <= self._most_bytes

    def _add(self, archive: tarfile.TarFile, sample: _Sample) -> ShardedVideo:
        """Write a video and its labels."""
        path = self._videos.paths[sample.number]
        place = place_of(path)
        name = relative(path, self._videos.root) if place is None else place.name
        stem, ending = os.path.splitext(os.path.basename(name))
        # WebDataset's keys end at the first dot.
        key = f"{sample.number:08d}_{re.sub('[^A-Za-z0-9-]', '_', stem)[:60]}"
        ending = os.path.splitext(str(sample.source))[1].lower() or ".bin"
        labels = self._videos.classes_of(sample.number)
        start, size, crc = _add_file(archive, f"{key}{ending}", sample.source, path)
        notes: dict[str, Any] = {"path": name}
        notes |= {"labels": labels} if self._videos.is_multi_label else {"label": labels[0]}
        if self._names:
            notes["classes"] = [self._names[label] for label in labels]
        _add_bytes(archive, f"{key}.json", json.dumps(notes).encode())
        return ShardedVideo(f"{key}{ending}", start, size, crc, labels)


class _Summed:
    """A file that is read once, with the checksum of what was read."""

    def __init__(self, file: IO[bytes]):
        self._file, self.crc = file, 0

    def read(self, size: int = -1) -> bytes:
        block = self._file.read(size)
        self.crc = zlib.crc32(block, self.crc)
        return block


def _add_file(
    archive: tarfile.TarFile, name: str, source: Source, path: str
) -> tuple[int, int, str]:
    """Copy a file to a member; returns its start, its size and its checksum."""
    check_plain_file(source)
    try:
        file = open_bytes(source)
        size = size_of(source)
    except OSError as error:
        raise DecodeError(f"cannot read {path}: {error.strerror}") from None
    with file:
        summed: Any = _Summed(file)
        member = _member(name, size)
        start = archive.offset + len(member.tobuf(archive.format or tarfile.PAX_FORMAT))
        archive.addfile(member, summed)
    return start, size, f"{summed.crc:08x}"


def _add_bytes(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    archive.addfile(_member(name, len(data)), io.BytesIO(data))


def _member(name: str, size: int) -> tarfile.TarInfo:
    """A header that says the same whenever and by whomever it is written."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    return member
