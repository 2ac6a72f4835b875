"""Errors meant for the user: one sentence, no traceback, and an exit code for the tools."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import sys
from collections.abc import Callable

from videonet.terminal import printable

PARTIAL = 3  # exit code of a tool that could read some of its files and not others


class VideonetError(Exception):
    """What went wrong, in one sentence that names the file, line, key or tensor."""

    exit_code = 1


class ConfigError(VideonetError, ValueError):
    """A key, value or argument that cannot be used."""

    exit_code = 2


class DataError(VideonetError):
    """A list, label or data set that cannot be used."""


class DecodeError(VideonetError):
    """A video that cannot be read."""


class CheckpointError(VideonetError):
    """A checkpoint that cannot be read or does not fit the model."""


class TrainingError(VideonetError):
    """A training run that cannot go on."""


class WriteError(VideonetError):
    """A file that cannot be written: a full disk, a read-only folder, a name that is too long."""


class ScoreError(VideonetError):
    """Scores or embeddings of a video that are not finite numbers."""


class Interrupted(VideonetError):
    """A signal asked to stop; what was done so far is saved."""

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.exit_code = 128 + signal_number


def exit_code(failed: int, total: int) -> int:
    """What a tool ends with that `failed` at so many of `total` files: 0 none, 3 some, 1 all."""
    if not failed:
        return 0
    return PARTIAL if failed < total else VideonetError.exit_code


def too_many_files() -> str:
    """What to do about a process that may not open another file."""
    try:
        import resource  # not on Windows

        limit = f" of {resource.getrlimit(resource.RLIMIT_NOFILE)[0]}"
    except ImportError:
        limit = ""
    return f"the limit{limit} open files is reached: raise it (ulimit -n), or use fewer workers"


def run_tool(main: Callable[[], int | None]) -> None:
    """Run a tool's ``main`` and leave the process with its exit code.

    A :class:`VideonetError`, or an error of the system (a full disk, too few open files), becomes
    one line on stderr. Exit codes: 0 for success, 1 for failure, 2 for usage, 3 where some of the
    files could not be read, 130 after an interrupt (SIGINT), 143 after SIGTERM.
    """
    try:
        code = main() or 0
        sys.stdout.flush()
    except Interrupted as stop:
        _say(f"stopped: {stop}")
        code = stop.exit_code
    except VideonetError as error:
        _say(f"error: {error}")
        code = error.exit_code
    except BrokenPipeError:  # whoever read the output has seen enough
        code = 1
    except OSError as error:
        _say(f"error: {_system_error(error)}")
        code = 1
    except KeyboardInterrupt:
        _say("interrupted")
        code = 130
    _leave_stdout()
    # Else the interpreter looks for cycles in all of torch before it ends: 1 to 2 s. Triton would
    # report what is left then as leaks.
    if "triton" not in sys.modules:
        gc.freeze()
    sys.exit(code)


def _say(line: str) -> None:
    """A line on stderr, where anybody still reads it."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"{printable(line)}\n")
        sys.stderr.flush()


def _system_error(error: OSError) -> str:
    reason = error.strerror or str(error) or type(error).__name__
    if error.errno in (errno.EMFILE, errno.ENFILE):
        reason = too_many_files()
    return f"{error.filename}: {reason}" if error.filename else reason


def _leave_stdout() -> None:
    """Let what cannot be written any more not become a second message at the end."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
