"""Embeddings of the clips of many videos, for retrieval, probes and heads."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch

from videonet.data.feature_store import FeatureWriter, VideoFeatures
from videonet.data.loading.build import evaluation_views
from videonet.errors import DecodeError, ScoreError
from videonet.inference.description import describe_clips, describe_scoring
from videonet.inference.predictor import Predictor
from videonet.inference.run import Options
from videonet.inference.sources import Source
from videonet.terminal import logs_above_bars, progress_bar

logger = logging.getLogger(__name__)


def describe_features(predictor: Predictor, options: Options, *, frames: bool) -> dict:
    """What features depend on, as JSON, for :class:`FeatureWriter`.

    Args:
        predictor: computes the features.
        options: which clips of a video are used.
        frames: whether each frame gets a vector too.
    """
    model, clips = describe_scoring(predictor), describe_clips(predictor, options)
    return {**model, **clips, "frames": frames}


def extract_features(
    predictor: Predictor,
    sources: Sequence[Source],
    writer: FeatureWriter,
    options: Options,
    *,
    frames: bool = False,
    progress: bool = True,
) -> int:
    """Write the embeddings of every video that the writer does not hold yet.

    Args:
        predictor: computes the embeddings.
        sources: the videos.
        writer: takes the embeddings.
        options: the views of testing, or a sliding window.
        frames: also a vector per frame of the last stage's grid (not with a sliding window).
        progress: show a progress bar.

    Returns:
        The number of videos that could not be read, or whose embeddings are not finite.
    """
    failed = 0
    bar = progress_bar(sources, show=progress, desc="videos", unit="videos")
    with logs_above_bars():
        for source in bar:
            if source.path in writer.done:
                continue
            try:
                if options.sliding:
                    writer.add(_of_windows(predictor, source, options))
                else:
                    writer.add(_of_views(predictor, source, frames))
            except (DecodeError, ScoreError) as error:
                failed += 1
                reason = str(error) if source.path in str(error) else f"{source.path}: {error}"
                logger.error("%s", reason)
                writer.failure(source.path, reason)
    return failed


def _of_windows(predictor: Predictor, source: Source, options: Options) -> VideoFeatures:
    windows = predictor.windows(
        source.path, window=options.window, stride=options.stride, crops=options.crops
    )
    rows = [(window.embedding, (window.start, window.end)) for window in windows]
    embeddings, times = zip(*rows, strict=True)
    return VideoFeatures(
        source.path, torch.stack(embeddings).numpy(), np.array(times), label=source.label
    )


def _of_views(predictor: Predictor, source: Source, frames: bool) -> VideoFeatures:
    views = evaluation_views(predictor.cfg)
    with views.open(source.path) as reader:
        info, clock, clips = reader.info, reader.times, views.of(reader).clips
    indices = views.sampler.uniform(info.frames, info.fps, views.temporal, clock)
    times = [(clock[row.min()], clock[row.max()] + 1 / info.fps) for row in indices]
    _, embeddings = predictor.run(clips)
    return VideoFeatures(
        source.path,
        embeddings.numpy(),
        np.repeat(np.array(times), views.spatial, axis=0),
        predictor.frame_embeddings(clips).numpy() if frames else None,
        source.label,
    )
