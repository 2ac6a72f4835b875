"""What made an output that a later run goes on with: kept in a file beside it, and compared."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from videonet.errors import ConfigError, DataError
from videonet.files import lock, make_folder, writing

logger = logging.getLogger(__name__)

INFORMATION = ("checkpoint",)  # where it lay; what it held is compared
LONGEST_VALUE = 60  # characters of a value in a message


class Claim:
    """Holds an output for this process: a file that says what made it, locked while it is open.

    Args:
        path: the file of the description.
        output: what it describes, as messages call it.

    Raises:
        ConfigError: another process writes to the output.
        WriteError: the file cannot be written.
    """

    def __init__(self, path: Path, output: str | os.PathLike[str]):
        self.path, self.output = path, os.fspath(output)
        make_folder(path.parent)
        with writing(path):
            self._file = open(path, "a+", encoding="utf-8")  # noqa: SIM115
        try:
            lock(self._file)
        except BlockingIOError:
            self._file.close()
            raise ConfigError(
                f"another process writes to {self.output}: wait for its end, or give another "
                "--output"
            ) from None
        except OSError as error:
            logger.warning(
                "%s: the file system has no locks (%s), so nothing keeps a second run out of it",
                *(self.output, error.strerror),
            )

    def settle(self, about: Mapping[str, Any], *, begun: bool) -> None:
        """Compare with what made the output so far, or write down what makes it.

        Args:
            about: JSON; what lies in it under ``checkpoint`` is for messages.
            begun: whether the output holds anything that a run of before wrote.

        Raises:
            DataError: the output was made by something else, or nothing says by what.
        """
        wanted = json.loads(json.dumps(about))
        if begun:
            self._compare(wanted)
            return
        with writing(self.path):
            self._file.seek(0)
            self._file.truncate()
            self._file.write(json.dumps(wanted, indent=1) + "\n")
            self._file.flush()

    def _compare(self, wanted: dict[str, Any]) -> None:
        advice = "nothing was changed: give another --output, or --overwrite to begin anew"
        self._file.seek(0)
        try:
            found = json.loads(self._file.read())
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise DataError(
                f"{self.output} was begun by an earlier run, but {self.path} does not say what "
                f"made it, so results would be mixed; {advice}"
            )
        differences = [
            f"{key} is {_short(ours)} there and {_short(theirs)} here"
            for key, ours, theirs in _differences(found, wanted)
        ]
        if differences:
            more = f" (and {len(differences) - 3} more)" if len(differences) > 3 else ""
            before, now = (content.get("checkpoint") for content in (found, wanted))
            of = f" by {before}" if before and before != now else ""
            this = f", not by {now}" if of and now else ""
            raise DataError(
                f"{self.output} was made{of or ' by other options'}{this}: "
                f"{', '.join(differences[:3])}{more}; {advice}"
            )

    def close(self) -> None:
        """Let go of the output; a description that nothing was written to is removed."""
        if not self._file.closed:
            if os.fstat(self._file.fileno()).st_size == 0:
                self.path.unlink(missing_ok=True)
            self._file.close()


def _differences(
    found: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """(key, value there, value here) of all that differs, keys of inner mappings with dots."""
    for key in sorted(found.keys() | wanted.keys()):
        ours, theirs = found.get(key), wanted.get(key)
        if isinstance(ours, dict) and isinstance(theirs, dict):
            yield from _differences(ours, theirs, f"{prefix}{key}.")
        elif ours != theirs and prefix + key not in INFORMATION:
            yield prefix + key, ours, theirs


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"
