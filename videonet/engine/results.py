"""What an evaluation leaves on disk: tables, pictures and one summary."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from videonet.data.dataset import Failure, VideoDataset
from videonet.data.lists import MultiHot
from videonet.data.tables import rows_as_text, write_table
from videonet.engine.evaluate import Evaluation
from videonet.engine.plots import plot_confusion, plot_reliability
from videonet.files import make_folder, remove_unfinished, replacing_text, writing

RESULTS = "results.json"
MOST_CONFUSED = 1000  # classes of a matrix of their pairs; more are listed


def write_results(
    folder: Path,
    evaluation: Evaluation,
    *,
    paths: Sequence[str],
    class_names: Sequence[str],
    details: dict,
) -> dict:
    """Write ``results.json``, the tables and the pictures; return what ``results.json`` holds.

    Tables: ``scores.csv`` (every score of every video), ``per_class.csv``, ``failed.csv``, and
    where a video has one label ``predictions.csv``, ``confusion.csv`` and ``reliability.csv``.
    Pictures: ``confusion.png`` and ``reliability.png``. With more than ``MOST_CONFUSED`` classes
    ``confused.csv`` lists the pairs that occur instead of the matrix. ``results.json`` is written
    last; that of an earlier evaluation is removed first.

    Raises:
        WriteError: a file cannot be written.
    """
    make_folder(folder)
    remove_unfinished(folder)
    withdraw_results(folder)  # those of before do not fit the tables any more
    names = list(class_names)
    results = {
        **{key: round(value, 6 if key == "loss" else 3) for key, value in _summary(evaluation)},
        "videos": len(evaluation.videos),
        "failed": [f"{failure.path}: {failure.reason}" for failure in evaluation.failures],
        **details,
    }
    _write_scores(folder, evaluation, paths, names)
    write_failures(folder, evaluation.failures)
    if evaluation.multi_label:
        _write_average_precision(folder, evaluation, names)
    else:
        _write_single_label(folder, evaluation, paths, names)
    with replacing_text(folder / RESULTS) as file:
        file.write(json.dumps(results, indent=2) + "\n")
    return results


def withdraw_results(folder: Path) -> None:
    """Remove the summary of an earlier evaluation. Raises WriteError where that cannot be."""
    with writing(folder / RESULTS):
        (folder / RESULTS).unlink(missing_ok=True)


def write_failures(folder: Path, failures: Iterable[Failure]) -> None:
    """``failed.csv``: the videos that could not be read, and why."""
    rows = ((failure.path, failure.reason) for failure in failures)
    write_table(folder / "failed.csv", ["path", "reason"], rows)


def dataset_fingerprint(dataset: VideoDataset) -> str:
    """A hash that changes with the data: of list, labels and, with a manifest, all contents."""
    manifest = getattr(dataset, "manifest", None)
    if manifest is not None:
        return f"content {manifest.fingerprint}"
    return f"list {list_fingerprint(dataset)}"


def list_fingerprint(dataset: VideoDataset) -> str:
    """A hash of the list alone: its paths and labels, in their order."""
    digest = hashlib.sha256()
    folder, several = Path(dataset.name).parent, isinstance(dataset.labels, MultiHot)
    for index, path in enumerate(dataset.paths):
        name = Path(path)
        name = name.relative_to(folder) if name.is_relative_to(folder) else name
        labels = dataset.labels.labels(index) if several else dataset.labels[index]
        digest.update(f"{name}\t{labels}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def _summary(evaluation: Evaluation) -> Iterable[tuple[str, float]]:
    yield from evaluation.measures().items()
    if not evaluation.multi_label:
        yield "mean_class_accuracy", 100 * evaluation.class_accuracy().nanmean().item()
        yield "calibration_error", 100 * evaluation.calibration_error()


def _write_scores(folder: Path, evaluation: Evaluation, paths, names: list[str]) -> None:
    """One video at a time, as all scores as text are many times the scores."""
    labels = _label_texts(evaluation, names)
    with replacing_text(folder / "scores.csv", newline="") as file:
        file.write(rows_as_text([["path", "label", *names]]))
        for video, label, scores in zip(
            evaluation.videos.tolist(), labels, evaluation.scores, strict=True
        ):
            start = rows_as_text([[paths[video], label]]).removesuffix("\n")
            file.write(f"{start},{','.join(map('{:.6g}'.format, scores.tolist()))}\n")


def _label_texts(evaluation: Evaluation, names: list[str]) -> list[str]:
    if not evaluation.multi_label:
        return [names[label] for label in evaluation.labels.tolist()]
    return [
        "; ".join(names[index] for index in row.nonzero().flatten().tolist())
        for row in evaluation.labels
    ]


def _write_average_precision(folder: Path, evaluation: Evaluation, names: list[str]) -> None:
    counts = evaluation.labels.sum(dim=0).long().tolist()
    precisions = evaluation.average_precision().tolist()
    rows = (
        [name, count, _share(precision)]
        for name, count, precision in zip(names, counts, precisions, strict=True)
    )
    write_table(folder / "per_class.csv", ["class", "videos", "average_precision"], rows)


def _write_single_label(folder: Path, evaluation: Evaluation, paths, names: list[str]) -> None:
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

    counts = zip(names, *(count.tolist() for count in evaluation.class_counts()), strict=True)
    rows = (
        [name, videos, right, _share(right / videos if videos else math.nan)]
        for name, videos, right in counts
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
        *(scores, accuracy, counts),
        error=evaluation.calibration_error(),
        path=folder / "reliability.png",
    )


def _write_confusion(folder: Path, evaluation: Evaluation, names: list[str]) -> None:
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


def _share(value: float) -> str:
    """A share as text; empty where there was nothing to take it of."""
    return "" if math.isnan(value) else f"{value:.6f}"
