"""Errors meant for the user: one sentence, no traceback, and an exit code for the tools."""

from __future__ import annotations

import sys
from collections.abc import Callable


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


class Interrupted(VideonetError):
    """A signal asked to stop; what was done so far is saved."""

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.exit_code = 128 + signal_number


def run_tool(main: Callable[[], int | None]) -> None:
    """Run a tool's ``main`` and leave the process with its exit code.

    A :class:`VideonetError` becomes one line on stderr; exit code 2 for usage, 1 for failure,
    130 after an interrupt (SIGINT), 143 after SIGTERM.
    """
    try:
        code = main() or 0
    except Interrupted as stop:
        sys.stderr.write(f"stopped: {stop}\n")
        code = stop.exit_code
    except VideonetError as error:
        sys.stderr.write(f"error: {error}\n")
        code = error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        code = 130
    sys.exit(code)
