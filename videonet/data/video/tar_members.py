"""Videos within tar files, on a disk or behind a URL, read at their place without extraction.

Such a video has a name of its own, ``SHARD::START+SIZE-CHECKSUM::NAME``, which says all there is to
know for reading it: a list of them stands in the place of a list of paths, and workers need nothing
else. The names in the archive are never taken for places on the disk.
"""

from __future__ import annotations

import importlib
import io
import os
import re
import time
import zlib
from collections.abc import Callable
from typing import BinaryIO, NamedTuple, TypeVar

from videonet.data.video.content import Content, NamedBytes, Source, Window
from videonet.errors import ConfigError, DataError, DecodeError

WHOLE = 2**26  # bytes: members up to this size are read at once and checked
BLOCK = 2**22  # bytes: of larger ones behind a URL so much is fetched at a time
PAUSES = (0.2, 1.0, 3.0)  # seconds between the attempts to fetch
_MEMBER = re.compile(
    r"(?P<shard>.+)::(?P<start>\d{1,18})\+(?P<size>\d{1,18})-(?P<crc>[0-9a-f]{8}|)::(?P<name>[^/]+)",
    re.DOTALL,
)
Answer = TypeVar("Answer")


class Place(NamedTuple):
    """Where a video lies in a tar file.

    Attributes:
        shard: path or URL of the tar file.
        start: its first byte.
        size: in bytes.
        crc: CRC-32 of the bytes as eight hexadecimal digits; empty where nobody has computed it.
        name: of the member, with its ending.
    """

    shard: str
    start: int
    size: int
    crc: str
    name: str

    def __str__(self) -> str:
        name = self.name.replace("/", "_").replace("::", "_")
        return f"{self.shard}::{self.start}+{self.size}-{self.crc}::{name}"


def place_of(path: str) -> Place | None:
    """The place that a name of a member says; None for any other name, and for plain files."""
    match = _MEMBER.fullmatch(path)
    if match is None or os.path.lexists(path):
        return None
    start, size = int(match["start"]), int(match["size"])
    return Place(match["shard"], start, size, match["crc"], match["name"])


def source_of(path: str) -> Source:
    """What to read for a path: the member of a tar file where it names one, else the file."""
    place = place_of(path)
    return path if place is None else TarMember(path, place)


class TarMember(Content):
    """A video in a tar file; its bytes are kept, once they are read, unless they are many.

    Args:
        path: the whole name, for messages.
        place: where it lies.
    """

    def __init__(self, path: str, place: Place):
        super().__init__(path, place.size)
        self._place = place
        self._data: bytes | None = None

    def open(self) -> BinaryIO:
        if self.size > WHOLE:
            file = self._try(lambda: open_shard(self._place.shard))
            window = Window(file, self._place.start, self.size, self.name, owner=True)
            return io.BufferedReader(window)
        if self._data is None:
            self._data = self._read()
        return NamedBytes(self._data, self.name)

    def _read(self) -> bytes:
        shard, start, size, crc, _ = self._place
        data = self._try(lambda: read_range(shard, start, size))
        if len(data) != size:
            raise DecodeError(
                f"cannot read {self.name}: of its {size:,} bytes {shard} gives {len(data):,}: the "
                "tar file is cut off, or its server does not know ranges"
            )
        if crc and f"{zlib.crc32(data):08x}" != crc:
            raise DecodeError(
                f"cannot read {self.name}: its bytes are not those that the index of {shard} was "
                "made of: the tar file is damaged or was replaced"
            )
        return data

    def _try(self, action: Callable[[], Answer]) -> Answer:
        try:
            return action()
        except OSError as error:
            reason = error.strerror or str(error) or type(error).__name__
            raise DecodeError(f"cannot read {self.name}: {self._place.shard}: {reason}") from None


def is_url(shard: str) -> bool:
    """Whether a tar file lies behind a URL, and not in the file system."""
    return "://" in shard


def read_range(shard: str, start: int, size: int) -> bytes:
    """Bytes of a file on a disk or behind a URL.

    Raises:
        ConfigError: what its kind of URL needs is not installed.
        OSError: it cannot be read.
    """
    if not is_url(shard):
        with open(shard, "rb") as file:
            file.seek(start)
            return file.read(size)
    return fetch(shard, lambda system, path: system.cat_file(path, start=start, end=start + size))


def open_shard(shard: str) -> BinaryIO:
    """A file on a disk or behind a URL, open for reading at any place.

    Raises:
        ConfigError: what its kind of URL needs is not installed.
        OSError: it cannot be read.
    """
    if not is_url(shard):
        return open(shard, "rb")
    return fetch(shard, lambda system, path: system.open(path, "rb", block_size=BLOCK))


def fetch(url: str, action: Callable[..., Answer]) -> Answer:
    """What ``action(file system, path)`` gives for a URL; a network's failure is tried again.

    Raises:
        ConfigError: what its kind of URL needs is not installed.
        OSError: there is no such file, or the network fails again and again.
    """
    try:
        system, path = importlib.import_module("fsspec.core").url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise ConfigError(
            f"{url} cannot be opened: {error}; pip install 'videonet[shards]' for http, s3fs for "
            "s3, gcsfs for gs"
        ) from None
    for pause in (*PAUSES, None):
        try:
            return action(system, path)
        except (FileNotFoundError, PermissionError, DataError):
            raise
        except Exception as error:  # each kind of network has errors of its own
            if pause is None:
                raise OSError(f"{type(error).__name__}: {error}") from error
            time.sleep(pause)
    raise RuntimeError("not reached")
