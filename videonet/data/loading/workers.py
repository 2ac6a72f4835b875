"""Worker processes that may crash or hang: that costs a process, and at most the task it was at.

A data loader of torch ends with the run when a worker dies, and waits for ever when one hangs. The
pool here starts another process in its place, which tries the task again: memory that ran out, or a
signal from outside, says nothing about a video. A task that ends several processes is reported as
:class:`WorkerFailure`. The limit on time is kept by the process that has the pool, so it also ends
a decoder that never comes back to Python. Its clock stands while the worker or that process is
stopped.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import multiprocessing
import signal
import sys
import time
import traceback
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import torch

from videonet.data.loading.processes import end_with_parent
from videonet.errors import DataError, VideonetError, too_many_files

if TYPE_CHECKING:  # Windows has no fork server
    from multiprocessing.context import ForkServerContext, SpawnContext

logger = logging.getLogger(__name__)

Key = TypeVar("Key")
Content = TypeVar("Content")  # what a worker is sent of a task
Result = TypeVar("Result")

TASKS_AHEAD = 2  # tasks that a worker holds: one under way and the next
TRIES = 2  # of a task that ends its process or takes too long
TRIES_WHEN_KILLED = 4  # where it was SIGKILL, which comes from outside, and not from the task
STARTS = 3  # attempts to start a worker that a signal ends before it is there
TICK = 0.5  # seconds between two looks at the clock
# Sent to all processes by timeout, SLURM and terminals, the last when a terminal closes.
STOP_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)
)
_READY = "ready"
_SERVER_GONE = 255  # exit code of a process whose fork server ended before it could report one


@dataclass(frozen=True)
class WorkerFailure:
    """What became of a task whose process ended, and why it ended."""

    reason: str


@dataclass(eq=False)
class _Task(Generic[Key, Content]):
    key: Key
    content: Content
    losses: int = 0  # processes that ended while they were at it


@dataclass(eq=False)
class _Worker(Generic[Key, Content]):
    process: multiprocessing.process.BaseProcess
    connection: Connection
    ready: bool = False
    tasks: deque[_Task[Key, Content]] = field(default_factory=deque)  # the first is under way
    spent: float = 0.0  # seconds on the first task
    overdue: bool = False  # it was ended because of them


class WorkerPool(Generic[Key, Content, Result]):
    """Runs ``work(task)`` in processes of their own; results come in the order they are done.

    ``work`` has to be picklable, as the processes start from a clean one and not from this, whose
    threads and GPU they must not inherit. ``timeout``: seconds that one task may take; 0: no
    limit. An exception of ``work`` is raised here, by :meth:`result`; what the package logs in a
    worker is logged here, once for all workers.

    Not safe for use by several threads at once.

    Attributes:
        latest: number of the process that the latest result came from.
    """

    latest: int = 0

    def __init__(self, work: Callable[[Content], Result], workers: int, timeout: float = 0.0):
        self._work, self._timeout = work, timeout
        self._context = _clean_context()
        self._queue: deque[_Task[Key, Content]] = deque()
        self._said: set[str] = set()
        self._stopped_starts = 0
        self._clock = time.monotonic()
        self._workers: list[_Worker[Key, Content]] = []
        self._finalizer = weakref.finalize(self, _end, self._workers)
        try:
            for _ in range(workers):
                self._workers.append(self._start())
        except BaseException:
            self._finalizer()
            raise

    def __len__(self) -> int:
        """Tasks without a result so far."""
        return len(self._queue) + sum(len(worker.tasks) for worker in self._workers)

    def submit(
        self, key: Key, task: Content, *, first: bool = False, worker: int | None = None
    ) -> None:
        """Queue a task; its result comes with ``key``. ``first``: before those that wait.

        ``worker``: the process that shall do it next, see :attr:`latest`; if that ends, another
        one does it.
        """
        if worker is not None:
            self._hand(self._workers[worker], _Task(key, task))
        elif first:
            self._queue.appendleft(_Task(key, task))
        else:
            self._queue.append(_Task(key, task))
        self._feed()

    def result(self, patience: float | None = None) -> tuple[Key, Result | WorkerFailure] | None:
        """The key and result of a task that is done, waited for at most ``patience`` seconds.

        A result is what ``work`` returned, or :class:`WorkerFailure`. None: none is done by then,
        or none is expected.
        """
        until = None if patience is None else time.monotonic() + patience
        while len(self):
            self._feed()
            connections = [worker.connection for worker in self._workers]
            owners: dict[object, _Worker[Key, Content]] = dict(
                zip(connections, self._workers, strict=True)
            )
            left = None if until is None else max(until - time.monotonic(), 0.0)
            ready = wait(connections, self._tick(left))
            for connection in ready:
                done = self._receive(owners[connection])
                if done is not None:
                    self._feed()
                    return done
            self._end_overdue()
            if until is not None and not ready and time.monotonic() >= until:
                break
        return None

    def discard(self) -> None:
        """Drop the tasks that wait, and wait for those that are under way."""
        self._queue.clear()
        while len(self) and self._finalizer.alive:
            with contextlib.suppress(Exception):  # nobody asks for these results any more
                self.result()

    def close(self) -> None:
        """End the processes, whatever they do."""
        self._finalizer()

    def _start(self) -> _Worker[Key, Content]:
        """A new process.

        Raises:
            DataError: the system lets none start, as where too many files are open.
        """
        number = len(self._workers) + 1
        try:
            ours, theirs = self._context.Pipe()
            with theirs:  # closed here, so that the end of the process is the end of the connection
                for attempt in range(1, STARTS + 1):
                    process = self._context.Process(
                        target=_serve, args=(theirs, self._work), daemon=True
                    )
                    try:
                        process.start()
                        break
                    except (EOFError, ConnectionError):
                        if attempt == STARTS:
                            raise
                        time.sleep(0.1)  # a signal to all processes ended the fork server meanwhile
        except (OSError, EOFError) as error:
            many = getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE)
            known = many or isinstance(error, EOFError | ConnectionError)
            reason = too_many_files() if known else error
            raise DataError(f"worker process {number} cannot be started: {reason}") from error
        return _Worker(process, ours)

    def _tick(self, left: float | None) -> float | None:
        """How long to wait for a result before the next look at the clock."""
        if not self._timeout:
            return left
        tick = min(TICK, self._timeout / 4)
        return tick if left is None else min(left, tick)

    def _end_overdue(self) -> None:
        """Let time pass for the tasks under way, and end the processes that took too long.

        A look that comes late, as after a pause of this process, counts as one that comes in time.
        """
        now = time.monotonic()
        passed, self._clock = min(now - self._clock, 2 * TICK), now
        for worker in self._workers if self._timeout else ():
            if worker.ready and worker.tasks and not _is_stopped(worker.process.pid):
                worker.spent += passed
                if worker.spent > self._timeout and not worker.overdue:
                    worker.overdue = True
                    worker.process.kill()

    def _feed(self) -> None:
        """Give the waiting tasks to the workers that hold the fewest."""
        for held in range(TASKS_AHEAD):
            for worker in self._workers:
                if self._queue and len(worker.tasks) == held:
                    self._hand(worker, self._queue.popleft())

    def _hand(self, worker: _Worker[Key, Content], task: _Task[Key, Content]) -> None:
        if not worker.tasks:
            worker.spent = 0.0
        worker.tasks.append(task)
        with contextlib.suppress(OSError):  # its end is noticed when it is read from
            worker.connection.send(task.content)

    def _receive(self, worker: _Worker[Key, Content]) -> tuple[Key, Result | WorkerFailure] | None:
        try:
            message = worker.connection.recv()
        except (EOFError, OSError):
            return self._bury(worker)
        if message == _READY:
            worker.ready, self._stopped_starts = True, 0
            return None
        outcome, records = message
        for name, level, text in records:
            if text not in self._said:
                self._said.add(text)
                logging.getLogger(name).log(level, "%s", text)
        task = worker.tasks.popleft()
        worker.spent, self.latest = 0.0, self._workers.index(worker)
        if isinstance(outcome, Exception):
            raise outcome
        return task.key, outcome

    def _bury(self, worker: _Worker[Key, Content]) -> tuple[Key, WorkerFailure] | None:
        """Replace a dead worker. Its successor tries the task it was at again, or that is lost."""
        worker.connection.close()
        worker.process.join()
        code = worker.process.exitcode
        reason = f"it took longer than {self._timeout:g} s" if worker.overdue else _cause(code)
        if not worker.ready and self._restart(worker):
            return None
        if not worker.ready:
            self._queue.clear()
            worker.tasks.clear()
            advice = (
                "; a script of your own has to start its work below `if __name__ == '__main__':`"
            )
            raise RuntimeError(
                f"a worker process ended while it started: {reason}"
                + (advice if code is not None and code > 0 else "")
            )
        tasks, worker.tasks = worker.tasks, deque()
        lost = tasks.popleft() if tasks else None
        self._queue.extendleft(reversed(tasks))
        successor = self._start()
        self._workers[self._workers.index(worker)] = successor
        if lost is None:
            logger.warning("an idle worker process ended (%s); another one takes its place", reason)
            return None
        lost.losses += 1
        killed = code == -getattr(signal, "SIGKILL", 9) and not worker.overdue
        if lost.losses < (TRIES_WHEN_KILLED if killed else TRIES):
            logger.info("a worker process ended (%s); its task is tried again", reason)
            self._hand(successor, lost)
            return None
        return lost.key, WorkerFailure(reason)

    def _restart(self, worker: _Worker[Key, Content]) -> bool:
        """Replace a worker that a signal ended while it started, a few times."""
        code = worker.process.exitcode
        stopped = code is not None and (code < 0 or code == _SERVER_GONE)
        self._stopped_starts += stopped
        if not stopped or self._stopped_starts > STARTS * len(self._workers):
            return False
        self._queue.extendleft(reversed(worker.tasks))
        self._workers[self._workers.index(worker)] = self._start()
        return True


def _clean_context() -> SpawnContext | ForkServerContext:
    """Processes forked from a server that has the package imported, where that can be had."""
    if sys.platform != "linux":
        return torch.multiprocessing.get_context("spawn")
    context = torch.multiprocessing.get_context("forkserver")
    # What this process has imported the workers would import too, each for itself.
    context.set_forkserver_preload(
        [name for name in sys.modules if name.split(".")[0] == "videonet"]
    )
    return context


def _cause(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        return f"it ended its process with {signal.Signals(-exitcode).name}"
    return f"it ended its process with exit code {exitcode}"


def _is_stopped(pid: int | None) -> bool:
    """Whether a process is paused, by a signal or a debugger; only Linux says."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "Tt"
    except (OSError, IndexError, ValueError):
        return False


