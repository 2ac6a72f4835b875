"""Bulk runs: a file that grows with every video is no way for millions of them; these write parts.

:func:`bulk_here` uses the processes of one machine, :mod:`videonet.inference.bulk_ray` those of a
cluster. Both decode with :class:`ClipReader` and compute with :class:`Scorer`, so both give the
same rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from videonet.inference.clips import Piece
from videonet.inference.description import describe_clips, describe_scoring
from videonet.inference.many import Action, Run
from videonet.inference.options import Options
from videonet.inference.predictor import Predictor
from videonet.inference.rows import Parts, as_table, scored_row
from videonet.inference.scoring import Scored


def describe_bulk(predictor: Predictor, options: Options) -> dict[str, Any]:
    """What the rows of a bulk run depend on; JSON."""
    top_k = min(options.top_k, len(predictor.class_names))
    return {**describe_scoring(predictor), **describe_clips(predictor, options), "top_k": top_k}


def bulk_here(
    predictor: Predictor,
    paths: Sequence[str],
    parts: Parts,
    options: Options,
    *,
    workers: int = 0,
    devices: Sequence[str] = (),
    progress: bool = True,
) -> int:
    """Write the rows of all files that `parts` does not hold, with the processes of this machine.

    Args:
        predictor: scores the files.
        paths: of the files.
        parts: takes the rows.
        options: which clips of a file.
        workers: processes that decode.
        devices: of copies of the model.
        progress: show a progress bar.

    Returns:
        The number of files that failed.
    """
    todo = [path for path in paths if path not in parts.done]

    def fail(path: str, reason: str) -> None:
        parts.add(as_table([failed_row(path, parts.following.get(path, 0), reason)]))

    run = Run(
        predictor,
        options,
        lambda number: _Rows(predictor, todo[number], parts, options),
        fail,
        workers=workers,
        devices=devices,
        ordered=False,
        progress=progress,
        marks=True,
    )
    return run.files(todo, len(paths))


def failed_row(path: str, window: int, reason: str) -> dict[str, Any]:
    """The row of a file that cannot be read, from a window on."""
    return {"path": path, "window": window, "last": True, "error": reason}


def located_rows(path: str, piece: Piece, sliding: bool) -> list[dict[str, Any]]:
    """The columns that say where the rows of a piece lie, without what the model says."""
    span = piece.span
    times = span.times
    if not sliding:
        times = [(min(start for start, _ in times), max(end for _, end in times))]
    ends = len(times) - 1
    return [
        {
            "path": path,
            "fingerprint": span.mark,
            "window": span.first + k,
            "start": start,
            "end": end,
            "last": span.last and k == ends,
        }
        for k, (start, end) in enumerate(times)
    ]


class _Rows:
    """Writes the rows of a file as its pieces come."""

    def __init__(self, predictor: Predictor, path: str, parts: Parts, options: Options):
        self.predictor, self.path, self.parts, self.options = predictor, path, parts, options
        self.first = parts.following.get(path, 0)

    def add(self, piece: Piece, scored: Scored) -> Action | None:
        rows = located_rows(self.path, piece, self.options.sliding) if piece.span.times else []
        if not rows:
            return None
        each = len(piece.clips) // len(rows)
        groups = zip(scored.outputs.split(each), scored.embeddings.split(each), strict=True)
        for row, (outputs, embeddings) in zip(rows, groups, strict=True):
            row |= scored_row(self.predictor, outputs, embeddings, self.options.top_k)
        return lambda: self._write(rows)

    def _write(self, rows: list[dict[str, Any]]) -> None:
        self.parts.add(as_table(rows))

    def finish(self) -> Action:
        return lambda: None


def paths_of(inputs: Sequence[str], column: str) -> list[str]:
    """The files that the words of a command stand for; a Parquet file has them in a column.

    Raises:
        DataError: an input without a single video, or a list that cannot be read.
    """
    from videonet.inference.rows import read_column
    from videonet.inference.sources import find_videos

    found: dict[str, None] = {}
    for item in inputs:
        if Path(item).suffix.lower() == ".parquet":
            found |= dict.fromkeys(read_column(item, column))
        else:
            found |= dict.fromkeys(source.path for source in find_videos([item]))
    return list(found)
