"""Many files through decoder and model at once; what comes out is handed on file by file."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol

from videonet.errors import DecodeError, ScoreError
from videonet.inference.clips import ClipReader, Piece
from videonet.inference.decoding import Decoder, Job, Unreadable
from videonet.inference.options import Options
from videonet.inference.predictor import Predictor
from videonet.inference.scoring import Scored, Scorer
from videonet.terminal import logs_above_bars, progress_bar

logger = logging.getLogger(__name__)

Action = Callable[[], None]
FEW_FILES = 8  # are read in less time than processes need to start
FILES_AHEAD = 1000  # that are begun before one that takes long is written
PIECES_AHEAD = 4  # of a batch's size


class Collector(Protocol):
    """What is made of the pieces of one file; the actions write it."""

    @property
    def first(self) -> int:
        """Number of the window that the file begins with."""

    def add(self, piece: Piece, scored: Scored) -> Action | None:
        """Take a piece with its scores; returns what to do when the file's turn comes.

        Raises:
            ScoreError: they are not finite.
        """

    def finish(self) -> Action:
        """What to do when the last piece is there."""


def cores() -> int:
    """Processor cores that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def default_workers(files: int, *, sliding: bool) -> int:
    """Processes that decode so many files: one per core, none where there is nothing to gain."""
    if files <= FEW_FILES and not sliding:
        return 0
    return min(cores(), files)


class Run:
    """One pass over many files.

    A file that cannot be read, or whose scores are not finite, is logged and handed to `fail`, and
    the others go on.

    Args:
        predictor: scores the clips.
        options: which clips of a file.
        collect: makes the collector of file number n.
        fail: takes a path and the reason why it failed.
        workers: processes that decode, see :class:`Decoder`.
        devices: see :class:`Scorer`.
        frames: see :class:`Scorer`.
        ordered: what is done of the files is done in their order; else as they are finished.
        progress: show a progress bar.
        marks: also read the files' fingerprints.
    """

    def __init__(
        self,
        predictor: Predictor,
        options: Options,
        collect: Callable[[int], Collector],
        fail: Callable[[str, str], None],
        *,
        workers: int = 0,
        devices: Sequence[str] = (),
        frames: bool = False,
        ordered: bool = True,
        progress: bool = True,
        marks: bool = False,
    ):
        self._options, self._collect, self._fail = options, collect, fail
        self._workers, self._progress = workers, progress
        self._timeout = predictor.cfg.DATA_LOADER.VIDEO_TIMEOUT
        self._scorer = Scorer(predictor, devices, frames=frames, beside=workers > 0)
        self._reader = ClipReader.of(predictor.cfg, options, self._scorer.size, marks=marks)
        self._turns = Turns(ordered=ordered)
        self._collectors: dict[int, Collector | None] = {}  # None: the file has failed
        self.failed = 0

    def files(self, paths: Sequence[str], total: int) -> int:
        """Score files.

        Args:
            paths: of the files.
            total: the number of files with those that earlier runs have done, for the progress bar.

        Returns:
            The number of files that failed.
        """
        ahead = max(2, PIECES_AHEAD * self._scorer.size // self._reader.room)
        decoder = Decoder(self._reader, self._workers, timeout=self._timeout, ahead=ahead)
        bar = progress_bar(
            total=total,
            initial=total - len(paths),
            show=self._progress,
            desc="videos",
            unit="files",
        )
        speed = Speed(bar)
        with logs_above_bars(), bar, decoder:
            for job, piece, scored in self._scorer.scored(decoder.pieces(self._jobs(paths))):
                if isinstance(piece, Unreadable) or scored is None:
                    ended = True
                    self._give_up(job, piece.reason if isinstance(piece, Unreadable) else "")
                else:
                    ended = piece.span.last
                    self._take(job, piece, scored)
                    speed.video(piece.span.seconds)
                if ended:
                    self._collectors.pop(job.number, None)
                    self._turns.end(job.number)
                    speed.file()
        return self.failed

    def _jobs(self, paths: Sequence[str]) -> Iterator[Job | None]:
        for number, path in enumerate(paths):
            while number - self._turns.head >= FILES_AHEAD and self._turns.ordered:
                yield None
            collector = self._collectors[number] = self._collect(number)
            yield Job(number, path, collector.first)

    def _take(self, job: Job, piece: Piece, scored: Scored) -> None:
        collector = self._collectors[job.number]
        if collector is None:
            return
        try:
            action = collector.add(piece, scored)
            following = collector.finish() if piece.span.last else None
        except (DecodeError, ScoreError) as error:
            self._give_up(job, str(error))
            return
        for act in (action, following):
            if act is not None:
                self._turns.do(job.number, partial(self._act, job, act))

    def _act(self, job: Job, action: Action) -> None:
        try:
            action()
        except (DecodeError, ScoreError) as error:
            self._fail_now(job, str(error))

    def _give_up(self, job: Job, reason: str) -> None:
        if self._collectors[job.number] is not None:
            self._collectors[job.number] = None
            self._turns.do(job.number, partial(self._fail_now, job, reason))

    def _fail_now(self, job: Job, reason: str) -> None:
        self.failed += 1
        reason = reason if job.path in reason else f"{job.path}: {reason}"
        logger.error("%s", reason)
        self._fail(job.path, reason)


class Turns:
    """Does what is asked for at once, or in the order of the files that it is asked for.

    Attributes:
        ordered: in the order of the files.
        head: number of the file whose turn it is.
    """

    def __init__(self, *, ordered: bool):
        self.ordered, self.head = ordered, 0
        self._held: dict[int, list[Action]] = {}
        self._ended: set[int] = set()

    def do(self, number: int, action: Action) -> None:
        """Do something for a file, now or when its turn comes."""
        if not self.ordered or number == self.head:
            action()
        else:
            self._held.setdefault(number, []).append(action)

    def end(self, number: int) -> None:
        """Say that nothing more comes for a file."""
        self._ended.add(number)
        while self.head in self._ended:
            self._ended.remove(self.head)
            self.head += 1
            for action in self._held.pop(self.head, []) if self.ordered else []:
                action()


class Speed:
    """Tells a progress bar how many files, and how much video, are done in a second."""

    def __init__(self, bar: Any):
        self._bar, self._start = bar, time.monotonic()
        self._files, self._seconds = 0, 0.0

    def file(self) -> None:
        """Count a file."""
        self._files += 1
        self._bar.update()

    def video(self, seconds: float) -> None:
        """Count so much video."""
        self._seconds += seconds
        passed = max(time.monotonic() - self._start, 1e-9)
        hours = self._seconds / 3600 / passed
        text = f"{self._files / passed:.2f} files/s, {hours:.4f} h of video/s"
        self._bar.set_postfix_str(text, refresh=False)