def _end(workers: list[_Worker[Key, Content]]) -> None:
    for worker in workers:
        worker.connection.close()
        worker.process.kill()
    for worker in workers:
        worker.process.join()


class _Records(logging.Handler):
    """Collects what is logged, for the process that decides where it goes."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.records: list[tuple[str, int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append((record.name, record.levelno, record.getMessage()))

    def take(self) -> list[tuple[str, int, str]]:
        records, self.records = self.records, []
        return records


def _serve(connection: Connection, work: Callable[[Content], object]) -> None:
    """The life of a worker process: until the connection ends, or it does itself."""
    for number in STOP_SIGNALS:  # they are for the process that has us, which ends us
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()
    torch.set_num_threads(1)  # the workers are the parallelism
    records = _Records()
    package = logging.getLogger("videonet")
    package.addHandler(records)
    package.setLevel(logging.INFO)
    package.propagate = False
    with contextlib.suppress(OSError, EOFError):  # the other end is gone: nobody to work for
        connection.send(_READY)
        while True:
            task = connection.recv()
            outcome = _attempt(work, task)
            connection.send((outcome, records.take()))


def _attempt(work: Callable[[Content], Result], task: Content) -> Result | Exception:
    """The result of ``work``, or its exception in a form that another process can raise."""
    try:
        return work(task)
    except VideonetError as error:
        return error
    except Exception:
        return RuntimeError(f"in a worker process:\n{traceback.format_exc()}")
