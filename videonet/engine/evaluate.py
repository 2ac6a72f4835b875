"""Multi-view evaluation: every video once, its views averaged into one score per class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from videonet.data import Batch, Failure, VideoLoader
from videonet.data.device import normalize
from videonet.engine.distributed import Process
from videonet.engine.stopping import StopSignals
from videonet.errors import DataError, TrainingError

BINS = 15  # of the calibration error, as in its paper
# torchmetrics takes a second to import, so it is imported where it computes.


def ensemble_views(logits: Tensor, method: str = "softmax", *, multi_label: bool = False) -> Tensor:
    """One score per class from the logits of all views, (V, K) -> (K,).

    ``"softmax"``: mean of the views' probabilities; ``"logits"``: probabilities of the mean
    logits; ``"max"``: the highest probability of any view. The probability of a class is its
    softmax, or where a video may have several labels its sigmoid.
    """

    def probabilities(values: Tensor) -> Tensor:
        return values.sigmoid() if multi_label else values.softmax(dim=-1)

    if method == "logits":
        return probabilities(logits.mean(dim=0))
    scores = probabilities(logits)
    return scores.amax(dim=0) if method == "max" else scores.mean(dim=0)


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
    labels: Tensor  # (M,) classes; (M, K) zeros and ones where a video may have several
    scores: Tensor  # (M, K) probabilities
    failures: list[Failure] = field(default_factory=list)

    @property
    def multi_label(self) -> bool:
        return self.labels.dim() == 2

    @property
    def num_classes(self) -> int:
        return self.scores.shape[1]

    def measures(self) -> dict[str, float]:
        """The figures of merit: loss, and top-1 and top-5 or mAP, in percent."""
        if self.multi_label:
            return {"loss": self.loss(), "mAP": 100 * self.mean_average_precision()}
        return {
            "loss": self.loss(),
            "top1": 100 * self.accuracy(1),
            "top5": 100 * self.accuracy(5),
        }

    def accuracy(self, top_k: int = 1) -> float:
        """Share of videos whose label is among the `top_k` highest scores."""
        from torchmetrics.functional.classification import multiclass_accuracy

        return multiclass_accuracy(
            self.scores,
            self.labels,
            self.num_classes,
            top_k=min(top_k, self.num_classes),
            average="micro",
        ).item()

    def loss(self) -> float:
        """Mean negative log of the score of the true class; over all classes with several labels.

        Scores below 1e-12 count as that.
        """
        if self.multi_label:
            scores = self.scores.double().clamp(1e-12, 1 - 1e-12)
            return F.binary_cross_entropy(scores, self.labels.double()).item()
        picked = self.scores.gather(1, self.labels.unsqueeze(1))
        return -picked.clamp_min(1e-12).log().mean().item()

    def average_precision(self) -> Tensor:
        """Of each class (K,), from the ranking of the videos; NaN where no video has it."""
        from torchmetrics.functional.classification import binary_average_precision

        labels = self.labels.long()
        return torch.tensor(
            [
                binary_average_precision(self.scores[:, k], labels[:, k]) if labels[:, k].any()
                else torch.nan
                for k in range(self.num_classes)
            ]
        )  # fmt: skip

    def mean_average_precision(self) -> float:
        """Mean over the classes that some video has."""
        return self.average_precision().nanmean().item()

    def class_accuracy(self) -> Tensor:
        """Share of each class's videos that are recognised, (K,); NaN where there are none."""
        counts = self.confusion()
        return counts.diagonal() / counts.sum(dim=1)

    def confusion(self) -> Tensor:
        """Counts (K, K): row is the true class, column the highest score."""
        from torchmetrics.functional.classification import multiclass_confusion_matrix

        return multiclass_confusion_matrix(self.scores, self.labels, self.num_classes)

    def calibration_error(self) -> float:
        """Expected calibration error of the highest score in ``BINS`` bins (arXiv 1706.04599)."""
        from torchmetrics.functional.classification import multiclass_calibration_error

        return multiclass_calibration_error(
            self.scores, self.labels, self.num_classes, n_bins=BINS, norm="l1"
        ).item()

    def reliability(self) -> tuple[Tensor, Tensor, Tensor]:
        """Mean highest score, accuracy and number of videos of each of the ``BINS`` bins."""
        confidence, guess = self.scores.max(dim=1)
        right = (guess == self.labels).double()
        bins = (confidence * BINS).ceil().long().sub(1).clamp(0, BINS - 1)  # (0, 1/BINS], …
        empty = torch.zeros(BINS, dtype=torch.float64)
        counts = empty.index_add(0, bins, torch.ones_like(right))
        scores = empty.index_add(0, bins, confidence.double())
        return scores / counts, empty.index_add(0, bins, right) / counts, counts


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
    stop: StopSignals | None = None,
) -> Evaluation | None:
    """Run the model over a loader; the same :class:`Evaluation` on every process.

    Returns:
        None if `stop` noted a signal on any process.

    Raises:
        DataError: not a single video could be read.
        TrainingError: the model's scores are not finite.
    """
    was_training = model.training
    model.eval()
    rows: list[tuple[int, Tensor, Tensor]] = []
    failures: list[Failure] = []
    bar = tqdm(loader, desc=title, unit="batch", disable=not process.is_main, leave=False)
    stopped = False
    for batch in bar:
        stopped = stop is not None and stop.received > 0
        if stopped:
            break
        failures += batch.failures
        rows += _batch_rows(model, batch, process, mean, std, max_clips, ensemble, dtype)
    model.train(was_training)

    everything = process.gather((rows, failures, stopped))
    if any(stopped for *_, stopped in everything):
        return None
    rows = sorted((row for part, *_ in everything for row in part), key=lambda row: row[0])
    failures = sorted((f for _, part, _ in everything for f in part), key=lambda f: f.index)
    if not rows:
        raise DataError(
            f"none of the {len(failures)} videos could be read; the first is "
            f"{failures[0].path}: {failures[0].reason}"
        )
    scores = torch.stack([scores for _, _, scores in rows])
    lost = (~scores.isfinite().all(dim=1)).nonzero().flatten().tolist()
    if lost:
        raise TrainingError(
            f"the scores of {len(lost)} of {len(rows)} videos are not finite numbers (first "
            f"{loader.dataset.paths[rows[lost[0]][0]]}): the model has weights that are not, or "
            f"its numbers are too large for {dtype or torch.float32}"
        )
    return Evaluation(
        torch.tensor([video for video, _, _ in rows]),
        torch.stack([label for _, label, _ in rows]),
        scores,
        failures,
    )


def _batch_rows(
    model: nn.Module, batch: Batch, process: Process, mean, std, max_clips, ensemble, dtype
) -> list[tuple[int, Tensor, Tensor]]:
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
        label = batch.labels[mine][0]  # () or (K,)
        scores = ensemble_views(logits[mine], ensemble, multi_label=label.dim() == 1)
        rows.append((int(video), label, scores))
    return rows
