"""Files of results: text for people, JSON lines, or CSV.

Results are written as soon as they are known. JSON lines and CSV can be continued: a file that
exists keeps its finished videos and gets those that are missing. Of a video that was not finished
JSON lines keep the windows, so that a long video goes on where it stopped; in CSV it begins again.
A second file (``x.jsonl.meta.json``) says which model and options made the results, and only
results of the same model and options are added.
"""

from __future__ import annotations

import contextlib
import csv
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from videonet.data.claims import Claim
from videonet.data.tables import rows_as_text, text_of
from videonet.data.texts import json_line, read_json_lines
from videonet.errors import ConfigError, DataError
from videonet.files import AppendedText, make_folder, remove_unfinished, writing
from videonet.tasks.segments import Segment
from videonet.tasks.task import Top
from videonet.terminal import printable


@dataclass(frozen=True)
class WindowResult:
    """What is written of one window.

    Numbers are rounded as they are written (times to four places, scores to six), so that a video
    which goes on with windows from a file ends with the same results as one that was not stopped.

    Attributes:
        index: number of the window, from 0.
        start: seconds from the first frame.
        end: seconds from the first frame.
        top: names and scores that are shown.
        scores: of all K outputs, in their order.
    """

    index: int
    start: float
    end: float
    top: Top
    scores: Sequence[float]


@dataclass(frozen=True)
class VideoResult:
    """What is written of a whole video.

    Attributes:
        top: names and scores that are shown.
        windows: the number of windows; 0 without a sliding window.
        segments: of the video; none without a sliding window.
    """

    top: Top
    windows: int = 0
    segments: Sequence[Segment] = ()


class ResultWriter(ABC):
    """Takes the results of one video after the other.

    Attributes:
        done: videos whose results the file already held.
    """

    done: frozenset[str] = frozenset()

    def unfinished(self, video: str) -> list[WindowResult]:
        """The windows that the file already holds of a video that it does not hold whole."""
        return []

    def window(self, video: str, result: WindowResult) -> None:
        """Write a window; the windows of a video come in their order."""
        return

    @abstractmethod
    def video(self, video: str, result: VideoResult) -> None:
        """Write a finished video."""

    @abstractmethod
    def failure(self, video: str, reason: str) -> None:
        """Write that a video failed, and why."""

    def close(self) -> None:
        """End writing."""
        return

    def __enter__(self) -> ResultWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class TextTable(ResultWriter):
    """Text for people: the scores that are shown of each video, then its segments."""

    def __init__(self, file: TextIO):
        self._file = file

    def video(self, video: str, result: VideoResult) -> None:
        """Write the scores that are shown and the segments."""
        lines = [video, *(f"{score:7.4f}  {name}" for name, score in result.top)]
        for s in result.segments:
            lines.append(f"{s.start:9.2f} – {s.end:9.2f} s  {s.score:6.4f}  {s.label}")
        self._write(lines)

    def failure(self, video: str, reason: str) -> None:
        """Write that a video failed, and why."""
        self._write([video, f"   failed  {reason}"])

    def _write(self, lines: Iterable[str]) -> None:
        self._file.write("".join(f"{printable(line)}\n" for line in lines))
        self._file.flush()


class _Continued(ResultWriter):
    """A file that a later run can continue.

    Args:
        path: the file.
        about: what the results depend on, JSON; kept in a file beside it and compared.
        overwrite: begin anew, whatever the file holds.

    Raises:
        ConfigError: another process writes to the file, or it is no regular file.
        DataError: it does not hold results, or those of another model or other options.
        WriteError: it cannot be written.
    """

    def __init__(self, path: Path, about: Mapping[str, Any], *, overwrite: bool = False):
        if path.exists() and not path.is_file():
            raise ConfigError(f"{path} is no file: results that can be continued need one")
        self._path, self._ranks = path, about.get("top_k", 1)
        self._classes = len(about["classes"]) if "classes" in about else None
        self._claim = Claim(description_path(path), path)
        try:
            if overwrite:
                with writing(path):
                    path.unlink(missing_ok=True)
            remove_unfinished(path.parent)
            lines = self._take_over()
            begun = path.exists() and path.stat().st_size > 0
            self._claim.settle(about, begun=begun)
            self._file = AppendedText(path, lines)
        except BaseException:
            self._claim.close()
            raise

    @abstractmethod
    def _take_over(self) -> Iterable[str]:
        """Read what the file holds.

        Returns:
            The lines to keep.
        """

    def close(self) -> None:
        """Close the file, and let other processes write to it."""
        self._file.close()
        self._claim.close()


