"""Pictures of an evaluation of classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from videonet.figures import save_figure


def plot_confusion(counts: Tensor, class_names: Sequence[str], path: Path) -> None:
    """A confusion matrix with normalised rows; up to 30 classes with the counts written in.

    Args:
        counts: (K, K), a row per true class.
        class_names: K.
        path: the PNG file.
    """
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
            count = f"{int(counts[row, column])}"
            axes.text(column, row, count, ha="center", va="center", color=shade)
    save_figure(figure, path)


def plot_reliability(
    scores: Tensor, accuracy: Tensor, counts: Tensor, *, error: float, path: Path
) -> None:
    """Accuracy over the score of the prediction in bins, and how many videos each bin has.

    Args:
        scores: the mean score of each bin, (B,); NaN where a bin is empty.
        accuracy: of each bin, (B,); NaN where a bin is empty.
        counts: the number of videos in each bin, (B,).
        error: the expected calibration error, 0 … 1.
        path: the PNG file.
    """
    filled = (counts > 0).numpy()
    bins = len(counts)
    edges = (np.arange(bins)[filled] + 0.5) / bins
    figure = Figure(figsize=(5, 6), layout="constrained")
    top, bottom = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    top.plot([0, 1], [0, 1], "--", color="tab:gray", label="calibrated")
    top.bar(edges, accuracy.numpy()[filled], width=0.9 / bins, color="tab:blue", alpha=0.6)
    top.plot(scores.numpy()[filled], accuracy.numpy()[filled], "o", color="tab:blue",
             markersize=4, label="accuracy at the mean score")  # fmt: skip
    top.set(ylabel="accuracy", ylim=(0, 1), xlim=(0, 1))
    top.set_title(f"expected calibration error {100 * error:.1f} %", fontsize=10)
    top.legend(loc="upper left", fontsize=8)
    bottom.bar(edges, counts.numpy()[filled], width=0.9 / bins, color="tab:gray")
    bottom.set(xlabel="score of the prediction", ylabel="videos")
    save_figure(figure, path)
