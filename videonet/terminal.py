"""What reaches a terminal, a log or a picture: names of files and classes come from anybody.

A name may hold what steers a terminal (its title, its colours, what it types), another line of a
log, or what turns the direction of writing. :func:`printable` shows all that as ``\\x1b``.
"""

from __future__ import annotations

import copy
import logging
import os


def printable(name: str) -> str:
    """A name as a terminal may show it: what is no letter, sign or space becomes ``\\x1b``."""
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
        if isinstance(record.args, tuple):
            record = copy.copy(record)
            record.args = tuple(map(_one_line, record.args))
        return printable_lines(super().format(record))


def _one_line(value: object) -> object:
    """Names and errors in one line; numbers, and reports of several lines, as they are."""
    if isinstance(value, os.PathLike | BaseException):
        value = str(value)
    return printable(value) if isinstance(value, str) else value
