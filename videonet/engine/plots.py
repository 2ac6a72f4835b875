"""Results as pictures: learning curve, confusion matrix, prediction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor


def plot_learning_curve(records: Sequence[dict], path: Path) -> None:
    """Training loss and learning rate, and validation accuracy, over the steps of a run."""
    train = [r for r in records if r["kind"] == "train"]
    val = [r for r in records if r["kind"] == "val"]
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    steps = [r["step"] for r in train]
    left.plot(steps, [r["loss"] for r in train], color="tab:blue", label="training loss")
    if val:
        left.plot([r["step"] for r in val], [r["loss"] for r in val], "o-", color="tab:orange",
                  label="validation loss", markersize=3)  # fmt: skip
    left.set(xlabel="step", ylabel="loss", ylim=(0, None))
    left.legend(loc="upper right")
    rate = left.twinx()
    rate.plot(steps, [r["lr"] for r in train], color="tab:gray", alpha=0.5)
    rate.set_ylabel("learning rate (grey)")
    rate.set_ylim(0, None)
    if val:
        for name, style in (("top1", "o-"), ("top5", "s--")):
            right.plot([r["step"] for r in val], [r[name] for r in val], style, label=name,
                       markersize=3)  # fmt: skip
        right.set(xlabel="step", ylabel="validation accuracy (%)", ylim=(0, 101))
        right.grid(alpha=0.3)
        right.legend(loc="lower right")
    figure.savefig(path, dpi=120)


def plot_confusion(counts: Tensor, class_names: Sequence[str], path: Path) -> None:
    """A confusion matrix (K, K), rows normalised; counts written in where there is room."""
    counts = counts.float()
    share = (counts / counts.sum(dim=1, keepdim=True).clamp_min(1)).numpy()
    size = len(class_names)
    side = min(3 + 0.45 * size, 24)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    axes.set(xlabel="predicted", ylabel="true")
    if size <= 60:
        axes.set_xticks(range(size), class_names, rotation=60, ha="right")
        axes.set_yticks(range(size), class_names)
    if size <= 30:
        for row, column in np.argwhere(share > 0):
            shade = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, int(counts[row, column]), ha="center", va="center", color=shade)
    figure.savefig(path, dpi=120)


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
    figure.savefig(path, dpi=120)
