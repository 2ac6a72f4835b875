"""Lists of videos whose labels are the names of the classes, ``clip.mp4 playing guitar``."""

from __future__ import annotations

import csv
import re
from collections.abc import Container, Iterable, Sequence

SEPARATORS = (" ", "\t", ",", ";")
QUOTES = "\"'"
HEADS = frozenset(  # last words of a header line
    ("label", "labels", "class", "classes", "category", "categories", "target", "targets", "name")
    + ("action", "activity", "class_name", "label_name")
)
WITH_SUFFIX = re.compile(r"(?P<path>[^\s].*?\.[A-Za-z0-9]{2,5}[\"']?)\s+(?P<labels>.+)")


class ClassNames:
    """Finds names of classes at the ends of lines.

    Names that are whole numbers are left out: a number in a list is the number of a class.
    """

    def __init__(self, names: Iterable[str] = ()):
        numbered = enumerate(names)
        self.numbers = {name: str(number) for number, name in numbered if not name.isdigit()}
        self._longest = max(map(len, self.numbers), default=0) + 2 * len(QUOTES)
        self._end_in_digits = any(name[-1].isdigit() for name in self.numbers)

    def __contains__(self, name: object) -> bool:
        return name in self.numbers

    def split(self, text: str, *, several: bool) -> tuple[str, list[str]] | None:
        """Path and numbers of the classes of a line that ends in names, None where it does not.

        The longest name counts, so names may hold spaces whatever the separator is.

        Args:
            several: a line may have several names, in quotes or not.
        """
        rest = text.strip()
        found: list[str] = []
        if not self.numbers or (rest[-1:].isdigit() and not self._end_in_digits):
            return None
        if several and rest[-1:] in QUOTES:
            start = rest.rfind(rest[-1], 0, -1)
            quoted = [part.strip() for part in re.split(r"[,;]", rest[start + 1 : -1])]
            if start > 0 and all(part in self.numbers for part in quoted):
                return _path(rest[:start]), [self.numbers[part] for part in quoted]
        while (pair := self._last_name(rest)) is not None:
            rest, name = pair
            found.insert(0, self.numbers[name])
            if not several:
                break
        return (_path(rest), found) if found and _path(rest) else None

    def _last_name(self, text: str) -> tuple[str, str] | None:
        """What stands before the longest name at the end of a text, and the name."""
        best, start = None, len(text)
        while True:
            start = max(text.rfind(mark, 0, start) for mark in SEPARATORS)
            if start <= 0 or len(text) - start - 1 > self._longest:
                return best
            name = text[start + 1 :].strip()
            for candidate in (name, name.strip(QUOTES)):
                if candidate in self.numbers:
                    best = text[:start].rstrip(" \t,;"), candidate


def guess_names(lines: Sequence[str], separator: str, *, several: bool) -> list[list[str]]:
    """The labels of lines whose classes are not known: what stands behind the path.

    A tab or comma in every line separates; otherwise the path ends at its suffix, or at the last
    space.
    """
    marks = [mark for mark in (separator, "\t", ",") if mark.strip() or mark == "\t"]
    mark = next((m for m in marks if all(m in line for line in lines)), None)
    found = []
    for line in lines:
        if mark is not None:
            fields = [field.strip() for field in _fields(line, mark) if field.strip()]
            labels = fields[1:] if several else fields[-1:]
        elif match := WITH_SUFFIX.fullmatch(line):
            labels = match["labels"].split() if several else [match["labels"]]
        else:
            labels = line.split()[1:] if several else line.split()[-1:]
        if several:
            labels = [part for label in labels for part in re.split(r"[,;]", label)]
        found.append([label.strip(f" {QUOTES}") for label in labels if label.strip(f" {QUOTES}")])
    return found


def _fields(line: str, mark: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=mark))
    except csv.Error:  # a field longer than a table has them
        return line.split(mark)


def is_head(line: str, names: Container[str]) -> bool:
    """Whether a first line is a header: it ends in a word for labels that is no class."""
    words = re.split(r"[\s,;]+", line.strip(f" {QUOTES}"))
    last = words[-1].strip(QUOTES)
    return len(words) >= 2 and last.lower() in HEADS and last not in names


def _path(text: str) -> str:
    return unquoted(text.rstrip(" \t,;"))


def unquoted(text: str) -> str:
    """A text without the quotes that a table program put around it."""
    if len(text) > 1 and text[0] == text[-1] and text[0] in QUOTES:
        return text[1:-1].replace(text[0] * 2, text[0])
    return text
