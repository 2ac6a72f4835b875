"""CSV tables whose cells hold names of files and classes, which come from anybody.

Spreadsheets run a cell that begins with ``=``, ``+``, ``-``, ``@``, a tab or a line's end as a
formula. Such a text gets a ``'`` before it, as people write it there themselves, and so does a text
that would then look like one; :func:`text_of` takes it away again.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from videonet.files import replacing_text

MARK = "'"
_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


def cell(value: Any) -> Any:
    """A value as a cell holds it; numbers stay."""
    if isinstance(value, str) and value.lstrip(MARK).startswith(_STARTS):
        return MARK + value
    return value


def text_of(cell: str) -> str:
    """The text that :func:`cell` was given."""
    if cell.startswith(MARK) and cell.lstrip(MARK).startswith(_STARTS):
        return cell.removeprefix(MARK)
    return cell


def rows_as_text(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as the lines of a table, each of which ends in a line feed."""
    buffer = io.StringIO()
    table = csv.writer(buffer, lineterminator="\n")
    quoted = csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in rows:
        cells = [cell(value) for value in row]
        # Readers end a line at a bare carriage return, and not all writers quote it; some take a
        # semicolon or a tab for the end of a cell that is not in quotes.
        special = any(isinstance(value, str) and set(value) & set("\r;\t") for value in cells)
        (quoted if special else table).writerow(cells)
    return buffer.getvalue()


def write_table(path: Path, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table in one step, with a row that names its columns first.

    Raises:
        WriteError: it cannot be written.
    """
    with replacing_text(path, newline="") as file:
        file.write(rows_as_text([head]))
        for row in rows:
            file.write(rows_as_text([row]))
