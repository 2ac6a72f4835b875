"""What an evaluation of label maps leaves on disk: tables and pictures."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from videonet.data.tables import write_table
from videonet.tasks.class_plots import plot_confusion
from videonet.tasks.dense_plots import draw_labels, plot_worst
from videonet.tasks.map_evaluation import MapEvaluation, MapRecord
from videonet.tasks.object_tables import PICTURES, frame_of

MOST_CONFUSED = 60  # classes of a picture of their pairs


def write_maps(
    folder: Path, evaluation: MapEvaluation, paths: Sequence[str], names: Sequence[str]
) -> None:
    """Write the tables and pictures of an evaluation.

    ``per_class.csv`` (IoU, accuracy, share of the pixels), ``confusion.csv`` (pixels, a row per
    true class), ``confusion.png`` with up to :data:`MOST_CONFUSED` classes, and ``worst.png``:
    the images with the fewest right pixels, each with the truth on the left.

    Raises:
        WriteError: a file cannot be written.
    """
    scores = evaluation.scores
    pixels = scores.confusion.sum(dim=1)
    table = zip(names, scores.iou(), scores.accuracy(), pixels / pixels.sum(), strict=True)
    rows = [[name, *(_percent(float(value)) for value in values)] for name, *values in table]
    write_table(folder / "per_class.csv", ["class", "IoU", "accuracy", "pixels"], rows)
    matrix = scores.confusion.tolist()
    rows = [[name, *row] for name, row in zip(names, matrix, strict=True)]
    write_table(folder / "confusion.csv", ["true", *names], rows)
    shares = scores.confusion.double() / pixels.clamp(min=1)[:, None]
    if len(names) <= MOST_CONFUSED:
        plot_confusion((100 * shares).round(), list(names), folder / "confusion.png")
    order = sorted(range(len(evaluation.records)), key=lambda k: _right(evaluation.records[k]))
    drawn = []
    for number in order:
        record, path = evaluation.records[number], paths[int(evaluation.videos[number])]
        picture = frame_of(path, record.frames, record.number, 0)
        if picture is not None:
            title = f"{Path(path).name}: {100 * _right(record):.0f} % of the pixels"
            drawn.append((title, _over(picture, record.truth), _over(picture, record.found)))
        if len(drawn) == PICTURES:
            break
    if drawn:
        plot_worst(drawn, folder / "worst.png", columns=2)


def _percent(value: float) -> float | str:
    return "" if math.isnan(value) else round(100 * value, 3)


def _right(record: MapRecord) -> float:
    """The share of a record's pixels that are right."""
    total = int(record.confusion.sum())
    return int(record.confusion.diagonal().sum()) / total if total else 1.0


def _over(picture: np.ndarray, labels: bytes) -> np.ndarray:
    """A small label map over its picture."""
    with Image.open(io.BytesIO(labels)) as opened:
        small = np.asarray(Image.fromarray(picture).resize(opened.size))
        return draw_labels(small, np.asarray(opened))
