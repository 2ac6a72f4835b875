"""Results as they come: a table for people, JSON lines, or CSV.

JSON lines and CSV are flushed per window and video, and writing to a file that is there goes on
with it: what it holds of finished videos stays. Of a video that was not finished JSON lines keep
the windows, so that a long one goes on where it stopped; in CSV it begins again.
"""

from __future__ import annotations

import csv
import io
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from videonet.data.texts import lines_of, printable, read_text
from videonet.errors import ConfigError, DataError
from videonet.predict.segments import Segment

Top = list[tuple[str, float]]


@dataclass(frozen=True)
class WindowResult:
    """Scores of one window; ``scores`` has all K classes in their order."""

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


class JsonLines(ResultWriter):
    """One JSON object a line: ``{"video", "window", …}`` per window and ``{"video", "top", …}``
    per finished video, or ``{"video", "error"}``."""

    def __init__(self, path: Path):
        kept, self._unfinished = [], {}
        for record in _json_records(path):
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
        _rewrite(path, (json.dumps(record) + "\n" for record in kept))
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115

    def unfinished(self, video: str) -> list[WindowResult]:
        return self._unfinished.get(video, [])

    def window(self, video: str, result: WindowResult) -> None:
        top = [[name, round(score, 6)] for name, score in result.top]
        scores = [round(score, 6) for score in result.scores]
        times = {"start": round(result.start, 4), "end": round(result.end, 4)}
        self._write({"video": video, "window": result.index, **times, "top": top, "scores": scores})

    def video(self, video: str, result: VideoResult) -> None:
        record = {"video": video, "top": [[name, round(score, 6)] for name, score in result.top]}
        if result.windows:
            record |= {"windows": result.windows, "segments": [asdict(s) for s in result.segments]}
        self._write(record)

    def failure(self, video: str, reason: str) -> None:
        self._write({"video": video, "error": reason})

    def _write(self, record: dict) -> None:
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class CsvTable(ResultWriter):
    """Rows of a video's scores, windows and segments; ``kind`` says which, ``rank`` is from 1."""

    HEADER = ("video", "kind", "start", "end", "rank", "label", "score", "error")

    def __init__(self, path: Path):
        kept = [row for row in _csv_rows(path, self.HEADER) if row["kind"] != "error"]
        self.done = frozenset(row["video"] for row in kept)
        _rewrite(path, [self._text([dict(zip(self.HEADER, self.HEADER, strict=True)), *kept])])
        self._file = open(  # noqa: SIM115
            path, "a", newline="", encoding="utf-8", errors="surrogateescape"
        )

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
        buffer = io.StringIO()
        csv.DictWriter(buffer, self.HEADER, lineterminator="\n").writerows(rows)
        return buffer.getvalue()

    def _write(self, rows: list[dict]) -> None:
        self._file.write(self._text(rows))
        self._file.flush()

    def close(self) -> None:
        self._file.close()


FORMATS = {"jsonl": JsonLines, "csv": CsvTable}


def open_results(path: Path | None, kind: str | None, stdout: TextIO) -> ResultWriter:
    """The writer for a file, or for `stdout` where `path` is None.

    Args:
        kind: "text", "jsonl" or "csv"; None for what the file's suffix says, else text.

    Raises:
        ConfigError: a text file that is there already (it cannot be continued), or a format that
            needs a file.
        DataError: the file holds something else than such results.
    """
    if path is None:
        if kind not in (None, "text"):
            raise ConfigError(f"results as {kind} need a file to be written to")
        return TextTable(stdout)
    kind = kind or path.suffix.removeprefix(".").lower()
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind in FORMATS:
        return FORMATS[kind](path)
    if path.exists():
        raise ConfigError(f"{path} exists, and only .jsonl and .csv results can be continued")
    return _TextFile(path)


class _TextFile(TextTable):
    def __init__(self, path: Path):
        super().__init__(open(path, "w", encoding="utf-8"))  # noqa: SIM115

    def close(self) -> None:
        self._file.close()


def _json_records(path: Path) -> Iterable[dict]:
    if not path.exists():
        return
    lines = lines_of(read_text(path, "results"))
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if isinstance(record, dict) and "video" in record:
            yield record
        elif number < len(lines):  # the last line may be cut short by what stopped the run
            raise DataError(f"{path}, line {number}: no result of a prediction")


def _csv_rows(path: Path, header: Sequence[str]) -> list[dict]:
    """The rows of finished videos."""
    if not path.exists() or not path.stat().st_size:
        return []
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        table = csv.DictReader(file)
        if tuple(table.fieldnames or ()) != tuple(header):
            raise DataError(f"{path}, line 1: expected the columns {', '.join(header)}")
        rows = [row for row in table if all(value is not None for value in row.values())]
    finished = {row["video"] for row in rows if row["kind"] == "video"}
    return [row for row in rows if row["video"] in finished]


def _rewrite(path: Path, lines: Iterable[str]) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    with open(temporary, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.writelines(lines)
    os.replace(temporary, path)