class JsonLines(_Continued):
    """One JSON object a line.

    A window is ``{"video", "window", …}``, a finished video ``{"video", "top", …}``, and one that
    failed ``{"video", "error"}``.
    """

    def _take_over(self) -> Iterable[str]:
        kept: list[dict] = []
        self._unfinished: dict[str, list[WindowResult]] = {}
        for record in _json_records(self._path):
            if "window" in record:
                top = [(name, score) for name, score in record["top"]]
                result = WindowResult(
                    record["window"], record["start"], record["end"], top, record["scores"]
                )
                self._unfinished.setdefault(record["video"], []).append(result)
                kept.append(record)
            elif "error" not in record:  # what failed is tried again
                kept.append(record)
                self._unfinished.pop(record["video"], None)
        self.done = frozenset(record["video"] for record in kept if "window" not in record)
        return map(json_line, kept)

    def unfinished(self, video: str) -> list[WindowResult]:
        """The windows that the file held of a video that was not finished."""
        windows = self._unfinished.get(video, [])
        in_order = all(window.index == k for k, window in enumerate(windows))
        lengths = {len(window.scores) for window in windows}
        if not in_order or not lengths <= {self._classes or max(lengths, default=0)}:
            raise DataError(
                f"{self._path} does not hold the windows of {video} one after the other, with a "
                "score for each class: give another --output, or --overwrite to begin anew"
            )
        return windows

    def window(self, video: str, result: WindowResult) -> None:
        """Write the line of a window."""
        times = {"start": result.start, "end": result.end}
        top, scores = [list(pair) for pair in result.top], list(result.scores)
        self._write({"video": video, "window": result.index, **times, "top": top, "scores": scores})

    def video(self, video: str, result: VideoResult) -> None:
        """Write the line of a finished video."""
        top = [[name, round(score, 6)] for name, score in result.top]
        record: dict[str, Any] = {"video": video, "top": top}
        if result.windows:
            record |= {"windows": result.windows, "segments": [asdict(s) for s in result.segments]}
        self._write(record)

    def failure(self, video: str, reason: str) -> None:
        """Write the line of a video that failed."""
        self._write({"video": video, "error": reason})

    def _write(self, record: dict) -> None:
        self._file.append(json_line(record))


class CsvTable(_Continued):
    """Rows of the scores of videos, windows and segments.

    The column ``kind`` says which of these a row is, ``rank`` counts from 1. Texts that a
    spreadsheet would run as a formula are written as :mod:`videonet.data.tables` says.
    """

    HEADER = ("video", "kind", "start", "end", "rank", "label", "score", "error")

    def _take_over(self) -> Iterable[str]:
        kept = _csv_rows(self._path, self.HEADER, self._ranks)
        self.done = frozenset(row["video"] for row in kept)
        return [self._text([dict(zip(self.HEADER, self.HEADER, strict=True)), *kept])]

    def window(self, video: str, result: WindowResult) -> None:
        """Write the rows of a window."""
        self._write(self._rows(video, "window", result.top, result.start, result.end))

    def video(self, video: str, result: VideoResult) -> None:
        """Write the rows of a video's segments and of its scores."""
        rows = []
        for s in result.segments:
            rows += self._rows(video, "segment", [(s.label, s.score)], s.start, s.end)
        self._write(rows + self._rows(video, "video", result.top))

    def failure(self, video: str, reason: str) -> None:
        """Write the row of a video that failed."""
        self._write([{"video": video, "kind": "error", "error": reason}])

    def _rows(
        self, video: str, kind: str, top: Top, start: float | None = None, end: float | None = None
    ) -> list[dict]:
        times = ["" if time is None else f"{time:.4f}" for time in (start, end)]
        rows = []
        for rank, (label, score) in enumerate(top, start=1):
            row = (video, kind, *times, rank, label, f"{score:.6f}", "")
            rows.append(dict(zip(self.HEADER, row, strict=True)))
        return rows

    def _text(self, rows: Iterable[dict]) -> str:
        return rows_as_text([row.get(key, "") for key in self.HEADER] for row in rows)

    def _write(self, rows: list[dict]) -> None:
        self._file.append(self._text(rows))


