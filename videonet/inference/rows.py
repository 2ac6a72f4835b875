"""Rows of bulk runs, in Parquet files of which each is written whole.

A row is a video, or a window of one. :class:`Parts` takes rows in any order, some of them twice, as
machines that fail give them, and writes each once; the windows of a video in their order.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from torch import Tensor

from videonet.data.claims import Claim
from videonet.errors import DataError, ScoreError
from videonet.files import make_folder, remove_unfinished, replacing
from videonet.inference.predictor import Predictor

DESCRIPTION = "bulk.json"
PART_ROWS = 4096
PART_SECONDS = 60.0  # a stop costs the rows of so long at most
SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("fingerprint", pa.string()),
        ("window", pa.int32()),  # its number; 0 without a sliding window
        ("start", pa.float64()),  # seconds
        ("end", pa.float64()),
        ("last", pa.bool_()),  # nothing of the video follows
        ("labels", pa.list_(pa.string())),  # the best, in their order
        ("values", pa.list_(pa.float32())),  # their scores
        ("scores", pa.list_(pa.float32())),  # of all outputs
        ("embedding", pa.list_(pa.float32())),
        ("error", pa.string()),  # why the video, or the rest of it, has no scores
    ]
)


def scored_row(
    predictor: Predictor, outputs: Tensor, embeddings: Tensor, top_k: int
) -> dict[str, Any]:
    """What the model says of the views of a video, or the crops of a window.

    Args:
        predictor: has the task.
        outputs: (N, K) of the clips.
        embeddings: (N, C) of the clips.
        top_k: the most outputs that are named.

    Returns:
        The columns from ``labels`` on; where numbers are not finite, that is the error.
    """
    try:
        predictor.refuse_infinite(outputs, embeddings)
    except ScoreError as error:
        return {"error": str(error)}
    scores = predictor.task.join_views(outputs)
    top = predictor.top(scores, top_k)
    return {
        "labels": [name for name, _ in top],
        "values": [value for _, value in top],
        "scores": scores.tolist(),
        "embedding": embeddings.mean(dim=0).tolist(),
    }


def as_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows as :data:`SCHEMA` has them; a column that a row lacks is null."""
    return pa.Table.from_pylist([dict(row) for row in rows], schema=SCHEMA)


class Parts:
    """A folder of Parquet files that a later run goes on with.

    Videos that failed in an earlier run are tried again: their rows are taken out of its files.

    Args:
        folder: is made where it is missing.
        about: what the rows depend on, JSON; kept in the folder and compared.
        overwrite: begin anew, whatever the folder holds.

    Raises:
        ConfigError: another process writes to the folder.
        DataError: it holds rows of something else, or files that are no such rows.
        WriteError: it cannot be written.

    Attributes:
        done: the videos that it holds whole.
        following: of the others that it holds rows of, number of the window that is missing.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any], *, overwrite: bool = False):
        self.folder = folder
        make_folder(folder)
        self._claim = Claim(folder / DESCRIPTION, folder)
        try:
            remove_unfinished(folder)
            parts = sorted(folder.glob("part-*.parquet"))
            if overwrite:
                for part in parts:
                    part.unlink()
                parts = []
            self._claim.settle(about, begun=bool(parts))
            self.done: set[str] = set()
            self.following: dict[str, int] = {}
            for part in parts:
                self._take_over(part)
        except BaseException:
            self._claim.close()
            raise
        self._number = 1 + max((int(part.stem.partition("-")[2]) for part in parts), default=-1)
        self._rows: list[pa.Table] = []
        self._since = time.monotonic()
        self._early: dict[str, dict[int, pa.Table]] = {}  # windows that came before others

    def _take_over(self, part: Path) -> None:
        try:
            table = pq.read_table(part, schema=SCHEMA)
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{part}: the rows cannot be read: {error}") from error
        good = table.filter(pc.is_null(table["error"]))
        if len(good) < len(table):
            with replacing(part) as temporary:
                pq.write_table(good, temporary)
        for path, window, last in _keys(good):
            if last:
                self.done.add(path)
                self.following.pop(path, None)
            else:
                self.following[path] = window + 1

    def add(self, table: pa.Table) -> tuple[int, int, float]:
        """Take rows of :data:`SCHEMA`.

        Returns:
            How many videos they finish, how many of these have failed, and the seconds of video.
        """
        finished = failed = 0
        seconds = 0.0
        chosen: list[int] = []
        errors = pc.is_null(table["error"]).to_pylist()
        starts, ends = table["start"].to_pylist(), table["end"].to_pylist()
        for row, (path, window, last) in enumerate(_keys(table)):
            if path in self.done or window < self.following.get(path, 0):
                continue  # a machine that failed had sent it before
            if window > self.following.get(path, 0):
                self._early.setdefault(path, {})[window] = table.slice(row, 1)
                continue
            chosen.append(row)
            seconds += (ends[row] or 0.0) - (starts[row] or 0.0)
            failed += not errors[row]
            finished += self._note(path, window, last or not errors[row])
        if chosen:
            self._rows.append(table.take(chosen))
        for path in {table["path"][row].as_py() for row in chosen} & self._early.keys():
            early = self._early[path].pop(self.following.get(path, 0), None)
            if path in self.done or not self._early[path]:
                del self._early[path]
            if early is not None:
                more = self.add(early)
                finished, failed = finished + more[0], failed + more[1]
                seconds += more[2]
        late = time.monotonic() - self._since > PART_SECONDS
        if late or sum(map(len, self._rows)) >= PART_ROWS:
            self.flush()
        return finished, failed, seconds

    def _note(self, path: str, window: int, last: bool) -> bool:
        if last:
            self.done.add(path)
            self.following.pop(path, None)
        else:
            self.following[path] = window + 1
        return last

    def flush(self) -> None:
        """Write the rows that are held as a file."""
        self._since = time.monotonic()
        if self._rows:
            with replacing(self.folder / f"part-{self._number:06d}.parquet") as temporary:
                pq.write_table(pa.concat_tables(self._rows), temporary)
            self._number += 1
            self._rows = []

    def __enter__(self) -> Parts:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.flush()
        finally:
            self._claim.close()


def _keys(table: pa.Table) -> zip[tuple[str, int, bool]]:
    columns = (table[name].to_pylist() for name in ("path", "window", "last"))
    return zip(*columns, strict=True)


def read_column(path: str, column: str) -> list[str]:
    """The paths in a column of a Parquet file.

    Raises:
        DataError: it cannot be read, or has no such column of texts.
    """
    try:
        names = pq.read_schema(path).names
        if column not in names:
            raise DataError(f"{path} has no column {column!r}, but {', '.join(names)}: --column")
        values = pq.read_table(path, columns=[column])[column].to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    wrong = next((row for row, value in enumerate(values) if not isinstance(value, str)), None)
    if wrong is not None:
        raise DataError(f"{path}, row {wrong}: expected a path in the column {column!r}")
    return values
