"""Writing files: whole or not at all under their name, by one process, or one sentence why not."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Literal

from videonet.errors import WriteError

GUARDED = 1  # bytes that are locked, behind the text; Windows lets nobody read locked bytes
BEHIND = 1 << 20
LONGEST_TEMPORARY = 180  # bytes of a name that its temporary name repeats
_TEMPORARY = re.compile(r"\.part\.(?P<process>\d{1,9})\.")


@contextlib.contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn the system's error within (a full disk, a read-only folder) into one sentence.

    Raises:
        WriteError: names the file and what the system said.
    """
    try:
        yield
    except OSError as error:
        raise WriteError(f"cannot write {os.fspath(path)}: {error.strerror or error}") from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name to write to; what is there afterwards takes the place of `path`.

    Where an error or a signal ends the writing, `path` keeps what it held. Folders are made.

    Raises:
        WriteError: it cannot be written.
    """
    path = Path(os.path.realpath(path))  # a link stays a link
    temporary = temporary_name(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.touch()
            rights = temporary.stat().st_mode
            temporary.unlink()
            yield temporary
            if temporary.is_file():  # safetensors gives its files to their owner alone
                temporary.chmod(rights)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def temporary_name(path: Path) -> Path:
    """The hidden name beside a file under which this process writes it; with its ending.

    It is this process's own: a worker whose run was killed may still be at work on the same file.
    """
    name = os.fsencode(path.name)
    if len(name) > LONGEST_TEMPORARY:
        name = hashlib.blake2b(name, digest_size=8).hexdigest().encode() + os.fsencode(path.suffix)
    return path.with_name(f".part.{os.getpid()}.{os.fsdecode(name)}")


def remove_unfinished(folder: Path) -> None:
    """Delete what processes that were killed left half written in a folder."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            match = _TEMPORARY.match(entry.name)
            if match and not _is_alive(int(match["process"])):
                os.unlink(entry.path)


def _is_alive(process: int) -> bool:
    if sys.platform == "win32":  # which has no way to ask
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return not _is_zombie(process)


def _is_zombie(process: int) -> bool:
    """Whether a process has ended and nobody has asked how, as in containers without an init."""
    try:
        status = Path(f"/proc/{process}/stat").read_bytes()
    except OSError:  # not Linux, or gone in this moment
        return False
    return status.rpartition(b")")[2].split()[:1] == [b"Z"]


@contextlib.contextmanager
def replacing_text(path: Path, *, newline: str | None = None) -> Iterator[IO[str]]:
    """An open text file that takes the place of `path` when it is written, see :func:`replacing`.

    UTF-8; names of files that are no UTF-8 keep their bytes. `newline` is that of ``open``.
    """
    with replacing(path) as temporary, _open_text(temporary, "w", newline) as file:
        yield file


class AppendedText:
    """A text file that grows: what is appended is handed to the system at once.

    Args:
        path: the file, in a folder that exists.
        start: the pieces that it begins with, in place of what it held, written whole or not at
            all; None to go on behind what it holds, in a line of its own.

    Raises:
        WriteError: it cannot be written.
    """

    def __init__(self, path: Path, start: Iterable[str] | None):
        self.path = path
        if start is not None:
            with replacing_text(path, newline="") as file:
                file.writelines(start)
        with writing(path):
            cut_short = start is None and _ends_within_a_line(path)
            self._file = _open_text(path, "a", newline="")
        if cut_short:  # by a full disk or a crash
            self.append("\n")

    def append(self, text: str) -> None:
        """Write a piece. Raises WriteError where it cannot be written."""
        with writing(self.path):
            self._file.write(text)
            self._file.flush()

    def close(self) -> None:
        """End writing."""
        with contextlib.suppress(OSError):  # what a full disk did not take was reported
            self._file.close()


def _open_text(path: Path, mode: Literal["w", "a"], newline: str | None) -> IO[str]:
    return open(path, mode, encoding="utf-8", errors="surrogateescape", newline=newline)


def _ends_within_a_line(path: Path) -> bool:
    if not path.is_file() or not path.stat().st_size:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def make_folder(path: Path) -> None:
    """Make a folder and those above it. Raises WriteError where that cannot be."""
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)


def lock(file: IO[str]) -> None:
    """Lock an open file for this process, until it closes the file or ends.

    Raises:
        BlockingIOError: another process holds the lock.
        OSError: the file system has no locks.
    """
    if sys.platform == "win32":
        import msvcrt

        file.seek(BEHIND)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, GUARDED)
        except OSError as error:
            raise BlockingIOError(*error.args) from error
    else:
        import fcntl

        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
