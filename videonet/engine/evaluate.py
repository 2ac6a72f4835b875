"""Evaluation: each video once, the scores of its views joined into one result."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from videonet.data import Batch, Failure, VideoLoader
from videonet.data.transforms.batch import normalize
from videonet.devices import apply_to_clips
from videonet.engine.distributed import Process
from videonet.engine.signals import StopSignals
from videonet.errors import DataError, ScoreError, TrainingError
from videonet.ops.kernels.replay import Replays
from videonet.tasks.task import Evaluation, RecordTask, Results, Task
from videonet.terminal import progress_bar

PART = 2**22  # numbers that a process sends to the others at a time
RECORDS = 256  # records that it sends at a time


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
    replays: Replays | None = None,
) -> Results | None:
    """Run a model over a data set; called by all processes together.

    Args:
        model: maps normalised clips to outputs; its mode (training or evaluation) is kept.
        loader: this process's share of the data set.
        process: this process.
        task: says what is made of outputs and targets.
        mean: of the three channels, for normalisation.
        std: of the three channels.
        max_clips: the number of clips on the device at a time.
        dtype: the precision of autocast; None for full precision.
        title: of the progress bar.
        stop: ends the evaluation early when any process has received a signal.
        replays: for shapes that repeat; None to run the model each time.

    Returns:
        The results of all videos, the same on every process; None if `stop` ended it.

    Raises:
        DataError: not a single video could be read.
        TrainingError: the scores of a video are not finite.
    """
    was_training = model.training
    model.eval()
    rows: deque[_Rows] = deque()
    records: deque[_Record] = deque()
    settings = _Settings(mean, std, max_clips, dtype)
    failures: list[Failure] = []
    bar = progress_bar(loader, show=process.shows_progress, desc=title, unit="batches", leave=False)
    stopped = False
    for batch in bar:
        stopped = stop is not None and stop.received > 0
        if stopped:
            break
        failures += batch.failures
        if not len(batch.clips):
            continue
        if isinstance(task, RecordTask):
            annotations = loader.dataset.annotations
            rows_of = None if annotations is None else annotations.rows
            records += _batch_records(model, batch, process, task, settings, rows_of)
        else:
            outputs = apply_to_clips(
                model,
                batch.clips,
                mean=mean,
                std=std,
                device=process.device,
                max_clips=max_clips,
                dtype=dtype,
                replays=replays,
                model=model,
            )[0]
            rows.append(_batch_rows(outputs, batch, task))
    model.train(was_training)

    found = _of_all_processes(rows, records, failures, process, stopped=stopped)
    if found is None:
        return None
    videos, lost, failures = found
    if lost:
        raise TrainingError(
            f"the scores of {len(lost)} of {len(videos)} videos are not finite numbers (first "
            f"{loader.dataset.paths[lost[0]]}): the model has weights that are not, or its numbers "
            f"are too large for {dtype or torch.float32}"
        )
    if isinstance(task, RecordTask):
        whole = _joined_records(records, process)
        return task.evaluation(
            torch.tensor(videos), [whole[video] for video in videos], task, failures
        )
    assert issubclass(task.evaluation, Evaluation)
    kept, scores = _joined(rows, videos, process)
    return task.evaluation(torch.tensor(videos), kept, scores, failures)


def _of_all_processes(
    rows: deque[_Rows],
    records: deque[_Record],
    failures: list[Failure],
    process: Process,
    *,
    stopped: bool,
) -> tuple[list[int], list[int], list[Failure]] | None:
    """The videos with results, those whose results are not finite, and those without any.

    None where a process was stopped.

    Raises:
        DataError: not a single video could be read.
    """
    videos = [video for part in rows for video in part.videos]
    videos += [record.video for record in records]
    lost = [video for part in rows for video in part.not_finite()]
    lost += [record.video for record in records if record.is_lost]
    everything = process.gather((videos, lost, failures, stopped))
    if any(stopped for *_, stopped in everything):
        return None
    failures = sorted((f for _, _, part, _ in everything for f in part), key=lambda f: f.index)
    videos = sorted(video for part, *_ in everything for video in part)
    if not videos:
        raise DataError(
            f"none of the {len(failures)} videos could be read; the first is "
            f"{failures[0].path}: {failures[0].reason}"
        )
    return videos, sorted(video for _, part, *_ in everything for video in part), failures


@dataclass(frozen=True)
class _Settings:
    """How clips are normalised and computed; see :func:`evaluate`."""

    mean: Sequence[float]
    std: Sequence[float]
    max_clips: int
    dtype: torch.dtype | None


@dataclass
class _Rows:
    """The results of the videos of a batch; see :class:`Task` for what is kept and scores."""

    videos: list[int]
    kept: Tensor  # (N, …) as Task.to_keep gives them
    scores: Tensor  # (N, …) as Task.join_views gives them

    def not_finite(self) -> list[int]:
        """The videos with scores that are not finite."""
        finite = self.scores.flatten(1).isfinite().all(dim=1).tolist()
        return [video for video, whole in zip(self.videos, finite, strict=True) if not whole]


def _joined(rows: deque[_Rows], videos: list[int], process: Process) -> tuple[Tensor, Tensor]:
    """Gather what is kept and the scores of all processes' videos, in the order of `videos`.

    The processes exchange a few batches at a time, and `rows` loses those that were sent, so that
    the scores are held once and not twice.
    """
    place = {video: k for k, video in enumerate(videos)}
    kept = scores = torch.empty(0)
    left = True
    while left:
        part: list[_Rows] = []
        size = 0
        while rows and size < PART:
            part.append(rows.popleft())
            size += part[-1].scores.numel()
        everything = process.gather((part, len(rows)))
        left = any(count for _, count in everything)
        for found in (found for part, _ in everything for found in part):
            if not len(scores):
                kept = torch.empty(len(videos), *found.kept.shape[1:], dtype=found.kept.dtype)
                scores = torch.empty(len(videos), *found.scores.shape[1:])
            places = [place[video] for video in found.videos]
            kept[places], scores[places] = found.kept, found.scores
    return kept, scores


def _batch_rows(outputs: Tensor, batch: Batch, task: Task) -> _Rows:
    """The results of the videos of a batch, from the model's outputs (N, …) for its clips."""
    videos, kept, scores = batch.videos.unique_consecutive(), [], []
    for video in videos:
        mine = (batch.videos == video).nonzero()[:, 0]
        targets = batch.targets.rows(mine.tolist())
        kept.append(task.to_keep(targets))
        scores.append(task.join_views(outputs[mine], targets))
    return _Rows(videos.tolist(), torch.stack(kept), torch.stack(scores))


