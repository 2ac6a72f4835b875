"""The process that workers are forked from, started before this one imports what takes seconds."""

from __future__ import annotations

import multiprocessing
import multiprocessing.forkserver
import signal
import sys


def start_fork_server(*modules: str) -> None:
    """Let the fork server import modules, and with them torch, while this process does the same.

    Worker processes start from that server on Linux, and there alone. A pool that is made without
    this call starts the server itself, and waits for it.

    To be called from the main thread.

    Args:
        modules: what the workers run is in them, or is imported by them.
    """
    if sys.platform != "linux":
        return
    multiprocessing.get_context("forkserver").set_forkserver_preload(list(modules))
    # Ctrl-C reaches it too, and would end its imports with a traceback; it ends with this process.
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGINT, handler)
