"""Clips of many files through one model or several copies of it, in batches of one size.

The kernels of a processor differ with the size of a batch, and with them the last digits of what
they compute; in a batch of a given size a clip gets the same digits wherever it stands and whatever
stands beside it. So every batch has the same size, and the last one is filled up with black clips:
a clip's scores do not depend on the files beside it.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import SimpleQueue

import torch
from torch import Tensor

from videonet.errors import ConfigError
from videonet.inference.clips import Piece
from videonet.inference.decoding import Decoded, Job, Pause, Unreadable
from videonet.inference.predictor import Predictor
from videonet.terminal import ShortRepr

CPU_COPIES = 4  # of a model on a CPU, at most: each needs memory for a batch
CPU_BATCH = 8  # clips; a larger batch is hardly faster there, and a single file waits for it


@dataclass(frozen=True, repr=False)
class Scored(ShortRepr):
    """What the model says of the clips of a piece.

    Attributes:
        outputs: (N, K), see :meth:`Predictor.run`; not checked to be finite.
        embeddings: (N, C) or (N, T', C), likewise.
        frames: (N, T', C), see :meth:`Predictor.frame_embeddings`; empty where nobody asked.
    """

    outputs: Tensor
    embeddings: Tensor
    frames: Tensor


@dataclass(eq=False)
class _Waiting:
    """A piece under way: how many of its clips have no scores yet, and those of the others."""

    job: Job
    piece: Piece | Unreadable
    missing: int
    parts: list[tuple[Tensor, ...]] = field(default_factory=list)

    @classmethod
    def of(cls, job: Job, piece: Piece | Unreadable) -> _Waiting:
        return cls(job, piece, len(piece.clips) if isinstance(piece, Piece) else 0)


_Shares = list[tuple[_Waiting, int]]  # whose clips are in a batch, and how many


class _Batches:
    """Puts clips together to batches of one size."""

    def __init__(self, size: int):
        self._size = size
        self._clips: list[Tensor] = []
        self._shares: _Shares = []

    def add(self, item: _Waiting) -> Iterator[tuple[list[Tensor], _Shares]]:
        """Take the clips of a piece; yields the batches that they fill."""
        if isinstance(item.piece, Unreadable):
            return
        rows = item.piece.clips
        while len(rows):
            room = self._size - sum(count for _, count in self._shares)
            self._clips.append(rows[:room])
            self._shares.append((item, len(rows[:room])))
            if len(rows) >= room:
                yield from self.rest()
            rows = rows[room:]

    def rest(self) -> Iterator[tuple[list[Tensor], _Shares]]:
        """The clips that fill no batch, if there are any."""
        if self._clips:
            yield self._clips, self._shares
            self._clips, self._shares = [], []


def batch_size(predictor: Predictor) -> int:
    """The size of all batches: ``TEST.BATCH_SIZE``, on a CPU ``CPU_BATCH`` at most."""
    most = max(1, predictor.cfg.TEST.BATCH_SIZE)
    return min(most, CPU_BATCH) if predictor.device.type == "cpu" else most


class Scorer:
    """Scores clips on one device or several.

    Args:
        predictor: has the model.
        devices: where copies of it run, as torch names them; none for the predictor's own.
        frames: also compute a vector per frame of the last stage's grid.
        beside: other processes decode meanwhile. On a CPU, batches are then computed side by side
            with a share of the threads each: threads of one operator wait for each other, and so
            for whoever has taken the core of one of them.
    """

    def __init__(
        self,
        predictor: Predictor,
        devices: Sequence[str] = (),
        *,
        frames: bool = False,
        beside: bool = False,
    ):
        threads = torch.get_num_threads()
        if beside and not devices and predictor.device.type == "cpu":
            devices = ["cpu"] * min(threads, CPU_COPIES)
        copies = [predictor.on(device) for device in devices] or [predictor]
        on_cpu = copies[0].device.type == "cpu"
        self._threads = max(1, threads // len(copies)) if on_cpu else threads
        sizes = {batch_size(copy) for copy in copies}
        if len(sizes) > 1:
            raise ConfigError(f"--devices {' '.join(devices)}: expected devices of one kind")
        self.size, self._frames, self._copies = sizes.pop(), frames, len(copies)
        self._idle: SimpleQueue[Predictor] = SimpleQueue()
        for copy in copies:
            self._idle.put(copy)

    def scored(
        self, pieces: Iterable[Decoded | Pause]
    ) -> Iterator[tuple[Job, Piece, Scored] | tuple[Job, Unreadable, None]]:
        """Every piece with its scores, in the order of `pieces`.

        Args:
            pieces: as a decoder gives them; at a pause, nothing waits for a batch to be full.
        """
        waiting: deque[_Waiting] = deque()
        running: deque[tuple[Future[tuple[Tensor, ...]], _Shares]] = deque()
        batches = _Batches(self.size)
        with _models(self._copies, self._threads) as threads:
            for entry in itertools.chain(pieces, [Pause()]):
                if isinstance(entry, Pause):
                    ready = batches.rest()
                else:
                    waiting.append(_Waiting.of(*entry))
                    ready = batches.add(waiting[-1])
                for clips, shares in ready:
                    running.append((threads.submit(self.compute, clips), shares))
                most = 0 if isinstance(entry, Pause) else self._copies
                while running and (len(running) > most or running[0][0].done()):
                    _share_out(*running.popleft())
                while waiting and not waiting[0].missing:
                    yield _finished(waiting.popleft())

    def compute(self, clips: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Outputs, embeddings and vectors of frames of the clips of one batch, at most."""
        rows = torch.cat(list(clips))
        count = len(rows)
        if count < self.size:
            rows = torch.cat([rows, rows.new_zeros((self.size - count, *rows.shape[1:]))])
        predictor = self._idle.get()
        try:
            with _on(predictor.device):
                outputs, embeddings = predictor.compute(rows)
                frames = predictor.compute_frames(rows) if self._frames else outputs[:, :0]
        finally:
            self._idle.put(predictor)
        return outputs[:count], embeddings[:count], frames[:count]


@contextlib.contextmanager
def _models(copies: int, threads: int) -> Iterator[ThreadPoolExecutor]:
    """A thread for each copy of a model, and so many of torch's for each of their operators."""
    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(
            copies, "videonet-model", torch.set_num_threads, (threads,)
        ) as executor:
            yield executor
    finally:
        torch.set_num_threads(before)


def _on(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Within, a device is the current one of this thread, for kernels that ask for it."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


def _share_out(batch: Future[tuple[Tensor, ...]], shares: _Shares) -> None:
    results, start = batch.result(), 0
    for item, count in shares:
        item.parts.append(tuple(rows[start : start + count] for rows in results))
        item.missing -= count
        start += count


def _finished(
    item: _Waiting,
) -> tuple[Job, Piece, Scored] | tuple[Job, Unreadable, None]:
    if isinstance(item.piece, Unreadable):
        return item.job, item.piece, None
    if not item.parts:  # a piece without clips ends a film
        none = torch.empty(0)
        return item.job, item.piece, Scored(none, none, none)
    return item.job, item.piece, Scored(*map(torch.cat, zip(*item.parts, strict=True)))
