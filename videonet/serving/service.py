"""What a server does with an upload: scores over time, objects of frames, explanations, search."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from videonet.data.loading.build import clip_sampler
from videonet.data.transforms.sampling import SEGMENTS
from videonet.errors import ConfigError, DecodeError, ScoreError
from videonet.inference.dense import DensePredictor
from videonet.inference.display import film_strip
from videonet.inference.predictions import WindowScores
from videonet.inference.predictor import Predictor
from videonet.inference.result_files import VideoResult, WindowResult
from videonet.inference.windows import Window
from videonet.serving.decoding import (
    Clip,
    Decoders,
    Decoding,
    Facts,
    Look,
    Step,
    Strip,
    Views,
    Windows,
    chunk_size,
)
from videonet.serving.dense import dense_result
from videonet.serving.explaining import explain_clip
from videonet.serving.limits import Limits, Refusal, busy
from videonet.serving.pictures import data_address
from videonet.serving.results import ResultStore
from videonet.serving.schemas import (
    Explanation,
    LabelledSegment,
    ModelResult,
    Moment,
    PredictionAnswer,
    Progress,
    Score,
    VideoFacts,
    WindowScore,
)
from videonet.serving.searching import IndexSearch, nearest_moments
from videonet.serving.uploads import Upload, about
from videonet.tasks.segments import Hysteresis

T = TypeVar("T")


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


class Service:
    """Models, processes that decode, and a queue of requests.

    Args:
        models: by the names that they are shown with; those of labels and those of frames.
        limits: of one request.
        workers: the number of processes that decode.
        search: finds similar moments; None for no search.

    Attributes:
        predictors: the models that label videos.
        dense: the models that find objects or label maps in frames.
    """

    def __init__(
        self,
        models: Mapping[str, Predictor | DensePredictor],
        limits: Limits | None = None,
        *,
        workers: int = 2,
        search: IndexSearch | None = None,
    ):
        self.limits, self.models, self.search = limits or Limits(), dict(models), search
        self.predictors = {n: m for n, m in self.models.items() if isinstance(m, Predictor)}
        self.dense = {n: m for n, m in self.models.items() if isinstance(m, DensePredictor)}
        self.results = ResultStore()
        self._numbers = {name: number for number, name in enumerate(self.models)}
        cfgs = [model.cfg for model in self.models.values()]
        decoding = Decoding(cfgs, self.limits)
        self._decoders = Decoders(decoding, workers, self.limits.step_seconds)
        self._model_thread = ThreadPoolExecutor(1, "model")
        self._folder = tempfile.TemporaryDirectory(prefix="videonet-uploads-")
        self._turns = asyncio.Semaphore(workers + 1)
        self._waiting, self._held = 0, 0
        self._progress: dict[str, Progress] = {}

    @property
    def folder(self) -> Path:
        """Where uploads lie while they are worked on."""
        return Path(self._folder.name)

    def close(self) -> None:
        """End the processes, and delete what is left of uploads."""
        self._decoders.close()
        self._model_thread.shutdown()
        self._folder.cleanup()

    def slides(self, name: str) -> bool:
        """Whether the windows of a model have a length where none is asked for."""
        if name in self.dense:
            return False
        return clip_sampler(self.models[name].cfg, "test").mode != SEGMENTS

    def number(self, name: str) -> int:
        """The place of a model among those that a decoder knows."""
        return self._numbers[name]

    def progress(self, token: str) -> Progress:
        """How far the request has come that gave this token."""
        return self._progress.get(token, Progress(state="unknown", ahead=0, done=0, total=0))

    @contextlib.contextmanager
    def held(self, token: str = "") -> Iterator[None]:
        """A place in the queue, from before the upload until the answer.

        Raises:
            Refusal: all places are taken.
        """
        if self._held >= self.limits.queue:
            raise busy()
        self._held += 1
        if token:
            self._progress[token] = Progress(state="waiting", ahead=0, done=0, total=0)
        try:
            yield
        finally:
            self._held -= 1
            self._progress.pop(token, None)

    async def predict(self, upload: Upload, wanted: Wanted, token: str = "") -> PredictionAnswer:
        """What the models say of an upload.

        Raises:
            Refusal: it cannot be answered, and why.
        """
        return await self._in_turn(self._predict(upload, wanted, token), upload, token)

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
        return await self._in_turn(
            self._explain(upload, model, label, time, window, stride), upload
        )

    async def moments(
        self, upload: Upload, start: float, end: float | None, count: int
    ) -> list[Moment]:
        """The moments of the index nearest to a stretch of an upload.

        Raises:
            Refusal: it cannot be answered, and why.
        """
        return await self._in_turn(nearest_moments(self, upload, start, end, count), upload)

    async def strip(self, path: str, start: float = 0.0, end: float | None = None) -> str:
        """Frames of a part of a file side by side, as a data: address.

        Raises:
            DecodeError: it cannot be read.
        """
        pixels = await self.decode(Strip(path, start, end))
        return data_address(film_strip(torch.from_numpy(pixels), kind="JPEG"), "jpeg")

    async def scores(self, path: str) -> Tensor:
        """The first model's scores of a video (K,), with the views of testing.

        Raises:
            DecodeError, ScoreError: there are none.
        """
        name, predictor = next(iter(self.predictors.items()))
        clips = torch.from_numpy(await self.decode(Views(path, self._numbers[name])))
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

    async def _in_turn(self, work: Coroutine[Any, Any, T], upload: Upload, token: str = "") -> T:
        """Wait for a turn, do it within the limit of time, and say what went wrong."""
        begun = False
        if token in self._progress:
            self._progress[token] = Progress(state="waiting", ahead=self._waiting, done=0, total=0)
        self._waiting += 1
        try:
            async with self._turns:
                begun = True
                self._waiting -= 1
                return await asyncio.wait_for(work, self.limits.job_seconds)
        except asyncio.TimeoutError:
            seconds = self.limits.job_seconds
            raise Refusal(504, f"{upload.name} took longer than {seconds:g} s") from None
        except DecodeError as error:
            raise Refusal(422, about(error, upload)) from None
        except ScoreError as error:
            raise Refusal(500, str(error)) from None
        except ConfigError as error:
            raise Refusal(422, str(error)) from None
        finally:
            if not begun:
                self._waiting -= 1
                work.close()

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
            return await dense_result(self, upload, facts, name, wanted.min_score, token)
        predictor = self.predictors[name]
        windows: list[WindowResult] = []
        if wanted.sliding and not facts.is_picture:
            result = await self._of_windows(upload, facts, name, wanted, token, windows)
        else:
            clips = torch.from_numpy(
                await self.decode(Views(str(upload.path), self._numbers[name]))
            )
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
        async for clips in self._clips(upload, name, wanted):
            scored = await self.score_windows(name, clips)
            windows += [_rounded(predictor, window, wanted.top_k) for window in scored]
            self.note(token, "scoring", len(windows), total)
        times = [(window.start, window.end) for window in windows]
        rows = np.asarray([window.scores for window in windows], dtype=np.float32)  # (N, K)
        segments = predictor.task.segments(times, rows, wanted.segments)
        mean = predictor.aggregate(torch.from_numpy(rows), None, "mean")
        return VideoResult(predictor.top(mean, wanted.top_k), len(windows), segments)

    def _clips(self, upload: Upload, name: str, wanted: Wanted) -> AsyncIterator[list[Clip]]:
        """The windows of an upload."""
        path, number = str(upload.path), self._numbers[name]
        count = chunk_size(self.models[name].cfg, wanted.crops)

        def step(first: int) -> Windows:
            return Windows(path, number, wanted.window, wanted.stride, wanted.crops, first, count)

        return self.steps(step, count)

    async def steps(
        self, step: Callable[[int], Step[list[T]]], count: int
    ) -> AsyncIterator[list[T]]:
        """What is decoded in several steps; the next one runs while the last is worked on.

        Args:
            step: the one that begins with the part of a number.
            count: parts of a step; one that has fewer is the last.
        """
        first = 0
        waiting: asyncio.Future[list[T]] | None = self.begin(step(first))
        try:
            while waiting is not None:
                parts = await waiting
                first += len(parts)
                waiting = self.begin(step(first)) if len(parts) == count else None
                if parts:
                    yield parts
        finally:
            if waiting is not None:
                waiting.cancel()

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
        number = self._numbers[name]
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

    async def look(self, upload: Upload) -> Facts:
        """What is in an upload, and whether it may be decoded."""
        return await self.decode(Look(str(upload.path)))

    def check_windows(self, upload: Upload, count: int) -> None:
        """Refuse an upload with too many windows."""
        if count > self.limits.max_windows:
            raise Refusal(
                422,
                f"{upload.name} has {count:,} windows at this stride, more than "
                f"{self.limits.max_windows:,.0f}, the limit of this server",
            )

    def _check_window(self, window: float | None) -> None:
        longest = self.limits.max_seconds
        if window is not None and window > longest:
            raise Refusal(
                422,
                f"window: a window of {window:g} s is longer than a video may be, {longest:g} s",
            )

    def note(self, token: str, state: str, done: int, total: int) -> None:
        """Say how far a request has come, see :class:`Progress`."""
        if token in self._progress:
            self._progress[token] = Progress(state=state, ahead=0, done=done, total=total)

    async def score_windows(self, name: str, clips: Sequence[Clip]) -> list[WindowScores]:
        """What a model of labels says of some windows."""
        return await self.compute(_scores_of, self.predictors[name], clips)

    def begin(self, step: Step[T]) -> asyncio.Future[T]:
        """Hand a step to the processes that decode."""
        return asyncio.wrap_future(self._decoders.submit(step))

    async def decode(self, step: Step[T]) -> T:
        """Have a step done. Raises DecodeError."""
        return await self.begin(step)

    async def compute(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function in the thread of the models."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._model_thread, functools.partial(function, *args))


def _scores_of(predictor: Predictor, clips: Sequence[Clip]) -> list[WindowScores]:
    """What a model says of some windows."""
    windows = [Window(c.index, c.start, c.end, torch.from_numpy(c.pixels)) for c in clips]
    batch = max(1, predictor.cfg.TEST.BATCH_SIZE // len(windows[0].clips))
    return list(predictor.score_windows(iter(windows), batch))


def _rounded(predictor: Predictor, window: WindowScores, top_k: int) -> WindowResult:
    """As results are written, see :class:`WindowResult`."""
    top = [(label, round(score, 6)) for label, score in predictor.top(window.scores, top_k)]
    scores = [round(score, 6) for score in window.scores.tolist()]
    return WindowResult(window.index, round(window.start, 4), round(window.end, 4), top, scores)
