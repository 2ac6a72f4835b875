"""Multi-view evaluation: every video once, its views joined into one result."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm import tqdm

from videonet.data import Batch, Failure, VideoLoader
from videonet.data.batch_transforms import normalize
from videonet.engine.distributed import Process
from videonet.engine.signals import StopSignals
from videonet.errors import DataError, TrainingError
from videonet.tasks.task import Evaluation, Task

PART = 2**22  # numbers that are sent to other processes at a time


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


def evaluate(
    model: nn.Module,
    loader: VideoLoader,
    process: Process,
    task: Task,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    max_clips: int,
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
            rows.append(_batch_rows(model, batch, process, task, mean, std, max_clips, dtype))
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
    return task.evaluation(torch.tensor(videos), labels, scores, failures)


@dataclass
class _Rows:
    """The results of the videos of a batch."""

    videos: list[int]
    labels: Tensor  # (N, …) as Task.to_keep gives them
    scores: Tensor  # (N, …) as Task.join_views gives them

    def not_finite(self) -> list[int]:
        finite = self.scores.flatten(1).isfinite().all(dim=1).tolist()
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
    model: nn.Module, batch: Batch, process: Process, task: Task, mean, std, max_clips, dtype
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
        mine = (batch.videos == video).nonzero()[:, 0]
        targets = batch.targets.rows(mine.tolist())
        labels.append(task.to_keep(targets))
        scores.append(task.join_views(logits[mine], targets))
    return _Rows(videos.tolist(), torch.stack(labels), torch.stack(scores))
