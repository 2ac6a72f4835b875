"""Lists of labelled videos, one ``path label`` a line, as Kinetics lists are written.

The separator may be a space, a comma or a tab; the label is what stands after the last one, so a
path may hold spaces, or commas when quoted or not. A header line and blank lines are skipped. A
path may name a video file or a folder of its frames.
"""

from __future__ import annotations

import os
import re
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from videonet.data.datasets.arrays import MultiHot, PathArray
from videonet.data.datasets.named_labels import ClassNames, guess_names, is_head, unquoted
from videonet.data.texts import lines_of, read_text
from videonet.errors import DataError
from videonet.terminal import ShortRepr

if TYPE_CHECKING:
    from videonet.data.targets import Annotations

SHARDS = ".shards"  # ending of a list of tar files
SEPARATORS = (" ", "\t", ",")
BEGINNING = 1 << 16  # characters of a list that show how it is written
LONGEST_NUMBER = 18  # digits of a label
# The label at the end of a line, quoted or not, with what separates it from the path.
_NUMBER = re.compile(r"[ ,\t]\s*(?P<quote>[\"']?)(?P<label>-?\d{1,9})(?P=quote)$")


@dataclass(frozen=True, repr=False)
class VideoList(ShortRepr):
    """Videos and the classes they belong to; ``name`` is the file they were read from.

    ``root`` is the folder that the names of its videos start from; ``annotations`` is what the
    data set knows of the videos beside their labels, None for nothing.
    """

    name: str
    paths: PathArray
    labels: np.ndarray | MultiHot  # (videos,) int64, or sets of labels
    root: str = ""
    annotations: Annotations | None = None

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def is_multi_label(self) -> bool:
        return isinstance(self.labels, MultiHot)

    def classes_of(self, index: int) -> list[int]:
        """The labels of one video, one or several."""
        if isinstance(self.labels, MultiHot):
            return self.labels.labels(index)
        return [int(self.labels[index])]


def read_list(
    path: str | os.PathLike[str],
    num_classes: int,
    *,
    prefix: str = "",
    separator: str = " ",
    multi_label: bool = False,
    names: Sequence[str] = (),
    numbers: bool = True,
) -> VideoList:
    """Read a list of ``path label`` lines; relative paths start at ``prefix``, else at its folder.

    A label is the number of a class (unless ``numbers`` is False) or, where ``names`` gives those
    of the classes, its name.

    ``separator`` is tried first, then space, tab and comma. With ``multi_label`` all integers at
    the end of a line are labels (``clip.mp4 3 17``, ``clip.mp4 "3,17"``, ``clip.mp4 ""``: none).
    Raises DataError, naming file and line, for a list that is missing or empty, a line without a
    label, a label that is no integer in ``0 … num_classes - 1``, and videos that are not there.
    """
    path = Path(path)
    split = _split_labels if multi_label else _split
    classes = ClassNames(names)

    def fields(k: int, line: str, separator: str) -> tuple[str, list[str]]:
        pair = classes.split(line, several=multi_label)
        if pair is None:
            video, written = split(path, k, line, separator)
            if not numbers and written and all(map(_is_integer, written)):
                raise DataError(
                    f"{path}, line {k}: the label in {line[:200]!r} is a number, but the labels of "
                    "the training list are names, so nothing says which class it is: give "
                    "DATA.CLASS_NAMES, a file with one name a line, or use names everywhere"
                )
            return video, written
        return pair

    lines = _lines(path, separator, classes)
    rows = [(k, *fields(k, line, separator)) for k, line, separator in lines]
    root = Path(prefix) if prefix else path.parent
    videos = [os.path.join(root, video) for _, video, _ in rows]
    labels: np.ndarray | MultiHot
    if multi_label:
        sets = [
            sorted({_label(path, line, label, num_classes, names) for label in written})
            for line, _, written in rows
        ]
        labels = MultiHot(sets, num_classes)
    else:
        labels = np.array(
            [_label(path, line, label, num_classes, names) for line, _, (label,) in rows],
            dtype=np.int64,
        )
    listed = [video for _, video, _ in rows]
    check_exist(path, videos, [f"line {line}" for line, _, _ in rows], _prefix_hint(listed, root))
    return VideoList(str(path), PathArray(videos), labels, str(root))


