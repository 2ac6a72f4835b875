"""The boxes of MP4 files and the elements of Matroska: a name, a length, and a content."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO


def boxes(
    file: BinaryIO, start: int = 0, end: int | None = None
) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of the content of each box between two bytes of a file.

    ISO/IEC 14496-12, 4.2: a length of 32 bits and a name; length 1: one of 64 bits follows; 0: up
    to the end. ``end`` is that of the file where it is not given. A box may claim to end after it.
    """
    limit = _size(file) if end is None else end
    while start + 8 <= limit:
        file.seek(start)
        length, kind = struct.unpack(">I4s", file.read(8))
        content = start + 8
        if length == 1:
            length, content = struct.unpack(">Q", file.read(8))[0], start + 16
        if length == 0:
            length = limit - start
        if length < content - start or not kind.isascii():
            return
        yield kind, content, start + length
        start += length


def elements(
    file: BinaryIO, start: int = 0, end: int | None = None
) -> Iterator[tuple[int, int, int]]:
    """Identifier, start and end of the content of each element between two bytes of a file.

    An element of unknown length ends with the file: what follows is in it, or of its level.
    """
    limit = _size(file) if end is None else min(end, _size(file))
    while start + 2 <= limit:
        kind, content, length = element(file, start)
        stop = limit if length is None else content + length
        yield kind, content, stop
        start = stop


def element(file: BinaryIO, place: int) -> tuple[int, int, int | None]:
    """Identifier of an element, where its content begins, and its length if it has one.

    RFC 8794: identifier and length have as many bytes as their first byte has leading zeros, and
    one more. Raises ValueError where there is none.
    """
    file.seek(place)
    head = file.read(12)
    width = 9 - head[0].bit_length()
    kind = int.from_bytes(head[:width], "big")
    first = head[width]
    more = 9 - first.bit_length()
    if more > 8:
        raise ValueError("no length")
    value = int.from_bytes(head[width : width + more], "big") & ((1 << 7 * more) - 1)
    unknown = value == (1 << 7 * more) - 1
    return kind, place + width + more, None if unknown else value


def _size(file: BinaryIO) -> int:
    return file.seek(0, os.SEEK_END)
