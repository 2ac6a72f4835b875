r"""What reaches a terminal, a log or a picture: names of files and classes come from anybody.

A name may hold what steers a terminal (its title, its colours, what it types), another line of a
log, or what turns the direction of writing. :func:`printable` shows all that as ``\x1b``.
"""

from __future__ import annotations

import copy
import logging
import math
import os
import sys
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from tqdm import tqdm

LINE_SECONDS = 30.0  # between two lines of progress, where no terminal shows a bar
LINE_FORMAT = "{desc}: {n_fmt} of {total_fmt} {unit} after {elapsed}, {remaining} to go{postfix}"
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


class ShortRepr:
    """Gives a dataclass with ``repr=False`` one in which arrays and tensors are their shapes."""

    def __repr__(self) -> str:
        names = getattr(self, "__dataclass_fields__", {})
        fields = ", ".join(f"{name}={_shortly(getattr(self, name))}" for name in names)
        return f"{type(self).__name__}({fields})"


def _shortly(value: Any) -> str:
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is not None and dtype is not None:
        return f"<{' x '.join(map(str, shape)) or 'one'} of {dtype}>"
    return repr(value)


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


def start_logging(folder: Path | None = None, *, main: bool = True, quiet: bool = False) -> None:
    """Log to stderr, and of a run to its ``log.txt`` too.

    Args:
        folder: of the run; None for stderr alone.
        main: False for warnings alone, on stderr: on other processes than the first, and in
            commands whose output is their result.
        quiet: warnings alone on stderr; the run's ``log.txt`` holds everything all the same.
    """
    handlers: list[logging.Handler] = [logging.StreamHandler()]
    if folder is not None and main:
        folder.mkdir(parents=True, exist_ok=True)
        handlers.append(
            logging.FileHandler(folder / "log.txt", encoding="utf-8", errors="backslashreplace")
        )
    handlers[0].addFilter(lambda record: not getattr(record, "for_the_file", False))
    if quiet:
        handlers[0].setLevel(logging.WARNING)
    level = logging.INFO if main else logging.WARNING
    for handler in handlers:
        handler.setFormatter(PrintableFormatter(LOG_FORMAT))
    logging.basicConfig(level=level, handlers=handlers, force=True)


class _Lines:
    """What tqdm writes, as lines of their own: a log file has no line that is drawn over."""

    def __init__(self, stream: TextIO):
        self._stream, self._last, self._next = stream, "", -math.inf

    def write(self, text: str) -> int:
        line = text.strip("\r\n ")
        if line and line != self._last and time.monotonic() >= self._next:
            self._last, self._next = line, time.monotonic() + LINE_SECONDS
            self._stream.write(f"{line}\n")
        return len(text)

    def flush(self) -> None:
        self._stream.flush()


def progress_bar(
    items: Iterable[Any] | None = None, *, show: bool = True, **options: Any
) -> tqdm[Any]:
    """A bar on a terminal; a line every ``LINE_SECONDS`` where stderr is a file or a pipe.

    Args:
        items: what is counted as it is taken; None where ``update`` counts.
        show: False for neither.
        **options: of ``tqdm``: total, initial, desc, unit and others.
    """
    from tqdm import tqdm  # --help does without it

    if show and not sys.stderr.isatty():
        lines = {"file": _Lines(sys.stderr), "bar_format": LINE_FORMAT, "leave": True}
        seconds = {"mininterval": LINE_SECONDS, "maxinterval": LINE_SECONDS, "delay": LINE_SECONDS}
        options = {**options, **lines, **seconds}
    elif show and not _has_size(sys.stderr):
        options = {"ncols": 80, "nrows": 24, **options}
    return tqdm(items, disable=not show, **options)


def _has_size(terminal: TextIO) -> bool:
    """Whether a terminal knows how many columns and rows it has; those of some services do not."""
    try:
        return 0 not in os.get_terminal_size(terminal.fileno())
    except OSError:  # no file, or none of a terminal
        return False


def logs_above_bars() -> AbstractContextManager[None]:
    """Within, log records on the terminal appear above the bars and leave them whole."""
    from tqdm.contrib.logging import logging_redirect_tqdm

    return logging_redirect_tqdm()
