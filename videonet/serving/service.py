"""What a server does with an upload: scores over time, objects of frames, explanations, search."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from torch import Tensor

from videonet.data.loading.build import clip_sampler
from videonet.data.transforms.sampling import SEGMENTS
from videonet.inference.dense import DensePredictor
from videonet.inference.predictions import WindowScores
from videonet.inference.predictor import Predictor
from videonet.inference.result_files import VideoResult, WindowResult
from videonet.serving.decoding import (
    Clip,
    Facts,
    Views,
    Windows,
    chunk_size,
)
from videonet.serving.dense import dense_result
from videonet.serving.explaining import explain_clip
from videonet.serving.jobs import Jobs, Parts
from videonet.serving.limits import Limits, Refusal
from videonet.serving.schemas import (
    Explanation,
    LabelledSegment,
    ModelResult,
    Moment,
    PredictionAnswer,
    Score,
    VideoFacts,
    WindowScore,
)
from videonet.serving.searching import IndexSearch, nearest_moments
from videonet.serving.uploads import Upload
from videonet.tasks.segments import Hysteresis

NO_INDEX = "this server has no index to search: start it with --index"


@dataclass(frozen=True)
class Wanted:
    """What is asked of a video, see :class:`videonet.inference.run.Options`."""

    models: Sequence[str] = ()
    top_k: int = 5
    sliding: bool = False
    window: float | None = None
    stride: float | None = None
    crops: int = 1
    segments: Hysteresis = field(default_factory=Hysteresis)
    min_score: float = 0.3  # of objects


class Service(Jobs):
    """What is done with uploads.

    Args:
        models: see :class:`Jobs`.
        limits: likewise.
        workers: likewise.
        search: finds similar moments; None for no search.
    """

    def __init__(
        self,
        models: Mapping[str, Predictor | DensePredictor],
        limits: Limits | None = None,
        *,
        workers: int = 2,
        search: IndexSearch | None = None,
    ):
        super().__init__(models, limits, workers=workers)
        self.search = search

    def slides(self, name: str) -> bool:
        """Whether the windows of a model have a length where none is asked for."""
        if name in self.dense:
            return False
        return clip_sampler(self.models[name].cfg, "test").mode != SEGMENTS

    async def predict(self, upload: Upload, wanted: Wanted, token: str = "") -> PredictionAnswer:
        """What the models say of an upload.

        Raises:
            Refusal: it cannot be answered, and why.
        """
        return await self.in_turn(self._predict(upload, wanted, token), upload, token)

    async def explain(
        self,
        upload: Upload,
        model: str,
        label: str,
        time: float,
        window: float | None = None,
        stride: float | None = None,
    ) -> Explanation:
        """Where a model looks in the window around a time, for a label or for the best one.

        Raises:
            Refusal: it cannot be answered, and why.
        """
        return await self.in_turn(self._explain(upload, model, label, time, window, stride), upload)

    async def moments(
        self, upload: Upload, start: float, end: float | None, count: int
    ) -> list[Moment]:
        """The moments of the index nearest to a stretch of an upload.

        Raises:
            Refusal: it cannot be answered, and why.
        """
        if self.search is None:
            raise Refusal(404, NO_INDEX)
        return await self.in_turn(
            nearest_moments(self, self.search, upload, start, end, count), upload
        )

    async def scores(self, path: str) -> Tensor:
        """The first model's scores of a video (K,), with the views of testing.

        Raises:
            DecodeError, ScoreError: there are none.
        """
        name, predictor = next(iter(self.predictors.items()))
        clips = torch.from_numpy(await self.decode(Views(path, self.number(name))))
        return (await self.compute(predictor.score, clips)).scores

    def model(self, name: str) -> tuple[str, Predictor | DensePredictor]:
        """A model and its name, the first for an empty one.

        Raises:
            Refusal: there is none of this name, or none at all.
        """
        if not self.models:
            raise Refusal(404, "this server has no model: start it with --checkpoint")
        name = name or next(iter(self.models))
        if name not in self.models:
            known = ", ".join(self.models)
            raise Refusal(404, f"there is no model of this name, but {known}")
        return name, self.models[name]

    async def _predict(self, upload: Upload, wanted: Wanted, token: str) -> PredictionAnswer:
        names = [self.model(name)[0] for name in wanted.models or [""]]
        self.note(token, "reading", 0, 0)
        facts = await self.look(upload)
        strip = await self.strip(str(upload.path))
        results = [await self._result(upload, facts, name, wanted, token) for name in names]
        shown = VideoFacts(**asdict(facts))
        return PredictionAnswer(video=upload.name, facts=shown, strip=strip, results=results)

    async def _result(
        self, upload: Upload, facts: Facts, name: str, wanted: Wanted, token: str
    ) -> ModelResult:
        if name in self.dense:
            score, top_k = wanted.min_score, wanted.top_k
            return await dense_result(self, upload, facts, name, score, top_k, token)
        predictor = self.predictors[name]
        windows: list[WindowResult] = []
        if wanted.sliding and not facts.is_picture:
            result = await self._of_windows(upload, facts, name, wanted, token, windows)
        else:
            clips = torch.from_numpy(await self.decode(Views(str(upload.path), self.number(name))))
            self.note(token, "scoring", 0, 0)
            prediction = await self.compute(predictor.score, clips, wanted.top_k)
            result = VideoResult(prediction.top)
        kept = await asyncio.to_thread(self.results.add, upload.name, windows, result, wanted.top_k)
        place = f"/api/results/{kept}"
        return ModelResult(
            model=name,
            classes=predictor.class_names,
            top=[Score(label=label, score=score) for label, score in result.top],
            windows=[WindowScore(start=w.start, end=w.end, scores=list(w.scores)) for w in windows],
            segments=[LabelledSegment(**asdict(segment)) for segment in result.segments],
            jsonl=f"{place}.jsonl",
            csv=f"{place}.csv",
        )

    async def _of_windows(
        self,
        upload: Upload,
        facts: Facts,
        name: str,
        wanted: Wanted,
        token: str,
        windows: list[WindowResult],
    ) -> VideoResult:
        """Fill `windows`, and say what they are together."""
        predictor = self.predictors[name]
        self._check_window(wanted.window)
        total = predictor.plan(facts.fps, wanted.window, wanted.stride).count(facts.duration)
        self.check_windows(upload, total)
        async with self._clips(upload, name, wanted) as groups:
            async for clips in groups:
                scored = await self.score_windows(name, clips)
                windows += [_rounded(predictor, window, wanted.top_k) for window in scored]
                self.note(token, "scoring", len(windows), total)
        times = [(window.start, window.end) for window in windows]
        rows = np.asarray([window.scores for window in windows], dtype=np.float32)  # (N, K)
        segments = predictor.task.segments(times, rows, wanted.segments)
        mean = predictor.aggregate(torch.from_numpy(rows), None, "mean")
        return VideoResult(predictor.top(mean, wanted.top_k), len(windows), segments)

    def _clips(self, upload: Upload, name: str, wanted: Wanted) -> Parts[Clip]:
        """The windows of an upload."""
        path, number = str(upload.path), self.number(name)
        count = chunk_size(self.models[name].cfg, wanted.crops)

        def step(first: int) -> Windows:
            return Windows(path, number, wanted.window, wanted.stride, wanted.crops, first, count)

        return self.steps(step, count)

    async def _explain(
        self,
        upload: Upload,
        name: str,
        label: str,
        time: float,
        window: float | None,
        stride: float | None,
    ) -> Explanation:
        name, predictor = self.model(name)
        if isinstance(predictor, DensePredictor):
            raise Refusal(422, f"{name} labels no videos: only a model that does is explained")
        if label and label not in predictor.class_names:
            raise Refusal(422, f"{name} has no class of this name")
        facts = await self.look(upload)
        number = self.number(name)
        if facts.is_picture or not (window or self.slides(name)):
            pixels = await self.decode(Views(str(upload.path), number))
            clip = Clip(0, 0.0, facts.duration, pixels[len(pixels) // 2][None])
        else:
            self._check_window(window)
            plan = predictor.plan(facts.fps, window, stride)
            place = round((time * plan.fps - plan.length / 2) / plan.stride)
            first = max(0, min(place, plan.count(facts.duration) - 1))
            step = Windows(str(upload.path), number, window, stride, 1, first, 1)
            found = await self.decode(step)
            if not found:
                raise Refusal(422, f"{upload.name} has no window at {time:g} s")
            clip = found[0]
        return await self.compute(explain_clip, predictor, name, clip, label)

    def _check_window(self, window: float | None) -> None:
        longest = self.limits.max_seconds
        if window is not None and window > longest:
            raise Refusal(
                422,
                f"window: a window of {window:g} s is longer than a video may be, {longest:g} s",
            )


def _rounded(predictor: Predictor, window: WindowScores, top_k: int) -> WindowResult:
    """As results are written, see :class:`WindowResult`."""
    top = [(label, round(score, 6)) for label, score in predictor.top(window.scores, top_k)]
    scores = [round(score, 6) for score in window.scores.tolist()]
    return WindowResult(window.index, round(window.start, 4), round(window.end, 4), top, scores)
