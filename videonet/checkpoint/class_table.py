"""Classes of a checkpoint and of a model by name, and a table between them."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from videonet.data.texts import read_text
from videonet.errors import CheckpointError, DataError

HEADER = ["from", "to"]


def plain_name(name: str) -> str:
    """A name as it is compared: small letters, single spaces, none of them underscores."""
    return " ".join(name.replace("_", " ").casefold().split())


def comparison(*lists: Sequence[str]) -> Callable[[str], str]:
    """How names of these lists are compared: plain, unless two names of one list become the same.

    Args:
        *lists: of names.
    """
    merges = any(len({plain_name(n) for n in names}) < len(set(names)) for names in lists)
    return str if merges else plain_name


def read_class_table(path: str | Path) -> dict[str, str]:
    """A table ``class of the checkpoint -> class of the model``.

    Args:
        path: CSV file of lines ``from,to``, with a line that says so or without; names with commas
            stand in quotes.

    Raises:
        DataError: it cannot be read, or a line has not two names, or names a class again.
    """
    table: dict[str, str] = {}
    reader = csv.reader(read_text(path, "table of classes").splitlines())
    for row in reader:
        cells = [cell.strip() for cell in row]
        if not any(cells) or (reader.line_num == 1 and cells == HEADER):
            continue
        where = f"{path}, line {reader.line_num}"
        if len(cells) != 2 or not all(cells):
            raise DataError(f"{where}: {','.join(row)!r} is no pair of classes, expected from,to")
        if table.setdefault(*cells) != cells[1]:
            raise DataError(f"{where}: the class {cells[0]!r} has been given before")
    if not table:
        raise DataError(f"{path} holds no pairs of classes, expected lines from,to")
    return table


def rows_by_name(
    here: Sequence[str], there: Sequence[str], table: Mapping[str, str] | None = None
) -> list[list[int]]:
    """For every class of a model, which classes of a checkpoint it begins with.

    Args:
        here: names of the model's classes.
        there: names of the checkpoint's.
        table: of other names, ``there -> here``; classes that it does not name keep theirs.

    Raises:
        CheckpointError: the table names a class that the checkpoint lacks.
    """
    plain = comparison(here, there)
    names = [plain(name) for name in there]
    if table:
        for name in table:
            if plain(name) not in names:
                raise CheckpointError(
                    f"the table of classes names {name!r}, which is no class of the checkpoint"
                )
        renamed = {plain(name): plain(new) for name, new in table.items()}
        names = [renamed.get(name, name) for name in names]
    places: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        places.setdefault(name, []).append(index)
    twice = len(set(here)) < len(here)  # as in ImageNet: the first here is the first there
    found = (places.get(plain(name), []) for name in here)
    return [[rows.pop(0)] if twice and rows else list(rows) for rows in found]
