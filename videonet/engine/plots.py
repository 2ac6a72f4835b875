"""Pictures of training: the learning curve of a run, and several runs over one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from videonet.figures import save_figure

# What the log keeps of a validation beside the measures of its task.
BESIDE_MEASURES = frozenset(("kind", "step", "epoch", "loss", "videos", "failed"))


def plot_learning_curve(records: Sequence[dict], path: Path) -> None:
    """Training loss, learning rate and the measures of validations over the steps of a run.

    Args:
        records: of the run's log.
        path: the PNG file.
    """
    train, val = _of_kind(records, "train"), _of_kind(records, "val")
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    steps = [r["step"] for r in train]
    left.plot(steps, [r["loss"] for r in train], color="tab:blue", label="training loss")
    if points := [(r["step"], r["loss"]) for r in val if "loss" in r]:
        left.plot(*zip(*points, strict=True), "o-", color="tab:orange", label="validation loss",
                  markersize=3)  # fmt: skip
    left.set(xlabel="step", ylabel="loss", ylim=(0, None))
    left.legend(loc="upper right")
    rate = left.twinx()
    rate.plot(steps, [r["lr"] for r in train], color="tab:gray", alpha=0.5)
    rate.set_ylabel("learning rate (grey)")
    rate.set_ylim(0, None)
    for kind, style, title in (("val", "o-", ""), ("val_ema", "s--", " (averaged weights)")):
        found = _of_kind(records, kind)
        for name in _measures(found):
            points = [(r["step"], r[name]) for r in found if name in r]
            right.plot(*zip(*points, strict=True), style, label=name + title, markersize=3)
    right.set(xlabel="step", ylabel="validation", ylim=(0, None))
    right.grid(alpha=0.3)
    if right.lines:
        right.legend(loc="lower right")
    save_figure(figure, path)


def plot_runs(runs: Mapping[str, Sequence[dict]], path: Path, smoothing: int = 1) -> None:
    """Loss, the first measure of validations, and speed of several runs over their epochs.

    Args:
        runs: name -> the records of its log.
        path: the PNG file.
        smoothing: the number of records that the training loss is averaged over.
    """
    figure = Figure(figsize=(15, 4.5), layout="constrained")
    loss, score, speed = figure.subplots(1, 3)
    measured = None
    for number, (name, records) in enumerate(runs.items()):
        colour = f"C{number % 10}"
        train, val = _of_kind(records, "train"), _of_kind(records, "val")
        epochs = [r["epoch"] for r in train]
        width = min(smoothing, max(len(train), 1))
        mean = np.convolve([r["loss"] for r in train] or [0], np.ones(width) / width, "valid")
        if train:
            loss.plot(epochs[width - 1 :], mean, color=colour, label=name)
            rates = [r["clips_per_second"] for r in train]
            speed.plot(epochs, rates, color=colour, label=name, alpha=0.8)
        for kind, style in (("val", "o-"), ("val_ema", "s--")):
            found = _of_kind(records, kind)
            if key := next(iter(_measures(found)), None):
                measured = key
                label = name if kind == "val" else f"{name}, averaged weights"
                points = [(r["epoch"], r[key]) for r in found if key in r]
                score.plot(*zip(*points, strict=True), style, color=colour, label=label,
                           markersize=3)  # fmt: skip
        if points := [(r["epoch"], r["loss"]) for r in val if "loss" in r]:
            loss.plot(*zip(*points, strict=True), "o:", color=colour,
                      markersize=3)  # fmt: skip
    loss.set(xlabel="epoch", ylabel="loss (dotted: validation)", ylim=(0, None))
    score.set(xlabel="epoch", ylabel=f"validation {measured or ''}")
    speed.set(xlabel="epoch", ylabel="clips per second", ylim=(0, None))
    entries: dict = {}  # label -> line, of all three
    for axes in (loss, score, speed):
        axes.grid(alpha=0.3)
        lines, labels = axes.get_legend_handles_labels()
        entries = dict(zip(labels, lines, strict=True)) | entries
    if entries:
        figure.legend(entries.values(), entries.keys(), loc="outside right upper", fontsize=8)
    save_figure(figure, path)


def _measures(records: Sequence[dict]) -> list[str]:
    """The names of a task's measures in the records of validations, in their order."""
    return list(dict.fromkeys(key for r in records for key in r if key not in BESIDE_MEASURES))


def _of_kind(records: Sequence[dict], kind: str) -> list[dict]:
    return [record for record in records if record["kind"] == kind]