def read_paths(path: Path) -> list[tuple[str, int | None]]:
    """The videos of a list with the number at the end of their line, None where there is none.

    Lines are paths, or paths and labels. Nothing says here how many classes there are, or that a
    video exists; relative paths start at the list's folder.

    Raises:
        DataError: the list cannot be read.
    """
    lines = [line.strip() for line in lines_of(read_text(path, "list of videos", names=True))]
    found = [_path_and_number(path.parent, line) for line in lines if line]
    # A header is a first line whose words are no file: "path label".
    if len(found) > 1 and not Path(found[0][0]).suffix and found[0][1] is None:
        found = found[1:] if not os.path.exists(found[0][0]) else found
    return found


def _path_and_number(folder: Path, line: str) -> tuple[str, int | None]:
    if os.path.isfile(folder / line):
        return str(folder / line), None
    match = _NUMBER.search(line, max(0, len(line) - 40))
    path = line[: match.start()].rstrip(" ,\t") if match else line
    return str(folder / unquoted(path)), int(match["label"]) if match else None


def has_named_labels(path: Path, separator: str, several: bool) -> bool:
    """Whether the labels of a list are names; looks at its beginning.

    Those in tar files are numbers. Raises DataError for a list that is missing or empty.
    """
    if path.suffix == SHARDS:
        return False
    _, first, found = _lines(path, separator, most=BEGINNING)[0]
    return not all(map(_is_integer, _written_labels(path, first, found, several)))


def label_texts(path: Path, separator: str, several: bool) -> list[str]:
    """The labels of all lines of a list as they are written, where nobody has named the classes.

    Raises DataError for a list that is missing or empty, or mixes numbers and names.
    """
    lines = _lines(path, separator)
    if has_named_labels(path, separator, several):
        guessed = guess_names([line for _, line, _ in lines], separator, several=several)
        return [label for row in guessed for label in row]
    split = _split_labels if several else _split
    rows = [(k, split(path, k, line, found)[1]) for k, line, found in lines]
    labels = [(k, label) for k, row in rows for label in row]
    for k, label in labels:
        if not _is_integer(label):
            raise DataError(f"{path}, line {k}: the label {shortened(label)} is not an integer")
        number_of(path, k, label)
    return [label for _, label in labels]


def _written_labels(path: Path, line: str, separator: str, several: bool) -> list[str]:
    try:
        return (_split_labels if several else _split)(path, 0, line, separator)[1]
    except DataError:  # no numbers at its end
        return [line]


def _lines(
    path: Path, separator: str, names: Container[str] = (), most: int = -1
) -> list[tuple[int, str, str]]:
    """(line number, text, separator) of every line that names a video."""
    text = read_text(path, "list of videos", names=True)[: most if most >= 0 else None]
    lines = [(k, line.strip()) for k, line in enumerate(lines_of(text), 1) if line.strip()]
    separator = _detect(lines, separator)
    if lines and _is_header(lines[0][1], separator, lines[1:2], names):
        lines = lines[1:]
    if not lines:
        raise DataError(f"{path}: the list is empty, expected lines of the form 'path label'")
    return [(k, line, separator) for k, line in lines]


def _detect(lines: list[tuple[int, str]], preferred: str) -> str:
    """The separator that splits an integer, quoted or not, from the end of a first line."""
    for _, line in lines[:2]:  # the first may be a header
        for separator in (preferred, *SEPARATORS):
            video, found, label = line.rpartition(separator)
            if found and _is_integer(_bare(label)) and not video.endswith(("\t", ",")):
                return separator
    return preferred


def _bare(word: str) -> str:
    """A word without spaces and the quotes that a table program put around it."""
    return unquoted(word.strip()).strip()


def _is_header(
    line: str, separator: str, after: list[tuple[int, str]], names: Container[str]
) -> bool:
    """Two words, neither a file name nor a number: ``path label``, ``video,class``.

    Where labels are names, so that every line may look like that, the last is a word for labels.
    """
    if after and not _is_integer(_bare(after[0][1].rpartition(separator)[2])):
        return is_head(line, names)
    names = [_bare(name) for name in line.split(separator)]
    return len(names) >= 2 and all(name.isidentifier() for name in names)


