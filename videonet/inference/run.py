"""Many videos, one after the other: scores, windows and segments written as they come."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from videonet.data.decode import PyAVReader
from videonet.errors import ConfigError, DecodeError, ScoreError
from videonet.inference.predictor import Predictor, WindowScores
from videonet.inference.result_files import ResultWriter, VideoResult, WindowResult
from videonet.inference.sources import Source
from videonet.tasks.segments import Hysteresis
from videonet.terminal import logs_above_bars, progress_bar

if TYPE_CHECKING:
    from videonet.inference.pictures import Pictures

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """How videos are scored.

    Attributes:
        top_k: the most outputs that are named.
        sliding: windows over the whole video instead of the views of testing.
        window: seconds, see :meth:`Predictor.plan`.
        stride: seconds, see :meth:`Predictor.plan`.
        crops: 1 or 3 of each window.
        aggregate: how the scores of clips become those of the video: "mean", "max", "attention"
            (needs the predictor's ``video_head``), or "" for ``TEST.ENSEMBLE`` of the views and the
            mean of windows.
        segments: when a segment begins and ends.
    """

    top_k: int = 5
    sliding: bool = False
    window: float | None = None
    stride: float | None = None
    crops: int = 1
    aggregate: str = ""
    segments: Hysteresis = field(default_factory=Hysteresis)

    def __post_init__(self) -> None:
        if self.top_k < 1:
            raise ConfigError(f"--top-k is {self.top_k}, expected 1 or more")


def predict_videos(
    predictor: Predictor,
    sources: Sequence[Source],
    writer: ResultWriter,
    options: Options,
    pictures: Pictures | None = None,
    *,
    progress: bool = True,
) -> int:
    """Score every video that the writer does not hold yet.

    A video that cannot be read, or whose scores are not finite, is written and logged as failed,
    and the others are scored.

    Args:
        predictor: scores the videos.
        sources: the videos.
        writer: takes the results.
        options: how videos are scored.
        pictures: draws what was asked for; None for no pictures.
        progress: show progress bars.

    Returns:
        The number of videos that failed.
    """
    failed = 0
    bar = progress_bar(total=len(sources), show=progress, desc="videos", unit="videos")
    with logs_above_bars(), bar:
        for source in sources:
            if source.path not in writer.done:
                try:
                    _predict_video(predictor, source.path, writer, options, pictures, progress)
                except (DecodeError, ScoreError) as error:
                    failed += 1
                    reason = str(error) if source.path in str(error) else f"{source.path}: {error}"
                    logger.error("%s", reason)
                    writer.failure(source.path, reason)
            bar.update()
    return failed


def _predict_video(
    predictor: Predictor,
    video: str,
    writer: ResultWriter,
    options: Options,
    pictures: Pictures | None,
    progress: bool,
) -> None:
    if not options.sliding:
        clips = predictor.views(video)
        prediction = predictor.score(clips, options.top_k, options.aggregate)
        if pictures is not None:
            pictures.of_views(video, prediction)
        writer.video(video, VideoResult(prediction.top))
        return
    windows: list[WindowResult] = []
    embeddings: list[torch.Tensor] = []
    for window, embedding in _windows(predictor, video, writer, options, progress):
        windows.append(window)
        if embedding is not None:
            embeddings.append(embedding)
    times = [(w.start, w.end) for w in windows]
    rows = np.asarray([w.scores for w in windows], dtype=np.float32)  # (N, K)
    segments = predictor.task.segments(times, rows, options.segments)
    total = predictor.aggregate(
        torch.from_numpy(rows),
        torch.stack(embeddings) if options.aggregate == "attention" else None,
        options.aggregate or "mean",
    )
    result = VideoResult(predictor.top(total, options.top_k), len(windows), segments)
    if pictures is not None:
        pictures.of_windows(video, times, rows, segments)
    writer.video(video, result)


def _windows(
    predictor: Predictor, video: str, writer: ResultWriter, options: Options, progress: bool
) -> Iterator[tuple[WindowResult, torch.Tensor | None]]:
    """The windows of a video with their embeddings, where a learned head needs them.

    Windows that the writer already holds are not scored again.
    """
    # A learned head needs the embeddings of all windows, which results do not hold.
    known = [] if options.aggregate == "attention" else writer.unfinished(video)
    yield from ((result, None) for result in known)
    with PyAVReader(video) as reader:
        info = reader.info
    total = predictor.plan(info.fps, options.window, options.stride).count(info.duration)
    scored = predictor.windows(
        video,
        window=options.window,
        stride=options.stride,
        crops=options.crops,
        first=len(known),
    )
    bar = progress_bar(
        scored,
        show=progress,
        total=total,
        initial=len(known),
        desc="windows",
        unit="windows",
        leave=False,
    )
    for window in bar:
        result = _result(predictor, window, options.top_k)
        writer.window(video, result)
        yield result, window.embedding if options.aggregate == "attention" else None


def _result(predictor: Predictor, window: WindowScores, top_k: int) -> WindowResult:
    top = [(name, round(score, 6)) for name, score in predictor.top(window.scores, top_k)]
    scores = [round(score, 6) for score in window.scores.tolist()]
    start, end = round(window.start, 4), round(window.end, 4)
    return WindowResult(window.index, start, end, top, scores)
