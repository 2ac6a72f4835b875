"""Results as they come: a table for people, JSON lines, or CSV.

JSON lines and CSV are flushed per window and video, and writing to a file that is there goes on
with it: what it holds of finished videos stays. Of a video that was not finished JSON lines keep
the windows, so that a long one goes on where it stopped; in CSV it begins again. What made the
results stands in a file beside them (``x.jsonl.meta.json``), and results of something else are
not added to them.
"""

from __future__ import annotations

import contextlib
import csv
import json
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from videonet.data.claims import Claim
from videonet.data.tables import rows_as_text, text_of
from videonet.data.texts import lines_of, read_text
from videonet.errors import ConfigError, DataError
from videonet.files import make_folder, remove_unfinished, replacing_text, writing
from videonet.inference.segments import Segment
from videonet.terminal import printable

Top = list[tuple[str, float]]


@dataclass(frozen=True)
class WindowResult:
    """Scores of one window; ``scores`` has all K classes in their order.

    Its numbers are those that are written, so that a video which goes on with windows of an
    earlier run ends as one that was not stopped: times of four places, scores of six.
    """

    index: int
    start: float  # seconds
    end: float
    top: Top
    scores: Sequence[float]


@dataclass(frozen=True)
class VideoResult:
    """Scores of a whole video; of windows and segments only where they were asked for."""

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
        """One window of a video, in their order."""
        return

    @abstractmethod
    def video(self, video: str, result: VideoResult) -> None:
        """A video is finished."""

    @abstractmethod
    def failure(self, video: str, reason: str) -> None:
        """A video cannot be read."""

    def close(self) -> None:
        """Nothing more comes."""
        return

    def __enter__(self) -> ResultWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class TextTable(ResultWriter):
    """Lines for people: the highest scores of each video, then its segments."""

    def __init__(self, file: TextIO):
        self._file = file

    def video(self, video: str, result: VideoResult) -> None:
        lines = [video, *(f"{score:7.4f}  {name}" for name, score in result.top)]
        for s in result.segments:
            lines.append(f"{s.start:9.2f} – {s.end:9.2f} s  {s.score:6.4f}  {s.label}")
        self._write(lines)

    def failure(self, video: str, reason: str) -> None:
        self._write([video, f"   failed  {reason}"])

    def _write(self, lines: Iterable[str]) -> None:
        self._file.write("".join(f"{printable(line)}\n" for line in lines))
        self._file.flush()


class _Continued(ResultWriter):
    """A file that a later run goes on with, beside the description of what made it.

    Args:
        path: the file.
        about: what the results depend on, JSON; a file that something else made is refused.
        overwrite: begin anew, whatever the file holds.

    Raises:
        ConfigError: another process writes to the file, or it is no regular file.
        DataError: it holds something else than such results, or those of something else.
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
            with replacing_text(path, newline="") as file:
                file.writelines(lines)
            with writing(path):
                self._file = open(  # noqa: SIM115
                    path, "a", newline="", encoding="utf-8", errors="surrogateescape"
                )
        except BaseException:
            self._claim.close()
            raise

    @abstractmethod
    def _take_over(self) -> Iterable[str]:
        """Note what the file holds, and return the lines that stay."""

    def _append(self, text: str) -> None:
        with writing(self._path):
            self._file.write(text)
            self._file.flush()

    def close(self) -> None:
        with contextlib.suppress(OSError):  # what a full disk did not take was reported
            self._file.close()
        self._claim.close()


class JsonLines(_Continued):
    """One JSON object a line: ``{"video", "window", …}`` per window and ``{"video", "top", …}``
    per finished video, or ``{"video", "error"}``."""

    def _take_over(self) -> Iterable[str]:
        kept, self._unfinished = [], {}
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
        return [json.dumps(record) + "\n" for record in kept]

    def unfinished(self, video: str) -> list[WindowResult]:
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
        times = {"start": result.start, "end": result.end}
        top, scores = [list(pair) for pair in result.top], list(result.scores)
        self._write({"video": video, "window": result.index, **times, "top": top, "scores": scores})

    def video(self, video: str, result: VideoResult) -> None:
        record = {"video": video, "top": [[name, round(score, 6)] for name, score in result.top]}
        if result.windows:
            record |= {"windows": result.windows, "segments": [asdict(s) for s in result.segments]}
        self._write(record)

    def failure(self, video: str, reason: str) -> None:
        self._write({"video": video, "error": reason})

    def _write(self, record: dict) -> None:
        self._append(json.dumps(record) + "\n")


class CsvTable(_Continued):
    """Rows of a video's scores, windows and segments; ``kind`` says which, ``rank`` is from 1.

    Texts that a spreadsheet would run are written as :mod:`videonet.data.tables` says.
    """

    HEADER = ("video", "kind", "start", "end", "rank", "label", "score", "error")

    def _take_over(self) -> Iterable[str]:
        kept = _csv_rows(self._path, self.HEADER, self._ranks)
        self.done = frozenset(row["video"] for row in kept)
        return [self._text([dict(zip(self.HEADER, self.HEADER, strict=True)), *kept])]

    def window(self, video: str, result: WindowResult) -> None:
        self._write(self._rows(video, "window", result.top, result.start, result.end))

    def video(self, video: str, result: VideoResult) -> None:
        rows = []
        for s in result.segments:
            rows += self._rows(video, "segment", [(s.label, s.score)], s.start, s.end)
        self._write(rows + self._rows(video, "video", result.top))

    def failure(self, video: str, reason: str) -> None:
        self._write([{"video": video, "kind": "error", "error": reason}])

    def _rows(
        self, video: str, kind: str, top: Top, start: float | None = None, end: float | None = None
    ) -> list[dict]:
        start, end = ("" if time is None else f"{time:.4f}" for time in (start, end))
        rows = []
        for rank, (label, score) in enumerate(top, start=1):
            row = (video, kind, start, end, rank, label, f"{score:.6f}", "")
            rows.append(dict(zip(self.HEADER, row, strict=True)))
        return rows

    def _text(self, rows: Iterable[dict]) -> str:
        return rows_as_text([row.get(key, "") for key in self.HEADER] for row in rows)

    def _write(self, rows: list[dict]) -> None:
        self._append(self._text(rows))


FORMATS = {"jsonl": JsonLines, "csv": CsvTable}


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
    """The writer for a file, or for `stdout` where `path` is None.

    Args:
        kind: "text", "jsonl" or "csv"; None for what the file's suffix says, else text.
        about: what the results depend on, JSON, see :func:`~videonet.inference.description
            .describe_results`.
        overwrite: begin anew, whatever the file holds.

    Raises:
        ConfigError: a text file that is there already (it cannot be continued), or a format that
            needs a file.
        DataError: the file holds something else than such results, or those of something else.
        WriteError: it cannot be written.
    """
    if path is None:
        if kind not in (None, "text"):
            raise ConfigError(f"results as {kind} need a file to be written to")
        return TextTable(stdout)
    kind = kind or path.suffix.removeprefix(".").lower()
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
    lines = lines_of(read_text(path, "results"))
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if _is_record(record):
            yield record
        elif number < len(lines):  # the last line may be cut short by what stopped the run
            raise DataError(f"{path}, line {number}: no result of a prediction")


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
    """The rows of finished videos, those with all `ranks` of their scores."""
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
