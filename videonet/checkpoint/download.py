"""Downloads into one cache folder: resumed, checked, and whole or not at all under their name."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.client
import logging
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit

from videonet.checkpoint.formats import refuse_what_is_no_checkpoint
from videonet.errors import CheckpointError, WriteError
from videonet.files import lock, make_folder, writing
from videonet.terminal import progress_bar

logger = logging.getLogger(__name__)

HOME = "VIDEONET_HOME"  # environment variables
OFFLINE = "VIDEONET_OFFLINE"
CHUNK = 1 << 20  # bytes
TIMEOUT = 30.0  # seconds without a byte
TRIES = 4  # connections that bring nothing new, in a row
LOCK_PERIOD = 0.2  # seconds between two looks at another process's lock
CHECKPOINT = "checkpoint"  # what is fetched, if nobody says otherwise
LONGEST_NAME = 150  # characters of a file's name in the cache


def cache_folder() -> Path:
    """Where downloads are kept: ``VIDEONET_HOME``, by default ``~/.cache/videonet``."""
    return Path(os.environ.get(HOME) or "~/.cache/videonet").expanduser()


def is_offline(variable: str = OFFLINE) -> bool:
    """Whether an environment variable forbids the network (1, true, yes or on)."""
    return os.environ.get(variable, "").strip().lower() in ("1", "true", "yes", "on")


def place_of(url: str) -> Path:
    """The file of the cache that a URL is downloaded to."""
    name = unquote(urlsplit(url).path).rpartition("/")[2]
    name = re.sub(r"[^\w.+=-]", "_", name)[-LONGEST_NAME:].lstrip(".") or "file"
    return cache_folder() / "downloads" / hashlib.sha256(url.encode()).hexdigest()[:12] / name


@dataclass(frozen=True)
class _Wanted:
    """A file that is to be fetched.

    Attributes:
        url: where it is.
        target: its place.
        digest: the beginning of its hash.
        what: it is, for messages.
    """

    url: str
    target: Path
    digest: str
    what: str

    @property
    def part(self) -> Path:
        """What has been fetched of it."""
        return self.target.with_name(f".{self.target.name}.part")

    @property
    def mark(self) -> Path:
        """The file that says which state of the remote file the part is of."""
        return self.part.with_suffix(".mark")

    def size(self) -> int:
        """Bytes that have been fetched."""
        return self.part.stat().st_size if self.part.is_file() else 0

    def forget(self) -> None:
        """Remove what has been fetched."""
        self.part.unlink(missing_ok=True)
        self.mark.unlink(missing_ok=True)

    def missing(self, why: str) -> CheckpointError:
        """What is raised where it cannot be fetched."""
        place = ""
        if self.what == CHECKPOINT:
            kept = f", {self.size():,} bytes are kept for the next attempt" if self.size() else ""
            place = f"{kept}; fetched by other means it belongs to {self.target}"
        return CheckpointError(f"cannot fetch {self.what} {self.url}: {why}{place}")


def download(
    url: str, target: Path | None = None, digest: str = "", *, what: str = CHECKPOINT
) -> Path:
    """The local file of a URL, fetched where it is not there.

    What an earlier attempt has fetched is kept beside it under a hidden name, and the next one goes
    on from there. Of several processes one downloads and the others wait.

    Args:
        url: ``http`` or ``https``.
        target: the file; by default :func:`place_of` the URL in the cache.
        digest: ``KIND:VALUE``, the beginning of the file's hash in hexadecimal digits; KIND as in
            ``hashlib``.
        what: it is, for messages; what is no checkpoint is not looked into.

    Raises:
        CheckpointError: it cannot be fetched, is no checkpoint, or has another hash.
        WriteError: the folder cannot be written.
    """
    wanted = _Wanted(url, target or place_of(url), digest, what)
    if wanted.target.is_file():
        check_digest(wanted.target, digest)
        return wanted.target
    if is_offline():
        raise wanted.missing(f"{OFFLINE} is set")
    try:
        make_folder(wanted.target.parent)
        with _only_process(wanted.target):
            if not wanted.target.is_file():
                _fetch(wanted)
    except WriteError as error:
        raise WriteError(f"{error} ({HOME} names another folder for downloads)") from error
    return wanted.target


def check_digest(path: Path, digest: str, origin: str = "") -> None:
    """Compare a file with its hash.

    Args:
        path: the file.
        digest: as for :func:`download`; empty where it is not known.
        origin: what messages call the file; by default its path.

    Raises:
        CheckpointError: they differ.
    """
    kind, _, wanted = digest.partition(":")
    if not wanted:
        return
    found = hashlib.new(kind)
    with path.open("rb") as file:
        while piece := file.read(CHUNK):
            found.update(piece)
    begins = found.hexdigest()[: len(wanted)]
    if begins != wanted:
        raise CheckpointError(
            f"{origin or path} is not the published file: its {kind} begins with {begins}, "
            f"expected {wanted}" + ("" if origin else "; remove it to fetch it again")
        )


@contextlib.contextmanager
def _only_process(target: Path) -> Iterator[None]:
    """Wait until no other process fetches a file, and keep others from it."""
    path = target.with_name(f".{target.name}.lock")
    waited = False
    while True:
        with writing(target):
            file = path.open("w")
        try:
            lock(file)
        except BlockingIOError:
            file.close()
            if not waited:
                logger.info("another process fetches %s", target)
            waited = True
            time.sleep(LOCK_PERIOD)
            continue
        except OSError:  # a file system without locks
            break
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                break
        file.close()  # of a process that has just finished and removed it
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows removes no open file
            path.unlink()
        file.close()


def _fetch(wanted: _Wanted) -> None:
    logger.info("downloading %s to %s", wanted.url, wanted.target)
    resumed = wanted.size() > 0
    _fill(wanted)
    try:
        _check(wanted)
    except CheckpointError:
        if not resumed:
            raise
        _fill(wanted)  # what was kept may have been of another file
        _check(wanted)
    with writing(wanted.target):
        os.replace(wanted.part, wanted.target)
        wanted.mark.unlink(missing_ok=True)


def _check(wanted: _Wanted) -> None:
    """Refuse what is not the file that was wanted, and remove it."""
    try:
        if wanted.what == CHECKPOINT:
            with wanted.part.open("rb") as file:
                refuse_what_is_no_checkpoint(wanted.url, file.read(64))
        check_digest(wanted.part, wanted.digest, wanted.url)
    except CheckpointError:
        wanted.forget()
        raise


def _fill(wanted: _Wanted) -> None:
    """Fetch all of a file, with as many connections as it takes."""
    failures, size = 0, wanted.size()
    while True:
        try:
            total = _one_connection(wanted)
            if total is None or wanted.size() >= total:
                return
            problem = "the connection ended"
        except urllib.error.HTTPError as error:
            problem = f"the server says {error.code} {error.reason}"
            if error.code < 500 and error.code not in (408, 429):  # a time-out, too many requests
                raise wanted.missing(problem) from error
        except (http.client.HTTPException, OSError) as error:
            problem = reason_of(error)
        before, size = size, wanted.size()
        failures = 1 if size > before else failures + 1
        if failures >= TRIES or (not size and failures >= 2):
            raise wanted.missing(problem)
        time.sleep(min(0.1 * 4 ** (failures - 1), 2.0))


def _one_connection(wanted: _Wanted) -> int | None:
    """Append to the part what one connection brings.

    Returns:
        The size of the whole file in bytes, None where the server does not say.
    """
    have, mark = wanted.size(), wanted.mark
    request = urllib.request.Request(wanted.url, headers={"User-Agent": "videonet"})
    validator = mark.read_text(encoding="utf-8") if have and mark.is_file() else ""
    if validator:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", validator)
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        wanted.forget()
        raise OSError("the file has become shorter") from error
    with answer:
        goes_on = answer.status == http.HTTPStatus.PARTIAL_CONTENT and bool(validator)
        if goes_on and not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            wanted.forget()
            raise OSError("the server sent another part of the file than it was asked for")
        start = have if goes_on else 0
        length = answer.headers.get("Content-Length")
        total = start + int(length) if length and length.isdigit() else None
        with writing(wanted.part):
            _refuse_small_disk(wanted, start, total)
            mark.write_text(_validator(answer), encoding="utf-8")
            file = wanted.part.open("ab" if goes_on else "wb")
        _copy(answer, file, wanted, start, total)
    return total


def _validator(answer: http.client.HTTPResponse) -> str:
    """What tells states of a remote file apart, byte by byte; empty where nothing does."""
    tag = answer.headers.get("ETag") or ""
    is_strong = tag and not tag.startswith("W/")
    return tag if is_strong else answer.headers.get("Last-Modified") or ""


def _copy(
    answer: http.client.HTTPResponse,
    file: IO[bytes],
    wanted: _Wanted,
    start: int,
    total: int | None,
) -> None:
    bar = progress_bar(
        initial=start, total=total, desc="download", unit="B", unit_scale=True, leave=False
    )
    try:
        with file, bar:
            while piece := answer.read(CHUNK):
                with writing(wanted.part):
                    file.write(piece)
                bar.update(len(piece))
            with writing(wanted.part):
                file.flush()
                os.fsync(file.fileno())
    except WriteError:
        wanted.forget()  # a full disk gets its room back
        raise
    except OSError as error:
        if error.errno == errno.ENOSPC:  # of closing the file
            wanted.forget()
            raise WriteError(f"cannot write {wanted.part}: {error.strerror}") from error
        raise


def reason_of(error: Exception) -> str:
    """What a connection failed by, without the number that the system gives it.

    Args:
        error: as urllib or a socket raises it.
    """
    reason = getattr(error, "reason", None) or error
    return str(getattr(reason, "strerror", None) or reason) or type(error).__name__


def _refuse_small_disk(wanted: _Wanted, start: int, total: int | None) -> None:
    """Raise OSError where the disk has less room than the file needs."""
    free = shutil.disk_usage(wanted.part.parent).free + (wanted.size() - start)
    if total is not None and total - start > free:
        room = f"the file has {total:,} bytes and the disk room for {free + start:,}"
        raise OSError(errno.ENOSPC, room)