@dataclass(frozen=True)
class _Record:
    """The record of a video, or that its outputs are not finite."""

    video: int
    content: Any
    is_lost: bool = False


@torch.inference_mode()
def _batch_records(
    model: nn.Module,
    batch: Batch,
    process: Process,
    task: RecordTask,
    settings: _Settings,
    annotations: Any,
) -> list[_Record]:
    """The records of the videos of a batch; `annotations` has one row per video of the list."""
    outputs: list[Any] = []
    for places in torch.arange(len(batch.clips)).split(settings.max_clips):
        clips = batch.clips[places].to(process.device, non_blocking=True)
        clips = normalize(clips, settings.mean, settings.std)
        with torch.autocast(
            process.device.type, dtype=settings.dtype, enabled=settings.dtype is not None
        ):
            outputs += task.run(model, clips, batch.targets.rows(places.tolist()))
    found = []
    for video in batch.videos.unique_consecutive().tolist():
        mine = (batch.videos == video).nonzero()[:, 0].tolist()
        annotation = None if annotations is None else annotations[video]
        try:
            content = task.record([outputs[k] for k in mine], batch.targets.rows(mine), annotation)
        except ScoreError:
            found.append(_Record(video, None, is_lost=True))
        else:
            found.append(_Record(video, content))
    return found


def _joined_records(records: deque[_Record], process: Process) -> dict[int, Any]:
    """The records of all processes by their video, exchanged some at a time."""
    whole: dict[int, Any] = {}
    left = True
    while left:
        part = [records.popleft() for _ in range(min(len(records), RECORDS))]
        everything = process.gather((part, len(records)))
        left = any(count for _, count in everything)
        whole |= {record.video: record.content for part, _ in everything for record in part}
    return whole
