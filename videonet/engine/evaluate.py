"""Multi-view evaluation: every video once, its views averaged into one score per class."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_confusion_matrix,
)
from tqdm import tqdm

from videonet.data import Batch, Failure, VideoLoader
from videonet.data.device import normalize
from videonet.engine.distributed import Process
from videonet.errors import DataError


def ensemble_views(logits: Tensor, method: str = "softmax") -> Tensor:
    """One score per class from the logits of all views, (V, K) -> (K,).

    ``"softmax"``: mean of the views' probabilities; ``"logits"``: probabilities of the mean
    logits; ``"max"``: the highest probability of any view.
    """
    if method == "logits":
        return logits.mean(dim=0).softmax(dim=-1)
    probabilities = logits.softmax(dim=-1)
    return probabilities.amax(dim=0) if method == "max" else probabilities.mean(dim=0)


@torch.inference_mode()
def clip_logits(
    model: nn.Module,
    clips: Tensor,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device,
    max_clips: int,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Logits of uint8 clips (N, 3, T, H, W) -> (N, K) float32 on the CPU.

    At most `max_clips` clips are on the device at a time; with a `dtype`, autocast to it.
    """
    logits = []
    for part in clips.split(max_clips):
        part = normalize(part.to(device, non_blocking=True), mean, std)
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
            logits.append(model(part).float().cpu())
    return torch.cat(logits)


@dataclass
class Evaluation:
    """Scores of a data set, one row per video, sorted by the video's place in the list."""

    videos: Tensor  # (M,) index into the list
    labels: Tensor  # (M,)
    scores: Tensor  # (M, K)
    failures: list[Failure] = field(default_factory=list)

    def accuracy(self, top_k: int = 1) -> float:
        """Share of videos whose label is among the `top_k` highest scores."""
        classes = self.scores.shape[1]
        return multiclass_accuracy(
            self.scores, self.labels, classes, top_k=min(top_k, classes), average="micro"
        ).item()

    def loss(self) -> float:
        """Mean negative log of the score of the true class."""
        picked = self.scores.gather(1, self.labels.unsqueeze(1))
        return -picked.clamp_min(1e-12).log().mean().item()

    def confusion(self) -> Tensor:
        """Counts (K, K): row is the true class, column the highest score."""
        return multiclass_confusion_matrix(self.scores, self.labels, self.scores.shape[1])


def evaluate(
    model: nn.Module,
    loader: VideoLoader,
    process: Process,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    max_clips: int,
    ensemble: str = "softmax",
    dtype: torch.dtype | None = None,
    title: str = "evaluate",
) -> Evaluation:
    """Run the model over a loader; the same :class:`Evaluation` on every process.

    Raises:
        DataError: not a single video could be read.
    """
    was_training = model.training
    model.eval()
    rows: list[tuple[int, int, Tensor]] = []
    failures: list[Failure] = []
    bar = tqdm(loader, desc=title, unit="batch", disable=not process.is_main, leave=False)
    for batch in bar:
        failures += batch.failures
        rows += _batch_rows(model, batch, process, mean, std, max_clips, ensemble, dtype)
    model.train(was_training)

    everything = process.gather((rows, failures))
    rows = sorted((row for part, _ in everything for row in part), key=lambda row: row[0])
    failures = sorted((f for _, part in everything for f in part), key=lambda f: f.index)
    if not rows:
        raise DataError(
            f"none of the {len(failures)} videos could be read; the first is "
            f"{failures[0].path}: {failures[0].reason}"
        )
    return Evaluation(
        torch.tensor([video for video, _, _ in rows]),
        torch.tensor([label for _, label, _ in rows]),
        torch.stack([scores for _, _, scores in rows]),
        failures,
    )


def _batch_rows(
    model: nn.Module, batch: Batch, process: Process, mean, std, max_clips, ensemble, dtype
) -> list[tuple[int, int, Tensor]]:
    """(video, label, scores) for every video of a batch."""
    if not len(batch.clips):
        return []
    logits = clip_logits(
        model,
        batch.clips,
        mean=mean,
        std=std,
        device=process.device,
        max_clips=max_clips,
        dtype=dtype,
    )
    rows = []
    for video in batch.videos.unique_consecutive():
        mine = batch.videos == video
        scores = ensemble_views(logits[mine], ensemble)
        rows.append((int(video), int(batch.labels[mine][0]), scores))
    return rows


def write_results(
    folder: Path,
    evaluation: Evaluation,
    *,
    paths: Sequence[str],
    class_names: Sequence[str],
    details: dict,
) -> dict:
    """Write ``results.json``, ``predictions.csv`` and ``confusion.csv``; return the results."""
    folder.mkdir(parents=True, exist_ok=True)
    results = {
        "top1": round(100 * evaluation.accuracy(1), 3),
        "top5": round(100 * evaluation.accuracy(5), 3),
        "videos": len(evaluation.videos),
        "failed": [f"{failure.path}: {failure.reason}" for failure in evaluation.failures],
        **details,
    }
    best = evaluation.scores.argmax(dim=1)
    with open(folder / "predictions.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["path", "label", "prediction", "score", "score_of_label"])
        for row, video in enumerate(evaluation.videos.tolist()):
            label, guess = int(evaluation.labels[row]), int(best[row])
            scores = evaluation.scores[row]
            table.writerow(
                [
                    paths[video],
                    class_names[label],
                    class_names[guess],
                    f"{scores[guess]:.6f}",
                    f"{scores[label]:.6f}",
                ]
            )
    with open(folder / "confusion.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["true \\ predicted", *class_names])
        for name, counts in zip(class_names, evaluation.confusion().tolist(), strict=True):
            table.writerow([name, *counts])
    (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return results