def _split(path: Path, line: int, text: str, separator: str) -> tuple[str, list[str]]:
    """Path and label of a line: the label is what stands behind the last separator."""
    video, found, label = text.rpartition(separator)
    video, label = video.strip(), label.strip()
    if not found or not video:
        raise DataError(
            f"{path}, line {line}: no label in {text!r}, expected 'path label' separated by "
            f"{separator!r}"
        )
    return unquoted(video), [_bare(label)]


def _split_labels(path: Path, line: int, text: str, separator: str) -> tuple[str, list[str]]:
    """Path and labels of a line: the labels are the integers at its end, quoted or not."""
    gaps = rf"\s,;{re.escape(separator)}"
    start = text.rfind(text[-1], 0, -1) if text[-1] in "\"'" else -1
    quoted = text[start + 1 : -1]
    if start > 0 and not _is_integer(quoted) and re.fullmatch(r"[\d\s,;]*", quoted):
        video, labels = text[:start], re.findall(r"\d+", quoted)
    else:
        words = list(re.finditer(rf"[^{gaps}]+", text))
        labels = []
        while len(words) > 1 and _is_integer(_bare(words[-1][0])):
            labels.append(_bare(words.pop()[0]))
        video = text[: words[-1].end()] if labels else ""
    video = video.rstrip(f" \t,;{separator}")
    if not video:
        raise DataError(
            f"{path}, line {line}: no labels in {text[:200]!r}, expected 'path label label …' "
            f"separated by {separator!r}"
        )
    return unquoted(video), labels


def _label(path: Path, line: int, text: str, num_classes: int, names: Sequence[str] = ()) -> int:
    if not _is_integer(text):
        known = " and no name of a class" if names else ""
        alike = {name.casefold(): name for name in names}.get(text.strip().casefold())
        near = f"; did you mean {alike!r}?" if alike else ""
        raise DataError(
            f"{path}, line {line}: the label {shortened(text)} is not an integer{known}{near}"
        )
    label = number_of(path, line, text)
    if not 0 <= label < num_classes:
        raise DataError(
            f"{path}, line {line}: the label {label} is outside 0 … {num_classes - 1} "
            f"(MODEL.NUM_CLASSES is {num_classes})"
        )
    return label


def number_of(path: Path, line: int, text: str) -> int:
    """The number of a class. Raises DataError for one that no data set has."""
    if len(text.strip()) > LONGEST_NUMBER:
        raise DataError(
            f"{path}, line {line}: the label {shortened(text)} is no number that a class has"
        )
    return int(text)


def shortened(text: str, most: int = 60) -> str:
    """A text in quotes, cut where it is long."""
    return repr(text if len(text) <= most else f"{text[:most]}…")


def _is_integer(text: str) -> bool:
    text = text.strip().removeprefix("-")
    return text.isascii() and text.isdigit()


def _prefix_hint(names: list[str], root: Path) -> str:
    """Where relative paths of a list start, for a message about missing ones."""
    relative = next((name for name in names if not os.path.isabs(name)), None)
    if relative is None:
        return ""
    here = "; from the working folder it exists: set DATA.PATH_PREFIX to ."
    found = here if os.path.exists(relative) else ""
    return f"; relative paths start at {root}, or at DATA.PATH_PREFIX where that is given{found}"


def check_exist(path: Path, videos: Sequence[str], places: Sequence[str], hint: str = "") -> None:
    """Refuse a list with missing videos; looks into each folder once, not at each file.

    ``hint`` ends the message.
    """
    folders: dict[str, set[str]] = {}
    missing = []
    for place, video in zip(places, videos, strict=True):
        folder, name = os.path.split(video.rstrip("/"))
        if folder not in folders:
            folders[folder] = set(os.listdir(folder)) if os.path.isdir(folder) else set()
        if name not in folders[folder]:
            missing.append((place, video))
    if missing:
        place, video = missing[0]
        count = f"{len(missing)} of {len(videos)} videos are missing"
        raise DataError(f"{path}, {place}: there is no video {video} ({count}){hint}")
