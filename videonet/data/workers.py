"""Worker processes that may crash or hang: that costs one process and the task it was at.

A data loader of torch ends with the run when a worker dies, and waits for ever when one hangs. The
pool here starts another process in its place and reports the task as :class:`Lost`. The limit on
time is the kernel's alarm in the worker itself, so it also ends a decoder that never comes back
to Python.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
import weakref
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from videonet.errors import VideonetError

logger = logging.getLogger(__name__)

TASKS_AHEAD = 2  # tasks that a worker holds: one under way and the next
STARTS = 3  # attempts to start a worker that a signal to stop ends before it can ignore it
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)  # timeout, SLURM and terminals send them to all
_READY = "ready"
_SERVER_GONE = 255  # exit code of a process whose fork server ended before it could report one


@dataclass(frozen=True)
class Lost:
    """What became of a task whose process ended, and why it ended."""

    reason: str


@dataclass(eq=False)
class _Worker:
    process: multiprocessing.process.BaseProcess
    connection: Connection
    ready: bool = False
    tasks: deque[tuple[Hashable, Any]] = field(default_factory=deque)  # the first is under way


class WorkerPool:
    """Runs ``work(task)`` in processes of their own; results come in the order they are done.

    ``work`` has to be picklable, as the processes start from a clean one and not from this, whose
    threads and GPU they must not inherit. ``timeout``: seconds that one task may take; 0: no
    limit. An exception of ``work`` is raised here, by :meth:`result`; what the package logs in a
    worker is logged here, once for all workers.

    Not safe for use by several threads at once.
    """

    def __init__(self, work: Callable[[Any], Any], workers: int, timeout: float = 0.0):
        self._work, self._timeout = work, timeout
        self._context = _clean_context()
        self._queue: deque[tuple[Hashable, Any]] = deque()
        self._said: set[str] = set()
        self._stopped_starts = 0
        self._workers = [self._start() for _ in range(workers)]
        self._finalizer = weakref.finalize(self, _end, self._workers)

    def __len__(self) -> int:
        """Tasks without a result so far."""
        return len(self._queue) + sum(len(worker.tasks) for worker in self._workers)

    def submit(self, key: Hashable, task: Any, *, first: bool = False) -> None:
        """Queue a task; its result comes with ``key``. ``first``: before those that wait."""
        if first:
            self._queue.appendleft((key, task))
        else:
            self._queue.append((key, task))
        self._feed()

    def result(self, patience: float | None = None) -> tuple[Hashable, Any] | None:
        """The key and result of a task that is done, waited for at most ``patience`` seconds.

        A result is what ``work`` returned, or :class:`Lost`. None: none is done by then, or none
        is expected.
        """
        while len(self):
            self._feed()
            connections = {worker.connection: worker for worker in self._workers}
            ready = wait(list(connections), patience)
            for connection in ready:
                done = self._receive(connections[connection])
                if done is not None:
                    self._feed()
                    return done
            if patience is not None and not ready:
                break
        return None

    def discard(self) -> None:
        """Drop the tasks that wait, and wait for those that are under way."""
        self._queue.clear()
        while len(self):
            with contextlib.suppress(Exception):  # nobody asks for these results any more
                self.result()

    def close(self) -> None:
        """End the processes, whatever they do."""
        self._finalizer()

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        with theirs:  # closed here, so that the end of the process is the end of the connection
            for attempt in range(1, STARTS + 1):
                process = self._context.Process(
                    target=_serve, args=(theirs, self._work, self._timeout), daemon=True
                )
                try:
                    process.start()
                    break
                except (EOFError, ConnectionError):
                    if attempt == STARTS:
                        raise
                    time.sleep(0.1)  # a signal to all processes ended the fork server meanwhile
        return _Worker(process, ours)

    def _feed(self) -> None:
        """Give the waiting tasks to the workers that hold the fewest."""
        for held in range(TASKS_AHEAD):
            for worker in self._workers:
                if self._queue and len(worker.tasks) == held:
                    key, task = self._queue.popleft()
                    worker.tasks.append((key, task))
                    with contextlib.suppress(OSError):  # its end is noticed when it is read from
                        worker.connection.send(task)

    def _receive(self, worker: _Worker) -> tuple[Hashable, Any] | None:
        try:
            message = worker.connection.recv()
        except (EOFError, OSError):
            return self._bury(worker)
        if message == _READY:
            worker.ready = True
            return None
        outcome, records = message
        for name, level, text in records:
            if text not in self._said:
                self._said.add(text)
                logging.getLogger(name).log(level, "%s", text)
        key, _ = worker.tasks.popleft()
        if isinstance(outcome, Exception):
            raise outcome
        return key, outcome

    def _bury(self, worker: _Worker) -> tuple[Hashable, Any] | None:
        """Replace a dead worker; the task it was at is lost, the others go back to the queue."""
        worker.connection.close()
        worker.process.join()
        reason = _cause(worker.process.exitcode, self._timeout)
        if not worker.ready and self._restart(worker):
            return None
        if not worker.ready:
            self._queue.clear()
            worker.tasks.clear()
            raise RuntimeError(
                f"a worker process ended while it started: {reason}; a script of your own has to "
                "start its work below `if __name__ == '__main__':`"
            )
        tasks, worker.tasks = worker.tasks, deque()
        lost = tasks.popleft() if tasks else None
        self._queue.extendleft(reversed(tasks))
        self._workers[self._workers.index(worker)] = self._start()
        if lost is None:
            logger.warning("an idle worker process ended (%s); another one takes its place", reason)
            return None
        return lost[0], Lost(reason)

    def _restart(self, worker: _Worker) -> bool:
        """Replace a worker that a signal to stop ended while it started, a few times."""
        stopped = worker.process.exitcode in (*(-number for number in STOP_SIGNALS), _SERVER_GONE)
        self._stopped_starts += stopped
        if not stopped or self._stopped_starts > STARTS * len(self._workers):
            return False
        self._queue.extendleft(reversed(worker.tasks))
        self._workers[self._workers.index(worker)] = self._start()
        return True


def _clean_context() -> multiprocessing.context.BaseContext:
    """Processes forked from a server that has the package imported, where that can be had."""
    if sys.platform != "linux":
        return torch.multiprocessing.get_context("spawn")
    context = torch.multiprocessing.get_context("forkserver")
    # What this process has imported the workers would import too, each for itself.
    context.set_forkserver_preload(
        [name for name in sys.modules if name.split(".")[0] == "videonet"]
    )
    return context


def _cause(exitcode: int | None, timeout: float) -> str:
    if exitcode is not None and exitcode < 0:
        number = signal.Signals(-exitcode)
        if timeout and number is getattr(signal, "SIGALRM", None):
            return f"it took longer than {timeout:g} s"
        return f"it ended its process with {number.name}"
    return f"it ended its process with exit code {exitcode}"


def _end(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.connection.close()
        worker.process.kill()
    for worker in workers:
        worker.process.join()


class _Records(logging.Handler):
    """Collects what is logged, for the process that decides where it goes."""

    def __init__(self):
        super().__init__(logging.INFO)
        self.records: list[tuple[str, int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append((record.name, record.levelno, record.getMessage()))

    def take(self) -> list[tuple[str, int, str]]:
        records, self.records = self.records, []
        return records


def _serve(connection: Connection, work: Callable[[Any], Any], timeout: float) -> None:
    """The life of a worker process: until the connection ends, or it does itself."""
    for number in STOP_SIGNALS:  # they are for the process that has us, which ends us
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
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
            with _alarm(timeout):
                outcome = _attempt(work, task)
            connection.send((outcome, records.take()))


def _end_with_parent() -> None:
    """Leave once the process that has us is gone, whatever the present task does."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _attempt(work: Callable[[Any], Any], task: Any) -> Any:
    """The result of ``work``, or its exception in a form that another process can raise."""
    try:
        return work(task)
    except VideonetError as error:
        return error
    except Exception:
        return RuntimeError(f"in a worker process:\n{traceback.format_exc()}")


@contextlib.contextmanager
def _alarm(seconds: float):
    """Let the kernel end this process after so many seconds; Windows has no such alarm."""
    if not seconds or not hasattr(signal, "setitimer"):
        yield
        return
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
