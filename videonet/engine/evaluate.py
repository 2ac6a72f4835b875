"""Multi-view evaluation: every video once, its views averaged into one score per class."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterator, Sequence
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
PART = 2**22  # numbers that are worked on, or sent to other processes, at a time


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
    """Scores of a data set, one row per video, sorted by the video's place in the list.

    Memory holds the scores, four bytes per video and class, and with several labels a video as
    many bytes of labels; the figures of merit add little to that.
    """

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

    @functools.cached_property
    def best(self) -> tuple[Tensor, Tensor]:
        """The highest score of each video and its class, (M,) each."""
        confidence, guess = self.scores.max(dim=1)
        return confidence, guess

    def accuracy(self, top_k: int = 1) -> float:
        """Share of videos whose label is among the `top_k` highest scores."""
        if top_k == 1:
            return (self.best[1] == self.labels).double().mean().item()
        top_k = min(top_k, self.num_classes)
        right = sum(
            (scores.topk(top_k).indices == labels.unsqueeze(1)).sum()
            for scores, labels in self._parts()
        )
        return (right / len(self.labels)).item()

    def _parts(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Scores and labels of some videos at a time, so that what is made of them stays small."""
        rows = max(1, PART // self.num_classes)
        return zip(self.scores.split(rows), self.labels.split(rows), strict=True)

    def loss(self) -> float:
        """Mean negative log of the score of the true class; over all classes with several labels.

        Scores below 1e-12 count as that.
        """
        if self.multi_label:
            total = sum(
                F.binary_cross_entropy(
                    scores.double().clamp(1e-12, 1 - 1e-12), labels.double(), reduction="sum"
                )
                for scores, labels in self._parts()
            )
            return total.item() / self.scores.numel()
        picked = self.scores.gather(1, self.labels.unsqueeze(1))
        return -picked.clamp_min(1e-12).log().mean().item()

    def average_precision(self) -> Tensor:
        """Of each class (K,), from the ranking of the videos; NaN where no video has it."""
        from torchmetrics.functional.classification import binary_average_precision

        precisions = torch.full((self.num_classes,), torch.nan)
        for k, labels in enumerate(self.labels.unbind(dim=1)):
            if labels.any():
                precisions[k] = binary_average_precision(self.scores[:, k], labels.long())
        return precisions

    def mean_average_precision(self) -> float:
        """Mean over the classes that some video has."""
        return self.average_precision().nanmean().item()

    def class_counts(self) -> tuple[Tensor, Tensor]:
        """How many videos of each class there are, and how many of them are recognised, (K,)."""
        right = self.labels[self.best[1] == self.labels]
        videos, right = (
            torch.bincount(labels, minlength=self.num_classes) for labels in (self.labels, right)
        )
        return videos, right

    def class_accuracy(self) -> Tensor:
        """Share of each class's videos that are recognised, (K,); NaN where there are none."""
        videos, right = self.class_counts()
        return right / videos

    def confusion(self) -> Tensor:
        """Counts (K, K): row is the true class, column the highest score."""
        from torchmetrics.functional.classification import multiclass_confusion_matrix

        return multiclass_confusion_matrix(self.best[1], self.labels, self.num_classes)

    def confused(self) -> Tensor:
        """(true class, class of the highest score, videos) of all pairs that occur, (P, 3)."""
        pairs = self.labels * self.num_classes + self.best[1]
        found, counts = pairs.unique(return_counts=True)
        return torch.stack((found // self.num_classes, found % self.num_classes, counts), dim=1)

    def calibration_error(self) -> float:
        """Expected calibration error of the highest score in ``BINS`` bins (arXiv 1706.04599)."""
        scores, accuracy, counts = self.reliability()
        gaps = (scores - accuracy).abs().nan_to_num() * counts
        return (gaps.sum() / counts.sum()).item()

    def reliability(self) -> tuple[Tensor, Tensor, Tensor]:
        """Mean highest score, accuracy and number of videos of each of the ``BINS`` bins."""
        confidence, guess = self.best
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
    rows: deque[_Rows] = deque()
    failures: list[Failure] = []
    bar = tqdm(loader, desc=title, unit="batch", disable=not process.is_main, leave=False)
    stopped = False
    for batch in bar:
        stopped = stop is not None and stop.received > 0
        if stopped:
            break
        failures += batch.failures
        if len(batch.clips):
            rows.append(_batch_rows(model, batch, process, mean, std, max_clips, ensemble, dtype))
    model.train(was_training)

    videos = [video for part in rows for video in part.videos]
    lost = [video for part in rows for video in part.not_finite()]
    everything = process.gather((videos, lost, failures, stopped))
    if any(stopped for *_, stopped in everything):
        return None
    failures = sorted((f for _, _, part, _ in everything for f in part), key=lambda f: f.index)
    videos = sorted(video for part, *_ in everything for video in part)
    lost = sorted(video for _, part, *_ in everything for video in part)
    if not videos:
        raise DataError(
            f"none of the {len(failures)} videos could be read; the first is "
            f"{failures[0].path}: {failures[0].reason}"
        )
    if lost:
        raise TrainingError(
            f"the scores of {len(lost)} of {len(videos)} videos are not finite numbers (first "
            f"{loader.dataset.paths[lost[0]]}): the model has weights that are not, or its numbers "
            f"are too large for {dtype or torch.float32}"
        )
    labels, scores = _joined(rows, videos, process)
    return Evaluation(torch.tensor(videos), labels, scores, failures)


@dataclass
class _Rows:
    """The results of the videos of a batch."""

    videos: list[int]
    labels: Tensor  # (N,) int64; (N, K) uint8 where a video may have several
    scores: Tensor  # (N, K)

    def not_finite(self) -> list[int]:
        finite = self.scores.isfinite().all(dim=1).tolist()
        return [video for video, whole in zip(self.videos, finite, strict=True) if not whole]


def _joined(rows: deque[_Rows], videos: list[int], process: Process) -> tuple[Tensor, Tensor]:
    """Labels and scores of all processes' videos, in the order of `videos`.

    `rows` is emptied on the way, and what processes send at a time is small, so that memory holds
    the scores about once.
    """
    place = {video: k for k, video in enumerate(videos)}
    labels = scores = None
    left = True
    while left:
        part, size = [], 0
        while rows and size < PART:
            part.append(rows.popleft())
            size += part[-1].scores.numel()
        everything = process.gather((part, len(rows)))
        left = any(count for _, count in everything)
        for found in (found for part, _ in everything for found in part):
            if scores is None:
                labels = torch.empty(len(videos), *found.labels.shape[1:], dtype=found.labels.dtype)
                scores = torch.empty(len(videos), *found.scores.shape[1:])
            places = [place[video] for video in found.videos]
            labels[places], scores[places] = found.labels, found.scores
    return labels, scores


def _batch_rows(
    model: nn.Module, batch: Batch, process: Process, mean, std, max_clips, ensemble, dtype
) -> _Rows:
    logits = clip_logits(
        model,
        batch.clips,
        mean=mean,
        std=std,
        device=process.device,
        max_clips=max_clips,
        dtype=dtype,
    )
    videos, labels, scores = batch.videos.unique_consecutive(), [], []
    for video in videos:
        mine = batch.videos == video
        label = batch.labels[mine][0]  # () or (K,)
        several = label.dim() == 1
        labels.append(label.to(torch.uint8) if several else label)
        scores.append(ensemble_views(logits[mine], ensemble, multi_label=several))
    return _Rows(videos.tolist(), torch.stack(labels), torch.stack(scores))
