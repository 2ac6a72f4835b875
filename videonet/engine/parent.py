"""Processes that torchrun started end with it."""

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
    """Inside, the death of the ``torchrun`` that started this process is a SIGTERM to it.

    So the state is saved, as for a SIGTERM that torchrun passes on; after :data:`GRACE` seconds
    the process ends whatever it does. Elsewhere this does nothing: other launchers may leave.
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
