"""What an evaluation leaves on disk: tables, pictures and one summary."""

from __future__ import annotations

import csv
import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from videonet.data.dataset import VideoDataset
from videonet.data.lists import MultiHot
from videonet.engine.evaluate import Evaluation
from videonet.engine.plots import plot_confusion, plot_reliability


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
    Pictures: ``confusion.png`` and ``reliability.png``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = list(class_names)
    results = {
        **{key: round(value, 6 if key == "loss" else 3) for key, value in _summary(evaluation)},
        "videos": len(evaluation.videos),
        "failed": [f"{failure.path}: {failure.reason}" for failure in evaluation.failures],
        **details,
    }
    _write_scores(folder, evaluation, paths, names)
    failed = ((failure.path, failure.reason) for failure in evaluation.failures)
    _write_table(folder / "failed.csv", ["path", "reason"], failed)
    if evaluation.multi_label:
        _write_average_precision(folder, evaluation, names)
    else:
        _write_single_label(folder, evaluation, paths, names)
    (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return results


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
    labels = _label_texts(evaluation, names)
    rows = (
        [paths[video], label, *(f"{score:.6g}" for score in scores)]
        for video, label, scores in zip(
            evaluation.videos.tolist(), labels, evaluation.scores.tolist(), strict=True
        )
    )
    _write_table(folder / "scores.csv", ["path", "label", *names], rows)


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
    _write_table(folder / "per_class.csv", ["class", "videos", "average_precision"], rows)


def _write_single_label(folder: Path, evaluation: Evaluation, paths, names: list[str]) -> None:
    best = evaluation.scores.argmax(dim=1).tolist()
    rows = (
        [paths[video], names[label], names[guess], f"{scores[guess]:.6f}", f"{scores[label]:.6f}"]
        for video, label, guess, scores in zip(
            *(evaluation.videos.tolist(), evaluation.labels.tolist(), best),
            evaluation.scores.tolist(),
            strict=True,
        )
    )
    head = ["path", "label", "prediction", "score", "score_of_label"]
    _write_table(folder / "predictions.csv", head, rows)

    confusion = evaluation.confusion()
    rows = ([name, *row] for name, row in zip(names, confusion.tolist(), strict=True))
    _write_table(folder / "confusion.csv", ["true \\ predicted", *names], rows)
    plot_confusion(confusion, names, folder / "confusion.png")

    accuracies = evaluation.class_accuracy().tolist()
    rows = (
        [name, sum(row), row[index], _share(accuracies[index])]
        for index, (name, row) in enumerate(zip(names, confusion.tolist(), strict=True))
    )
    _write_table(folder / "per_class.csv", ["class", "videos", "correct", "accuracy"], rows)

    scores, accuracy, counts = evaluation.reliability()
    rows = (
        [_share(score), _share(share), int(count)]
        for score, share, count in zip(
            scores.tolist(), accuracy.tolist(), counts.tolist(), strict=True
        )
    )
    _write_table(folder / "reliability.csv", ["mean_score", "accuracy", "videos"], rows)
    plot_reliability(
        *(scores, accuracy, counts),
        error=evaluation.calibration_error(),
        path=folder / "reliability.png",
    )


def _share(value: float) -> str:
    """A share as text; empty where there was nothing to take it of."""
    return "" if math.isnan(value) else f"{value:.6f}"


def _write_table(path: Path, head: Sequence[str], rows: Iterable[Sequence]) -> None:
    with open(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        table = csv.writer(file)
        table.writerow(head)
        table.writerows(rows)
