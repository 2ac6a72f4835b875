"""What an evaluation of classes leaves on disk: tables and pictures."""

from __future__ import annotations

import csv
import logging
import math
from collections.abc import Sequence
from pathlib import Path

import torch

from videonet.data.tables import rows_as_text, text_of, write_table
from videonet.data.texts import lines_of, read_text
from videonet.errors import DataError
from videonet.files import replacing_text
from videonet.tasks.class_plots import plot_confusion, plot_reliability
from videonet.tasks.class_scores import ClassScores

logger = logging.getLogger(__name__)

MOST_CONFUSED = 1000  # classes of a matrix of their pairs; more are listed


def write_tables(
    folder: Path, evaluation: ClassScores, paths: Sequence[str], names: Sequence[str]
) -> None:
    """Write the tables and pictures of an evaluation.

    Tables: ``scores.csv`` (every score of every video), ``per_class.csv``, and where a video has
    one label ``predictions.csv``, ``confusion.csv`` and ``reliability.csv``. Pictures:
    ``confusion.png`` and ``reliability.png``. With more than ``MOST_CONFUSED`` classes
    ``confused.csv`` lists the pairs that occur instead of the matrix.

    Raises:
        WriteError: a file cannot be written.
    """
    names = list(names)
    _write_scores(folder, evaluation, paths, names)
    if evaluation.multi_label:
        _write_average_precision(folder, evaluation, names)
    else:
        _write_single_label(folder, evaluation, paths, names)


def _write_scores(folder: Path, evaluation: ClassScores, paths, names: list[str]) -> None:
    """One video at a time, as all scores as text are many times the scores."""
    labels = _label_texts(evaluation, names)
    with replacing_text(folder / "scores.csv", newline="") as file:
        file.write(rows_as_text([["path", "label", *names]]))
        for video, label, scores in zip(
            evaluation.videos.tolist(), labels, evaluation.scores, strict=True
        ):
            start = rows_as_text([[paths[video], label]]).removesuffix("\n")
            file.write(f"{start},{','.join(map('{:.6g}'.format, scores.tolist()))}\n")


def read_scores(path: Path) -> tuple[list[str], ClassScores]:
    """The paths and scores that :func:`write_tables` wrote to a ``scores.csv``.

    Of videos with one label each.

    Raises:
        DataError: the file is missing, or is no such table.
    """
    head, *rows = csv.reader(lines_of(read_text(path, "table of scores", names=True)))
    numbers = {name: k for k, name in enumerate(head[2:])}
    try:
        labels = torch.tensor([numbers[row[1]] for row in rows])
        scores = torch.tensor([list(map(float, row[2:])) for row in rows])
        if head[:2] != ["path", "label"] or scores.shape != (len(rows), len(numbers)):
            raise ValueError("its columns are others")
    except (ValueError, KeyError) as error:
        raise DataError(f"{path} is no table of scores of one label a video: {error}") from None
    evaluation = ClassScores(torch.arange(len(rows)), labels, scores)
    return [text_of(row[0]) for row in rows], evaluation


def _label_texts(evaluation: ClassScores, names: list[str]) -> list[str]:
    if not evaluation.multi_label:
        return [names[label] for label in evaluation.labels.tolist()]
    return [
        "; ".join(names[index] for index in row.nonzero().flatten().tolist())
        for row in evaluation.labels
    ]


def _write_average_precision(folder: Path, evaluation: ClassScores, names: list[str]) -> None:
    counts = evaluation.labels.sum(dim=0).long().tolist()
    precisions = evaluation.average_precision().tolist()
    rows = (
        [name, count, _share(precision)]
        for name, count, precision in zip(names, counts, precisions, strict=True)
    )
    write_table(folder / "per_class.csv", ["class", "videos", "average_precision"], rows)


def _write_single_label(folder: Path, evaluation: ClassScores, paths, names: list[str]) -> None:
    labels, (highest, best) = evaluation.labels, evaluation.best
    of_label = evaluation.scores.gather(1, labels.unsqueeze(1)).squeeze(1)
    columns = (evaluation.videos, labels, best, highest, of_label)
    rows = (
        [paths[video], names[label], names[guess], f"{score:.6f}", f"{score_of_label:.6f}"]
        for video, label, guess, score, score_of_label in zip(
            *(column.tolist() for column in columns), strict=True
        )
    )
    head = ["path", "label", "prediction", "score", "score_of_label"]
    write_table(folder / "predictions.csv", head, rows)
    _write_confusion(folder, evaluation, names)

    of_classes = (count.tolist() for count in evaluation.class_counts())
    rows = (
        [name, videos, right, _share(right / videos if videos else math.nan)]
        for name, videos, right in zip(names, *of_classes, strict=True)
    )
    write_table(folder / "per_class.csv", ["class", "videos", "correct", "accuracy"], rows)

    scores, accuracy, counts = evaluation.reliability()
    rows = (
        [_share(score), _share(share), int(count)]
        for score, share, count in zip(
            scores.tolist(), accuracy.tolist(), counts.tolist(), strict=True
        )
    )
    write_table(folder / "reliability.csv", ["mean_score", "accuracy", "videos"], rows)
    plot_reliability(
        scores,
        accuracy,
        counts,
        error=evaluation.calibration_error(),
        path=folder / "reliability.png",
    )


def _write_confusion(folder: Path, evaluation: ClassScores, names: list[str]) -> None:
    """The matrix and its picture, or of very many classes the pairs that occur."""
    if len(names) > MOST_CONFUSED:
        rows = (
            [names[true], names[guess], count]
            for true, guess, count in evaluation.confused().tolist()
        )
        write_table(folder / "confused.csv", ["true", "predicted", "videos"], rows)
        return
    confusion = evaluation.confusion()
    rows = ([name, *row] for name, row in zip(names, confusion.tolist(), strict=True))
    write_table(folder / "confusion.csv", ["true \\ predicted", *names], rows)
    plot_confusion(confusion, names, folder / "confusion.png")
    logger.info("confusion matrix: %s", folder / "confusion.png")


def _share(value: float) -> str:
    """A share as text; empty where there was nothing to take it of."""
    return "" if math.isnan(value) else f"{value:.6f}"
