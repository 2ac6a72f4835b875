"""Results as pictures: learning curve, confusion matrix, prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from videonet.figures import save_figure

FIGURES = ("top1", "top5", "mAP")  # of a validation, in percent


def plot_learning_curve(records: Sequence[dict], path: Path) -> None:
    """Training loss and learning rate, and validation figures, over the steps of a run."""
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
        for name in FIGURES:
            points = [(r["step"], r[name]) for r in found if name in r]
            if points:
                right.plot(*zip(*points, strict=True), style, label=name + title, markersize=3)
    right.set(xlabel="step", ylabel="validation (%)", ylim=(0, 101))
    right.grid(alpha=0.3)
    if right.lines:
        right.legend(loc="lower right")
    save_figure(figure, path)


def plot_runs(runs: Mapping[str, Sequence[dict]], path: Path, smoothing: int = 1) -> None:
    """Loss, validation and speed of several runs over their epochs.

    Args:
        runs: name -> the records of its log.
        smoothing: the training loss is the mean over so many records.
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
            key = next((key for key in FIGURES if found and key in found[0]), None)
            if key:
                measured = key
                label = name if kind == "val" else f"{name}, averaged weights"
                points = [(r["epoch"], r[key]) for r in found]
                score.plot(*zip(*points, strict=True), style, color=colour, label=label,
                           markersize=3)  # fmt: skip
        if points := [(r["epoch"], r["loss"]) for r in val if "loss" in r]:
            loss.plot(*zip(*points, strict=True), "o:", color=colour,
                      markersize=3)  # fmt: skip
    loss.set(xlabel="epoch", ylabel="loss (dotted: validation)", ylim=(0, None))
    score.set(xlabel="epoch", ylabel=f"validation {measured or ''} (%)")
    speed.set(xlabel="epoch", ylabel="clips per second", ylim=(0, None))
    entries = {}  # label -> line, of all three
    for axes in (loss, score, speed):
        axes.grid(alpha=0.3)
        lines, labels = axes.get_legend_handles_labels()
        entries = dict(zip(labels, lines, strict=True)) | entries
    if entries:
        figure.legend(entries.values(), entries.keys(), loc="outside right upper", fontsize=8)
    save_figure(figure, path)


def _of_kind(records: Sequence[dict], kind: str) -> list[dict]:
    return [record for record in records if record["kind"] == kind]


def plot_prediction(
    clip: Tensor, names: Sequence[str], scores: Sequence[float], title: str, path: Path
) -> None:
    """Frames of a clip (3, T, H, W, uint8) above bars of its highest scores."""
    frames = clip.permute(1, 2, 3, 0).numpy()  # (T, H, W, 3)
    shown = np.linspace(0, len(frames) - 1, min(8, len(frames))).round().astype(int)
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1, 1.3))
    for axes, index in zip(np.atleast_1d(top.subplots(1, len(shown))), shown, strict=True):
        axes.imshow(frames[index])
        axes.set_title(f"frame {index}", fontsize=8)
        axes.axis("off")
    figure.suptitle(title, fontsize=10)
    axes = bottom.subplots()
    axes.barh(range(len(names)), scores, color="tab:blue")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1.1), xlabel="score")
    for row, score in enumerate(scores):
        axes.text(score + 0.01, row, f"{score:.3f}", va="center")
    save_figure(figure, path)
