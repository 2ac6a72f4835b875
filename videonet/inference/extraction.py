"""Embeddings of the clips of many videos, for retrieval, probes and heads."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from videonet.data.feature_store import FeatureWriter, VideoFeatures
from videonet.data.loading.build import evaluation_views
from videonet.errors import DecodeError, ScoreError
from videonet.inference.clips import Piece
from videonet.inference.description import describe_clips, describe_scoring
from videonet.inference.many import Action, Run
from videonet.inference.options import Options
from videonet.inference.predictor import Predictor
from videonet.inference.run import windows_of
from videonet.inference.scoring import Scored
from videonet.inference.sources import Source
from videonet.terminal import logs_above_bars, progress_bar

logger = logging.getLogger(__name__)


ClipsOf = Callable[[Source], Tensor]  # clips of a video, uint8 (N, 3, T, S, S)


def describe_features(
    predictor: Predictor, options: Options, *, frames: bool, tokens: bool = False
) -> dict:
    """What features depend on, as JSON, for :class:`FeatureWriter`.

    Args:
        predictor: computes the features.
        options: which clips of a video are used.
        frames: whether each frame gets a vector too.
        tokens: whether all tokens are kept.
    """
    model, clips = describe_scoring(predictor), describe_clips(predictor, options)
    return {**model, **clips, "frames": frames, **({"tokens": True} if tokens else {})}


def extract_features(
    predictor: Predictor,
    sources: Sequence[Source],
    writer: FeatureWriter,
    options: Options,
    *,
    frames: bool = False,
    tokens: bool = False,
    clips_of: ClipsOf | None = None,
    progress: bool = True,
    workers: int = 0,
    devices: Sequence[str] = (),
    ordered: bool = True,
) -> int:
    """Write the embeddings of every video that the writer does not hold yet.

    Args:
        predictor: computes the embeddings.
        sources: the videos.
        writer: takes the embeddings.
        options: the views of testing, or a sliding window.
        frames: also a vector per frame of the last stage's grid (not with a sliding window).
        tokens: also all tokens of the last stage (not with a sliding window).
        clips_of: makes the clips of a video in place of `options`; their times are not known.
        progress: show a progress bar.
        workers: see :func:`videonet.inference.run.predict_videos`, as for the others; videos with
            `tokens` or `clips_of` are read one after the other by this process.
        devices: of copies of the model.
        ordered: in the order of the videos.

    Returns:
        The number of videos that could not be read, or whose embeddings are not finite.
    """
    if clips_of is None and not tokens:
        todo = [source for source in sources if source.path not in writer.done]
        run = Run(
            predictor,
            options,
            lambda number: _Features(predictor, todo[number], writer, options, frames),
            writer.failure,
            workers=workers,
            devices=devices,
            frames=frames,
            ordered=ordered,
            progress=progress,
        )
        return run.files([source.path for source in todo], len(sources))
    failed = 0
    bar = progress_bar(sources, show=progress, desc="videos", unit="videos")
    with logs_above_bars():
        for source in bar:
            if source.path in writer.done:
                continue
            try:
                if clips_of is not None:
                    clips = clips_of(source)
                    times = np.zeros((len(clips), 2))
                    writer.add(_of_clips(predictor, source, clips, times, frames, tokens))
                else:
                    writer.add(_of_views(predictor, source, frames, tokens))
            except (DecodeError, ScoreError) as error:
                failed += 1
                reason = str(error) if source.path in str(error) else f"{source.path}: {error}"
                logger.error("%s", reason)
                writer.failure(source.path, reason)
    return failed


def _of_views(predictor: Predictor, source: Source, frames: bool, tokens: bool) -> VideoFeatures:
    views = evaluation_views(predictor.cfg)
    with views.open(source.path) as reader:
        info, clock, clips = reader.info, reader.times, views.of(reader).clips
    indices = views.sampler.uniform(info.frames, info.fps, views.temporal, clock)
    times = [(clock[row.min()], clock[row.max()] + 1 / info.fps) for row in indices]
    each = np.repeat(np.array(times), views.spatial, axis=0)
    return _of_clips(predictor, source, clips, each, frames, tokens)


def _of_clips(
    predictor: Predictor,
    source: Source,
    clips: Tensor,
    times: np.ndarray,
    frames: bool,
    tokens: bool,
) -> VideoFeatures:
    embeddings, every = (
        predictor.token_embeddings(clips) if tokens else (predictor.run(clips)[1], None)
    )
    return VideoFeatures(
        source.path,
        embeddings.numpy(),
        times,
        predictor.frame_embeddings(clips).numpy() if frames else None,
        source.label,
        None if every is None else every.half().numpy(),
    )


class _Features:
    """Gathers the embeddings of a video."""

    first = 0

    def __init__(
        self,
        predictor: Predictor,
        source: Source,
        writer: FeatureWriter,
        options: Options,
        frames: bool,
    ):
        self.predictor, self.source, self.writer = predictor, source, writer
        self.options, self.frames = options, frames
        self._times: list[tuple[float, float]] = []
        self._vectors: list[torch.Tensor] = []
        self._of_frames: list[torch.Tensor] = []

    def add(self, piece: Piece, scored: Scored) -> None:
        self._times += piece.span.times
        if self.options.sliding:
            windows = windows_of(self.predictor, piece, scored)
            self._vectors += [window.embedding for window in windows]
            return
        self.predictor.refuse_infinite(scored.outputs, scored.embeddings, scored.frames)
        self._vectors += list(scored.embeddings)
        self._of_frames += list(scored.frames) if self.frames else []

    def finish(self) -> Action:
        features = VideoFeatures(
            self.source.path,
            torch.stack(self._vectors).numpy(),
            np.array(self._times),
            torch.stack(self._of_frames).numpy() if self.frames else None,
            self.source.label,
        )
        return lambda: self.writer.add(features)
