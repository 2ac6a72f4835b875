"""What a test leaves on disk: one summary, the videos that failed, and what its task writes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from videonet.data.datasets.arrays import MultiHot
from videonet.data.loading.dataset import Failure, VideoDataset
from videonet.data.tables import write_table
from videonet.files import make_folder, remove_unfinished, replacing_text, writing
from videonet.tasks.task import Results, Task

RESULTS = "results.json"


def write_results(
    folder: Path, evaluation: Results, task: Task, *, paths: Sequence[str], details: dict
) -> dict:
    """Write ``results.json``, ``failed.csv`` and what the task writes.

    ``results.json`` is written last; that of an earlier evaluation is removed first.

    Args:
        folder: of the run.
        evaluation: of the test set.
        task: that was evaluated.
        paths: of all videos of the list.
        details: how it was evaluated, added to ``results.json``.

    Returns:
        What ``results.json`` holds.

    Raises:
        WriteError: a file cannot be written.
    """
    make_folder(folder)
    remove_unfinished(folder)
    withdraw_results(folder)  # until the tables are written, there is no result
    summary = evaluation.summary().items()
    results = {
        **{key: round(value, 6 if key == "loss" else 3) for key, value in summary},
        "videos": len(evaluation.videos),
        "failed": [f"{failure.path}: {failure.reason}" for failure in evaluation.failures],
        **details,
    }
    write_failures(folder, evaluation.failures)
    task.write(folder, evaluation, paths)
    with replacing_text(folder / RESULTS) as file:
        file.write(json.dumps(results, indent=2) + "\n")
    return results


def withdraw_results(folder: Path) -> None:
    """Remove the ``results.json`` of an earlier evaluation.

    Raises:
        WriteError: it cannot be removed.
    """
    with writing(folder / RESULTS):
        (folder / RESULTS).unlink(missing_ok=True)


def write_failures(folder: Path, failures: Iterable[Failure]) -> None:
    """Write ``failed.csv``: the videos that could not be read, and why."""
    rows = ((failure.path, failure.reason) for failure in failures)
    write_table(folder / "failed.csv", ["path", "reason"], rows)


def dataset_fingerprint(dataset: VideoDataset) -> str:
    """A hash of the data set: of its list and labels, or with a manifest of all contents."""
    manifest = getattr(dataset, "manifest", None)
    if manifest is not None:
        return f"content {manifest.fingerprint}"
    return f"list {list_fingerprint(dataset)}"


def list_fingerprint(dataset: VideoDataset) -> str:
    """A hash of the list alone: its paths and labels, in their order."""
    digest = hashlib.sha256()
    folder, labels = Path(dataset.name).parent, dataset.labels
    for index, path in enumerate(dataset.paths):
        name = Path(path)
        name = name.relative_to(folder) if name.is_relative_to(folder) else name
        own = labels.labels(index) if isinstance(labels, MultiHot) else labels[index]
        digest.update(f"{name}\t{own}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]
