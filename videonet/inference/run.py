"""The scores, windows and segments of many videos, written as they come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from videonet.inference.clips import Piece
from videonet.inference.many import Action, Collector, Run
from videonet.inference.options import Options
from videonet.inference.predictions import Prediction, WindowScores
from videonet.inference.predictor import Predictor
from videonet.inference.result_files import ResultWriter, VideoResult, WindowResult
from videonet.inference.scoring import Scored
from videonet.inference.sources import Source

if TYPE_CHECKING:
    from videonet.inference.pictures import Pictures


def predict_videos(
    predictor: Predictor,
    sources: Sequence[Source],
    writer: ResultWriter,
    options: Options,
    pictures: Pictures | None = None,
    *,
    progress: bool = True,
    workers: int = 0,
    devices: Sequence[str] = (),
    ordered: bool = True,
) -> int:
    """Score every video that the writer does not hold yet.

    A video that cannot be read, or whose scores are not finite, is written and logged as failed,
    and the others are scored. The scores of a video do not depend on the others, on the number of
    processes or on the order; see :mod:`videonet.inference.scoring`.

    Args:
        predictor: scores the videos.
        sources: the videos.
        writer: takes the results.
        options: how videos are scored.
        pictures: draws what was asked for; None for no pictures.
        progress: show a progress bar.
        workers: processes that decode while the model computes; 0: this one decodes.
        devices: where copies of the model run; none for the predictor's own device.
        ordered: results are written in the order of the videos, else as they come.

    Returns:
        The number of videos that failed.
    """
    todo = [source.path for source in sources if source.path not in writer.done]

    def collect(number: int) -> Collector:
        if options.sliding:
            return _Windows(predictor, todo[number], writer, options, pictures)
        return _Views(predictor, todo[number], writer, options, pictures)

    run = Run(
        predictor,
        options,
        collect,
        writer.failure,
        workers=workers,
        devices=devices,
        ordered=ordered,
        progress=progress,
    )
    return run.files(todo, len(sources))


class _Views:
    """Makes the result of a video from its views."""

    first = 0

    def __init__(
        self,
        predictor: Predictor,
        video: str,
        writer: ResultWriter,
        options: Options,
        pictures: Pictures | None,
    ):
        self.predictor, self.video, self.writer = predictor, video, writer
        self.options, self.pictures = options, pictures
        self._prediction: Prediction | None = None

    def add(self, piece: Piece, scored: Scored) -> None:
        self.predictor.refuse_infinite(scored.outputs, scored.embeddings)
        self._prediction = self.predictor.predict(
            scored.outputs,
            scored.embeddings,
            piece.clips,
            self.options.top_k,
            self.options.aggregate,
        )

    def finish(self) -> Action:
        prediction = self._prediction
        if prediction is None:
            raise RuntimeError(f"{self.video} has ended without its views")

        def write() -> None:
            if self.pictures is not None:
                self.pictures.of_views(self.video, prediction)
            self.writer.video(self.video, VideoResult(prediction.top))

        return write


class _Windows:
    """Makes the results of a video's windows, then that of the video.

    Windows that the writer already holds are not scored again.
    """

    def __init__(
        self,
        predictor: Predictor,
        video: str,
        writer: ResultWriter,
        options: Options,
        pictures: Pictures | None,
    ):
        self.predictor, self.video, self.writer = predictor, video, writer
        self.options, self.pictures = options, pictures
        # A learned head needs the embeddings of all windows, which results do not hold.
        self._attention = options.aggregate == "attention"
        self._windows = [] if self._attention else list(writer.unfinished(video))
        self._embeddings: list[torch.Tensor] = []
        self.first = len(self._windows)

    def add(self, piece: Piece, scored: Scored) -> Action:
        results = []
        for window in windows_of(self.predictor, piece, scored):
            results.append(_result(self.predictor, window, self.options.top_k))
            if self._attention:
                self._embeddings.append(window.embedding)
        self._windows += results

        def write() -> None:
            for result in results:
                self.writer.window(self.video, result)

        return write

    def finish(self) -> Action:
        options, windows = self.options, self._windows
        times = [(w.start, w.end) for w in windows]
        rows = np.asarray([w.scores for w in windows], dtype=np.float32)  # (N, K)
        segments = self.predictor.task.segments(times, rows, options.segments)
        total = self.predictor.aggregate(
            torch.from_numpy(rows),
            torch.stack(self._embeddings) if self._attention else None,
            options.aggregate or "mean",
        )
        result = VideoResult(self.predictor.top(total, options.top_k), len(windows), segments)

        def write() -> None:
            if self.pictures is not None:
                self.pictures.of_windows(self.video, times, rows, segments)
            self.writer.video(self.video, result)

        return write


def windows_of(predictor: Predictor, piece: Piece, scored: Scored) -> list[WindowScores]:
    """The scores of the windows of a piece.

    Raises:
        ScoreError: they are not finite.
    """
    span = piece.span
    if not span.times:
        return []
    predictor.refuse_infinite(scored.outputs, scored.embeddings)
    each = span.clips // len(span.times)
    parts = zip(scored.outputs.split(each), scored.embeddings.split(each), span.times, strict=True)
    return [
        WindowScores(index, start, end, predictor.task.join_views(rows), vectors.mean(dim=0))
        for index, (rows, vectors, (start, end)) in enumerate(parts, span.first)
    ]


def _result(predictor: Predictor, window: WindowScores, top_k: int) -> WindowResult:
    top = [(name, round(score, 6)) for name, score in predictor.top(window.scores, top_k)]
    scores = [round(score, 6) for score in window.scores.tolist()]
    start, end = round(window.start, 4), round(window.end, 4)
    return WindowResult(window.index, start, end, top, scores)
