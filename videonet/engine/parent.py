"""A process that torchrun started ends when torchrun does."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator

INTERVAL = 1.0  # seconds between two looks
GRACE = 30.0  # seconds to stop in; torchrun itself gives as many


@contextlib.contextmanager
def end_with_torchrun() -> Iterator[None]:
    """While entered, this process gets a SIGTERM when the ``torchrun`` that started it has died.

    The run then saves its state, as for a SIGTERM that torchrun passes on; after :data:`GRACE`
    seconds the process is ended. Without torchrun nothing is watched, as other launchers may end
    while their processes go on.
    """
    left = threading.Event()
    if "TORCHELASTIC_RUN_ID" in os.environ and hasattr(os, "getppid"):
        parent = os.getppid()
        threading.Thread(target=_watch, args=(parent, left), daemon=True).start()
    try:
        yield
    finally:
        left.set()


def _watch(parent: int, left: threading.Event) -> None:
    while os.getppid() == parent:
        if left.wait(INTERVAL):
            return
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(128 + signal.SIGTERM)