TEXT_SUFFIXES = ("", "txt", "text", "log")
FORMATS: dict[str, type[JsonLines] | type[CsvTable]] = {"jsonl": JsonLines, "csv": CsvTable}


def description_path(path: Path) -> Path:
    """The file beside a result file that says what its results depend on."""
    return path.with_name(f"{path.name}.meta.json")


def open_results(
    path: Path | None,
    kind: str | None,
    stdout: TextIO,
    about: Mapping[str, Any] | None = None,
    *,
    overwrite: bool = False,
) -> ResultWriter:
    """A writer for a file or for the terminal.

    Args:
        path: the file; None to write text to `stdout`.
        kind: "text", "jsonl" or "csv"; None for what the file's suffix says, text where
            it has none.
        stdout: the terminal.
        about: what the results depend on, JSON, see :func:`~videonet.inference.description
            .describe_results`.
        overwrite: begin anew, whatever the file holds.

    Raises:
        ConfigError: a suffix of no format, a text file that is there already (it cannot be
            continued), or a format that needs a file.
        DataError: the file does not hold results, or those of another model or other options.
        WriteError: it cannot be written.
    """
    if path is None:
        if kind not in (None, "text"):
            raise ConfigError(f"results as {kind} need a file to be written to")
        return TextTable(stdout)
    suffix = path.suffix.removeprefix(".").lower()
    if kind is None and suffix not in (*FORMATS, *TEXT_SUFFIXES):
        raise ConfigError(
            f"{path}: results are written as .jsonl, .csv or .txt; --format says which where the "
            "file has another ending"
        )
    kind = kind or suffix
    make_folder(path.parent)
    if kind in FORMATS:
        return FORMATS[kind](path, about or {}, overwrite=overwrite)
    if path.exists() and not overwrite:
        raise ConfigError(
            f"{path} exists, and only .jsonl and .csv results can be continued: give another "
            "--output, or --overwrite to begin anew"
        )
    return _TextFile(path)


class _TextFile(TextTable):
    def __init__(self, path: Path):
        self._path = path
        with writing(path):
            super().__init__(open(path, "w", encoding="utf-8"))  # noqa: SIM115

    def _write(self, lines: Iterable[str]) -> None:
        with writing(self._path):
            super()._write(lines)

    def close(self) -> None:
        with contextlib.suppress(OSError):  # what a full disk did not take was reported
            self._file.close()


def _json_records(path: Path) -> Iterable[dict]:
    if not path.exists():
        return
    for number, record in read_json_lines(path, "results"):
        if not _is_record(record):
            raise DataError(f"{path}, line {number}: no result of a prediction")
        yield record


def _is_record(record: Any) -> bool:
    """Whether a line is one of those that :class:`JsonLines` writes."""
    if not isinstance(record, dict) or not isinstance(record.get("video"), str):
        return False
    if "window" in record:
        start, end, scores = (record.get(key) for key in ("start", "end", "scores"))
        return (
            type(record["window"]) is int
            and isinstance(scores, list)
            and all(map(_is_number, (start, end, *scores)))
            and _is_top(record.get("top"))
        )
    return "error" in record or _is_top(record.get("top"))


def _is_top(value: Any) -> bool:
    """Whether a value lists classes with their scores."""
    return isinstance(value, list) and all(
        isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str)
        and _is_number(pair[1])
        for pair in value
    )  # fmt: skip


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _csv_rows(path: Path, header: Sequence[str], ranks: int) -> list[dict]:
    """The rows of finished videos: those with a row for each of the `ranks` scores."""
    if not path.exists() or not path.stat().st_size:
        return []
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        table = csv.DictReader(file)
        if tuple(table.fieldnames or ()) != tuple(header):
            raise DataError(f"{path}, line 1: expected the columns {', '.join(header)}")
        try:
            rows = [row for row in table if all(isinstance(v, str) for v in row.values())]
        except csv.Error as error:
            raise DataError(f"{path}, line {table.line_num}: {error}") from None
    rows = [{key: text_of(value) for key, value in row.items()} for row in rows]
    found = Counter(row["video"] for row in rows if row["kind"] == "video")
    return [row for row in rows if row["kind"] != "error" and found[row["video"]] >= ranks]
