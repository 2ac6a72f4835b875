"""Requests in a queue, processes that decode for them, and a thread that the models run in."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import tempfile
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import torch

from videonet.errors import ConfigError, DecodeError, ScoreError
from videonet.inference.dense import DensePredictor
from videonet.inference.display import film_strip
from videonet.inference.predictions import WindowScores
from videonet.inference.predictor import Predictor
from videonet.inference.windows import Window
from videonet.serving.decoding import Clip, Decoders, Decoding, Facts, Look, Step, Strip
from videonet.serving.limits import Limits, Refusal, busy
from videonet.serving.pictures import data_address
from videonet.serving.results import ResultStore
from videonet.serving.schemas import Progress
from videonet.serving.uploads import Upload, about

T = TypeVar("T")
Parts = contextlib.aclosing[AsyncGenerator[list[T], None]]


class Jobs:
    """Models, processes that decode, and a queue of requests.

    Args:
        models: by the names that they are shown with; those of labels and those of frames.
        limits: of one request.
        workers: the number of processes that decode.

    Attributes:
        predictors: the models that label videos.
        dense: the models that find objects or label maps in frames.
        results: files of results.
    """

    def __init__(
        self,
        models: Mapping[str, Predictor | DensePredictor],
        limits: Limits | None = None,
        *,
        workers: int = 2,
    ):
        self.limits, self.models = limits or Limits(), dict(models)
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

    async def in_turn(self, work: Coroutine[Any, Any, T], upload: Upload, token: str = "") -> T:
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

    async def strip(self, path: str, start: float = 0.0, end: float | None = None) -> str:
        """Frames of a part of a file side by side, as a data: address.

        Raises:
            DecodeError: it cannot be read.
        """
        pixels = await self.decode(Strip(path, start, end))
        return data_address(film_strip(torch.from_numpy(pixels), kind="JPEG"), "jpeg")

    def steps(self, step: Callable[[int], Step[list[T]]], count: int) -> Parts[T]:
        """What is decoded in several steps; the next one runs while the last is worked on.

        Args:
            step: the one that begins with the part of a number.
            count: parts of a step; one that has fewer is the last.

        Returns:
            A context, at whose end no step is begun any more, of an iterator.
        """
        return contextlib.aclosing(self._steps(step, count))

    async def _steps(
        self, step: Callable[[int], Step[list[T]]], count: int
    ) -> AsyncGenerator[list[T], None]:
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
