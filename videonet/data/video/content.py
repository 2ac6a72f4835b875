"""Encoded videos that are no files of their own: bytes in memory, open files, parts of archives."""

from __future__ import annotations

import io
import os
from abc import ABC, abstractmethod
from typing import Any, BinaryIO

from videonet.errors import DecodeError


class Content(ABC):
    """The encoded bytes of one video or picture.

    Args:
        name: what messages call it; its ending says what it may be, as that of a file does.
        size: in bytes.
    """

    def __init__(self, name: str, size: int):
        self.name, self.size = name, size

    def __str__(self) -> str:
        return self.name

    @abstractmethod
    def open(self) -> BinaryIO:
        """The bytes as an open file at its start; several may be open at a time.

        Raises:
            DecodeError: they cannot be read.
        """


Source = str | Content  # the path of a plain file, or what is none


class BytesContent(Content):
    """A video in memory."""

    def __init__(self, data: bytes | bytearray | memoryview, name: str = "the bytes in memory"):
        self._data = bytes(data)
        super().__init__(name, len(self._data))

    def open(self) -> BinaryIO:
        return NamedBytes(self._data, self.name)


class FileContent(Content):
    """A video in an open binary file, from its start to its end; the file stays open.

    Raises:
        DecodeError: it gives no bytes, or cannot go back in them.
    """

    def __init__(self, file: BinaryIO, name: str = ""):
        name = name or str(getattr(file, "name", "the open file"))
        try:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            binary = isinstance(file.read(0), bytes)
        except (OSError, ValueError, AttributeError) as error:
            raise DecodeError(
                f"cannot read {name}: expected a file that can seek: {error}"
            ) from None
        if not binary:
            raise DecodeError(f"cannot read {name}: it is open as text, expected bytes (mode 'rb')")
        self._file = file
        super().__init__(name, size)

    def open(self) -> BinaryIO:
        return io.BufferedReader(Window(self._file, 0, self.size, self.name))


class NamedBytes(io.BytesIO):
    """Bytes as an open file whose name has an ending, and leads nowhere."""

    def __init__(self, data: bytes, name: str):
        super().__init__(data)
        self.name = _bare(name)


class Window(io.RawIOBase):
    """A part of an open file as a file of its own, with its own position.

    Args:
        file: several windows may share it in one thread.
        start: the first byte.
        size: the number of bytes.
        name: whose ending is that of the video.
        owner: close the file with the window.
    """

    def __init__(self, file: BinaryIO, start: int, size: int, name: str, *, owner: bool = False):
        self._file, self._start, self._size = file, start, size
        self._place, self._owner = 0, owner
        self.name = _bare(name)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"there is no byte {base + offset}")
        self._place = base + offset
        return self._place

    def readinto(self, buffer: Any, /) -> int:
        wanted = max(0, min(len(buffer), self._size - self._place))
        self._file.seek(self._start + self._place)
        data = self._file.read(wanted)
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)

    def close(self) -> None:
        if self._owner and not self.closed:
            self._file.close()
        super().close()


def _bare(name: str) -> str:
    return "content" + os.path.splitext(name)[1].lower()


def open_bytes(source: Source) -> BinaryIO:
    """A source as an open binary file. Raises OSError or DecodeError where there is none."""
    return open(source, "rb") if isinstance(source, str) else source.open()


def size_of(source: Source) -> int:
    """The bytes of a source. Raises OSError where there is no such file."""
    return os.path.getsize(source) if isinstance(source, str) else source.size
