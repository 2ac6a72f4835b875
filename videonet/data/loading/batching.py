"""Batches made by worker processes, whatever happens to a worker.

The batches lie in a ring of shared memory that the workers write their clips and targets into, one
video at a time, so a video is lost or replaced without the rest of its batch, and no clip travels
through a pipe.
"""

from __future__ import annotations

import csv
import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, Full, Queue
from typing import Any, TypeVar

import torch
from torch import Tensor

from videonet.data.loading.buffer_pool import BufferPool
from videonet.data.loading.dataset import (
    Batch,
    EvaluationViews,
    SampleRequest,
    TrainingClips,
    VideoDataset,
)
from videonet.data.loading.target_buffers import Large, TargetBuffers, shared_memory
from videonet.data.loading.workers import WorkerFailure, WorkerPool
from videonet.data.tables import rows_as_text, text_of
from videonet.data.video.info import VideoInfo
from videonet.errors import DataError, DecodeError
from videonet.files import make_folder, writing

logger = logging.getLogger(__name__)

# What a worker is given: SampleRequest.arguments(), then the batch's place in the ring, and a row.
ReadTask = tuple[str, tuple[int, ...], VideoInfo | None, Any, int, int]

Made = TypeVar("Made")  # what a thread makes ahead

PATIENCE = 1.0  # seconds between two looks at whether anybody still wants batches


class SharedMemoryBatcher:
    """Makes batches of a data set in ``workers`` processes.

    ``videos``: the largest number of videos in a batch. ``timeout``: seconds that one video may
    take. ``bad_list``: a CSV file of the videos that ended or hung their process, which is added
    to and whose videos are not opened again.
    """

    def __init__(
        self,
        dataset: VideoDataset,
        workers: int,
        *,
        videos: int,
        timeout: float = 0.0,
        bad_list: Path | None = None,
        pin_memory: bool = False,
    ):
        self._dataset, self._pin_memory = dataset, pin_memory
        self._clips = dataset.make_clips.count  # of a video
        slots = 1 + math.ceil(workers / videos)
        rows, clip_shape = videos * self._clips, dataset.make_clips.clip_shape
        self._buffers = shared_memory((slots, rows, *clip_shape))
        specs = {} if dataset.annotations is None else dataset.annotations.maker.specs
        self._targets = TargetBuffers(specs, clip_shape, slots, rows)
        work = ReadInto(dataset.make_clips, self._buffers, self._targets)
        self._pool: WorkerPool[tuple[_PendingBatch, int], ReadTask, Large | str] = WorkerPool(
            work, workers, timeout
        )
        self._bad_list = bad_list
        self._copies = BufferPool()

    def batches(
        self, positions: Iterable[list[tuple[int, int]]], stop: threading.Event
    ) -> Iterator[Batch]:
        """The batches of lists of ``(epoch, index)``, in their order, until ``stop`` is set."""
        positions = iter(positions)
        free = deque(range(len(self._buffers)))
        pending: deque[_PendingBatch] = deque()
        try:
            while not stop.is_set():
                while free and (batch := next(positions, None)) is not None:
                    pending.append(self._begin(batch, free.popleft()))
                if not pending:
                    return
                if pending[0].missing:
                    self._wait()
                else:
                    done = pending.popleft()
                    free.append(done.slot)
                    yield self._finish(done)
        finally:
            self._pool.discard()  # nobody may write into the ring when it is used again

    def close(self) -> None:
        self._pool.close()

    def _begin(self, positions: list[tuple[int, int]], slot: int) -> _PendingBatch:
        requests = [SampleRequest(self._dataset, epoch, index) for epoch, index in positions]
        pending = _PendingBatch(slot, requests, missing=len(requests))
        for place in range(len(requests)):
            self._ask(pending, place)
        return pending

    def _ask(self, pending: _PendingBatch, place: int, *, first: bool = False) -> None:
        """Have a video read, unless none is left to try."""
        request = pending.requests[place]
        if request.video is None:
            pending.missing -= 1
            return
        task = (*request.arguments(), pending.slot, place * self._clips)
        self._pool.submit((pending, place), task, first=first)

    def _wait(self) -> None:
        """Take one result of the workers, if there is one soon."""
        done = self._pool.result(PATIENCE)
        if done is None:
            return
        (pending, place), outcome = done
        request = pending.requests[place]
        if isinstance(outcome, dict):
            pending.missing -= 1
            pending.large.update(outcome)
            return
        if isinstance(outcome, WorkerFailure):
            path = self._dataset.paths[request.present]
            outcome = f"cannot read {path}: {outcome.reason}"
            self._remember(request.present, path, outcome)
        request.fail(outcome)
        self._ask(pending, place, first=True)

    def _remember(self, video: int, path: str, reason: str) -> None:
        self._dataset.bad[video] = reason
        if self._bad_list is not None:
            make_folder(self._bad_list.parent)
            with (
                writing(self._bad_list),
                open(
                    self._bad_list, "a", newline="", encoding="utf-8", errors="surrogateescape"
                ) as file,
            ):
                file.write(rows_as_text([[path, reason]]))

    def _finish(self, pending: _PendingBatch) -> Batch:
        """The batch in memory of its own."""
        requests = pending.requests
        rows = self._buffers[pending.slot, : len(requests) * self._clips]
        read = torch.tensor([request.video is not None for request in requests])
        clips = read.repeat_interleave(self._clips)
        if not read.all():
            rows = rows[clips]
        elif not self._pin_memory:
            rows = self._copies.copy_of(rows)
        targets = self._targets.read(pending.slot, clips.nonzero()[:, 0].tolist(), pending.large)
        batch = self._dataset.batch(rows, self._dataset.stack(targets), requests)
        batch = self._dataset.fit(batch)
        return batch.pin_memory() if self._pin_memory else batch


