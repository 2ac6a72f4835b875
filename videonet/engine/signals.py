"""SIGTERM, SIGINT and SIGHUP: they end a run between two steps, with its state saved."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType

from videonet.data.loading.workers import STOP_SIGNALS

# A terminal or SLURM signals both torchrun and its processes, and torchrun passes the signal on, so
# that a process gets it twice: within so many seconds the second one is the same request.
SAME_REQUEST = 5.0


class StopSignals:
    """While entered, notes the first of ``STOP_SIGNALS``; a later one acts as it did before.

    A SIGHUP that is ignored (``nohup``) stays so.

    Attributes:
        received: number of the first signal; 0 as long as none came.
    """

    def __init__(self) -> None:
        self.received = 0
        self._since = 0.0
        self._before: dict = {}

    def __enter__(self) -> StopSignals:
        # Only the main thread may change handlers; elsewhere the caller keeps its own.
        if threading.current_thread() is threading.main_thread():
            self._before = {
                number: signal.signal(number, self._note)
                for number in STOP_SIGNALS
                if number in (signal.SIGTERM, signal.SIGINT)
                or signal.getsignal(number) != signal.SIG_IGN
            }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if not self.received:
            self.received, self._since = number, time.monotonic()
        elif time.monotonic() - self._since > SAME_REQUEST:
            self.__exit__()
            signal.raise_signal(number)
