"""Text files written by people and programs: one rule for reading them.

UTF-8, with a mark at the start or without, and UTF-16 with its mark are read. Another encoding
(GBK, Latin-1) cannot be told from a wrong one, so it is refused in one sentence, unless the text
may name files: then bytes that are no UTF-8 survive, as the names of files need them.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from videonet.errors import DataError

LONGEST_NAME = 200  # bytes; file systems take 255, and programs add endings
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_LINE_ENDS = ("\r\n", "\r")


def read_text(path: str | os.PathLike[str], what: str = "file", *, names: bool = False) -> str:
    """The text of a file.

    Args:
        what: what the file is, for the messages: "list of videos", "class names".
        names: it may name files, whose bytes need not be UTF-8.

    Raises:
        DataError: it is missing, cannot be read, or is in another encoding.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise DataError(f"{path}: it is no file, expected a {what}")
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such {what}") from None
    except OSError as error:
        raise DataError(f"{path}: the {what} cannot be read: {error.strerror}") from None
    return decode_text(content, path, what, names=names)


def decode_text(content: bytes, path: Path, what: str = "file", *, names: bool = False) -> str:
    """The text of bytes, see :func:`read_text`; ``path`` is where they come from."""
    try:
        if content.startswith(_UTF16):
            return content.decode("utf-16")
        if b"\0" in content:
            raise DataError(
                f"{path}: the {what} holds zero bytes, as UTF-16 without a mark does; save it as "
                "UTF-8"
            )
        return content.decode("utf-8-sig", errors="surrogateescape" if names else "strict")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path}, line {line}: not UTF-8 (byte 0x{content[error.start]:02x}); save it as UTF-8"
        ) from None


def lines_of(text: str) -> list[str]:
    """The lines of a text. Only line feeds end them, not what Unicode calls a line separator."""
    for end in _LINE_ENDS:
        text = text.replace(end, "\n")
    return text.removesuffix("\n").split("\n") if text else []


def read_json_lines(path: Path, what: str = "file") -> list[tuple[int, Any]]:
    """What the lines of a file hold, JSON each, with their numbers from 1 on.

    A last line that is cut short, as by what stopped its writer, is left out.

    Args:
        what: what the file is, for the messages.

    Raises:
        DataError: it cannot be read, or a line before the last is not JSON.
    """
    found = []
    lines = lines_of(read_text(path, what))
    for number, line in enumerate(lines, start=1):
        try:
            found.append((number, json.loads(line)))
        except (ValueError, RecursionError):
            if number < len(lines):
                raise DataError(f"{path}, line {number}: not JSON") from None
    return found


def json_line(record: Mapping[str, Any]) -> str:
    """A record as a line of JSON, which :func:`read_json_lines` reads."""
    return json.dumps(record) + "\n"


def short_stem(stem: str) -> str:
    """What a name of a file made from another may begin with: long ones end in a digest."""
    encoded = os.fsencode(stem)
    if len(encoded) <= LONGEST_NAME:
        return stem
    digest = hashlib.blake2b(encoded, digest_size=8).hexdigest()
    # Half of a letter at the end is left out; bytes that were no UTF-8 before stay.
    start = encoded[: LONGEST_NAME - len(digest) - 1]
    while start and start[-1] & 0xC0 == 0x80:
        start = start[:-1]
    return f"{os.fsdecode(start[:-1])}-{digest}"