@dataclass(eq=False)
class _PendingBatch:
    """A batch under way: its place in the ring, its videos, and how many of them are missing.

    ``large``: targets that the ring has no room for, see :class:`TargetBuffers`.
    """

    slot: int
    requests: list[SampleRequest]
    missing: int
    large: Large = field(default_factory=dict)


class ReadInto:
    """What a worker does: the clips and targets of one video, into the rows of a batch."""

    def __init__(
        self, make_clips: TrainingClips | EvaluationViews, buffers: Tensor, targets: TargetBuffers
    ):
        self._make_clips, self._buffers, self._targets = make_clips, buffers, targets

    def __call__(self, task: ReadTask) -> Large | str:
        """The targets that the batch has no room for, or why the video cannot be read."""
        path, key, known, annotation, slot, row = task
        rows = self._buffers[slot, row : row + self._make_clips.count]
        try:
            targets = self._make_clips(path, key, known, annotation, rows).targets
        except DecodeError as error:
            return str(error)
        return self._targets.write(slot, row, targets)


def read_bad_list(path: Path, paths: Iterable[str]) -> dict[int, str]:
    """The videos of a ``bad_list`` by their place in ``paths``, and why they are on it.

    Raises:
        DataError: it is no such table.
    """
    if not path.is_file():
        return {}
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        table = csv.reader(file)
        try:
            rows = [row for row in table if len(row) == 2]
        except csv.Error as error:
            raise DataError(
                f"{path}, line {table.line_num}: {error}; remove what is damaged, or the file: "
                "videos that end their process are found again"
            ) from None
    reasons = {text_of(path): text_of(reason) for path, reason in rows}
    return {k: reasons[name] for k, name in enumerate(paths) if name in reasons}


def in_background(
    make: Callable[[threading.Event], Iterator[Made]], ahead: int = 1
) -> Generator[Made, None, None]:
    """Iterate in a thread, so many items ahead, so that the workers are kept busy all the time."""
    stop = threading.Event()
    ready: Queue[Made | BaseException | None] = Queue(maxsize=ahead)  # None: the end

    def put(thing: Made | BaseException | None) -> None:
        while not stop.is_set():
            try:
                return ready.put(thing, timeout=PATIENCE)
            except Full:
                continue

    def run() -> None:
        try:
            for batch in make(stop):
                put(batch)
            put(None)
        except BaseException as error:  # it belongs to whoever iterates
            put(error)

    thread = threading.Thread(target=run, name="videonet-loader", daemon=True)
    thread.start()
    try:
        while (thing := ready.get()) is not None:
            if isinstance(thing, BaseException):
                raise thing
            yield thing
    finally:
        stop.set()
        while thread.is_alive():  # it may wait for room
            try:
                ready.get(timeout=0.05)
            except Empty:
                continue
        thread.join()
