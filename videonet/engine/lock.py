"""One run at a time in an OUTPUT_DIR."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from videonet.engine.distributed import Process
from videonet.errors import ConfigError
from videonet.files import lock

logger = logging.getLogger(__name__)

LOCK = ".lock"  # in OUTPUT_DIR
PATIENCE = 3.0  # seconds to wait for a run that is ending


@contextlib.contextmanager
def only_run_in(folder: str | Path, process: Process) -> Iterator[None]:
    """Hold the lock of a run's folder; called by all processes together, and the first one locks.

    The operating system releases the lock when the process ends, however it ends. A process may
    enter more than once. Where the file system has no locks, a warning says so.

    Args:
        folder: ``OUTPUT_DIR``.
        process: this process.

    Raises:
        ConfigError: another process is at work in the folder.
    """
    file, problem = None, None
    if process.is_main:
        try:
            file = _acquire(Path(folder))
        except ConfigError as error:
            problem = error
    problem = process.gather(problem)[0]
    if problem is not None:
        raise problem
    try:
        yield
    finally:
        if file is not None:
            file.close()


def _acquire(folder: Path) -> IO[str] | None:
    """The open file that holds the lock; None where this process holds it already."""
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115
    except OSError as error:
        raise ConfigError(f"OUTPUT_DIR {folder} cannot be written to: {error.strerror}") from error
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            lock(file)
        except BlockingIOError:
            holder = _read_holder(path)
            if holder == _this_process():
                file.close()
                return None
            if time.monotonic() < deadline:
                time.sleep(0.1)
                continue
            file.close()
            raise ConfigError(
                f"OUTPUT_DIR {folder} is in use by process {holder.get('process', 'unknown')} on "
                f"{holder.get('host', 'an unknown machine')}: wait for its end, or choose another "
                f"OUTPUT_DIR"
            ) from None
        except OSError as error:
            logger.warning(
                "%s: the file system has no locks (%s), so nothing keeps a second run out of this "
                "OUTPUT_DIR",
                *(path, error.strerror),
            )
            return file
        file.seek(0)
        file.truncate()
        json.dump(_this_process(), file)
        file.flush()
        return file


def _this_process() -> dict[str, str | int]:
    return {"process": os.getpid(), "host": socket.gethostname()}


def _read_holder(path: Path) -> dict:
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return holder if isinstance(holder, dict) else {}
