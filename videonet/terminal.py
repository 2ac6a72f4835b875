r"""What reaches a terminal, a log or a picture: names of files and classes come from anybody.

A name may hold what steers a terminal (its title, its colours, what it types), another line of a
log, or what turns the direction of writing. :func:`printable` shows all that as ``\x1b``.
"""

from __future__ import annotations

import copy
import logging
import os
from pathlib import Path

LOG_FORMAT = "%(asctime)s %(levelname)s %(message)s"


def printable(name: str) -> str:
    r"""A name as a terminal may show it: what is no letter, sign or space becomes ``\x1b``."""
    return "".join(letter if letter.isprintable() else _escaped(letter) for letter in name)


def printable_lines(text: str) -> str:
    """The same of a text that has lines of its own."""
    return "\n".join(map(printable, text.split("\n")))


def _escaped(letter: str) -> str:
    code = ord(letter)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name that is no UTF-8
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


class PrintableFormatter(logging.Formatter):
    """Log records without what would steer a terminal; names in them begin no line."""

    def format(self, record: logging.LogRecord) -> str:
        arguments = record.args
        if isinstance(arguments, tuple):
            record = copy.copy(record)
            record.args = tuple(map(_one_line, arguments))
        return printable_lines(super().format(record))


def _one_line(value: object) -> object:
    """Names and errors in one line; numbers, and reports of several lines, as they are."""
    if isinstance(value, os.PathLike | BaseException):
        value = str(value)
    return printable(value) if isinstance(value, str) else value


def start_logging(folder: Path | None = None, *, main: bool = True) -> None:
    """Log to stderr, and of a run to its ``log.txt`` too.

    Args:
        folder: of the run; None for stderr alone.
        main: False for warnings alone, on stderr: on other processes than the first, and in
            commands whose output is their result.
    """
    handlers: list[logging.Handler] = [logging.StreamHandler()]
    if folder is not None and main:
        folder.mkdir(parents=True, exist_ok=True)
        handlers.append(
            logging.FileHandler(folder / "log.txt", encoding="utf-8", errors="backslashreplace")
        )
    level = logging.INFO if main else logging.WARNING
    for handler in handlers:
        handler.setFormatter(PrintableFormatter(LOG_FORMAT))
    logging.basicConfig(level=level, handlers=handlers, force=True)
