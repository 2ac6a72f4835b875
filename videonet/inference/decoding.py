"""Many files decoded by worker processes, ahead of the model that takes their clips."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from videonet.data.loading.batching import PATIENCE, in_background
from videonet.data.loading.target_buffers import shared_memory
from videonet.data.loading.workers import TASKS_AHEAD, WorkerFailure, WorkerPool
from videonet.errors import DecodeError
from videonet.inference.clips import ClipReader, Piece, Span

OPEN_FILMS = TASKS_AHEAD  # that a worker holds open between two of their pieces
BREATH = 0.02  # seconds until it is asked again whether a file may begin


@dataclass(frozen=True)
class Job:
    """A file to decode.

    Attributes:
        number: of the file; the jobs of a run differ in it.
        path: a file or an address.
        first: number of the window to begin with.
    """

    number: int
    path: str
    first: int = 0


@dataclass(frozen=True)
class Unreadable:
    """Why a file, or the rest of it, cannot be read."""

    reason: str


@dataclass(frozen=True)
class Pause:
    """Nothing comes until what came is done."""


Decoded = tuple[Job, Piece | Unreadable]
_Task = tuple[str, int, int]  # path, number of the first window, place in the ring


class Decoder:
    """Decodes files in pieces; a crash or a hang costs the file that caused it.

    A film is decoded by one process, a piece at a time; other files are decoded beside it. The
    clips come through a ring of shared memory. The processes last until :meth:`close`.

    Args:
        reader: makes the pieces.
        workers: processes that decode; 0: this one does, and nothing stops a decoder that hangs.
        timeout: seconds that a piece may take; 0: no limit.
        ahead: pieces that wait for whoever takes them, at most.
    """

    def __init__(self, reader: ClipReader, workers: int, *, timeout: float = 0.0, ahead: int = 2):
        self._reader, self._ahead, self._closed = reader, ahead, False
        self._iterator: Generator[Decoded | Pause, None, None] | None = None
        self._pool: WorkerPool[tuple[Job, int], _Task, Span | str] | None = None
        if workers:
            slots = workers * TASKS_AHEAD + 1
            self._buffers = shared_memory((slots, reader.room, *reader.views.clip_shape))
            self._pool = WorkerPool(ReadInto(reader, self._buffers), workers, timeout)

    def pieces(self, jobs: Iterable[Job | None]) -> Iterator[Decoded | Pause]:
        """The pieces of files, those of a file in their order, the last of them marked so.

        Args:
            jobs: the files; None where the next one may not begin yet.

        Yields:
            A file and its piece; a pause where none comes until another file may begin.
        """
        if self._pool is None:
            return self._read_here(jobs)
        self._iterator = in_background(partial(self._read, iter(jobs)), ahead=self._ahead)
        return self._iterator

    def close(self) -> None:
        """End the processes, and the thread that waits for them."""
        self._closed = True
        if self._iterator is not None:
            self._iterator.close()
        if self._pool is not None:
            self._pool.close()

    def __enter__(self) -> Decoder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read_here(self, jobs: Iterable[Job | None]) -> Iterator[Decoded | Pause]:
        for job in jobs:
            if job is None:
                yield Pause()
                continue
            try:
                for piece in self._reader(job.path, job.first):
                    yield job, piece
            except DecodeError as error:
                yield job, Unreadable(str(error))

    def _read(self, jobs: Iterator[Job | None], stop: threading.Event) -> Iterator[Decoded | Pause]:
        pool, free = self._pool, deque(range(len(self._buffers)))
        films: deque[tuple[Job, int, int]] = deque()  # that go on: from which window, and where
        assert pool is not None
        waits, more = False, True
        try:
            while not stop.is_set():
                while free and films:
                    job, first, worker = films.popleft()
                    slot = free.popleft()
                    pool.submit((job, slot), (job.path, first, slot), worker=worker)
                while free and more:
                    following = next(jobs, self)
                    waits, more = following is None, following is not self
                    if not isinstance(following, Job):
                        break
                    slot = free.popleft()
                    pool.submit((following, slot), (following.path, following.first, slot))
                if not len(pool):
                    if not waits:
                        return
                    yield Pause()
                    time.sleep(BREATH)
                    continue
                done = pool.result(BREATH if waits else PATIENCE)
                if done is None:
                    continue
                (job, slot), outcome = done
                if isinstance(outcome, WorkerFailure):
                    outcome = f"cannot read {job.path}: {outcome.reason}"
                if isinstance(outcome, str):
                    free.append(slot)
                    yield job, Unreadable(outcome)
                    continue
                clips = self._buffers[slot, : outcome.clips].clone()
                free.append(slot)
                if not outcome.last:
                    films.append((job, outcome.first + len(outcome.times), pool.latest))
                yield job, Piece(outcome, clips)
        finally:
            if not self._closed:  # nobody may write into the ring when it is used again
                pool.discard()


class ReadInto:
    """What a worker does: one piece of a file, into the ring."""

    def __init__(self, reader: ClipReader, buffers: Tensor):
        self._reader, self._buffers = reader, buffers
        self._films: OrderedDict[tuple[str, int], Iterator[Piece]] = OrderedDict()

    def __call__(self, task: _Task) -> Span | str:
        """What the piece holds, or why the file cannot be read."""
        path, first, slot = task
        pieces = self._films.pop((path, first), None) or self._reader(path, first)
        try:
            piece = next(pieces)
        except DecodeError as error:
            return str(error)
        span = piece.span
        self._buffers[slot, : span.clips].copy_(piece.clips)
        if not span.last:
            self._films[path, first + len(span.times)] = pieces
            if len(self._films) > OPEN_FILMS:
                self._films.popitem(last=False)
        return span
