"""Receiving files: written to a folder of their own as they come, and deleted when done with."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from videonet.errors import DecodeError
from videonet.inference.inputs import SCHEMES, picture_suffix
from videonet.serving.limits import Limits, Refusal, too_large
from videonet.terminal import printable

LONGEST_NAME = 120  # characters of a name that are shown
HEAD = 16  # bytes that tell pictures
DRAINED = 2**31  # bytes of a refused upload that are taken, so that its sender hears the answer
DRAIN_SECONDS = 20.0
BLOCK = 2**18


@dataclass(frozen=True)
class Upload:
    """A file that was received.

    Attributes:
        path: where it lies; its name is ours.
        name: what its sender calls it, for people to read.
        size: in bytes.
    """

    path: Path
    name: str
    size: int


def shown_name(name: str) -> str:
    """The last part of a name that came from anybody, in one line."""
    last = name.replace("\\", "/").rstrip("/").rpartition("/")[2]
    return printable(last)[:LONGEST_NAME] or "video"


@contextlib.asynccontextmanager
async def receive(
    body: AsyncIterator[bytes], headers: Mapping[str, str], name: str, folder: Path, limits: Limits
) -> AsyncIterator[Upload]:
    """The body of a request as a file, which is deleted at the end.

    Args:
        body: its pieces.
        headers: of the request.
        name: what the sender calls the file.
        folder: gets a folder with the file.
        limits: of size and time.

    Raises:
        Refusal: the body is too large, too slow, empty or encoded.
    """
    if headers.get("content-encoding", "identity") != "identity":
        await _drain(body)
        raise Refusal(415, "the body is compressed (Content-Encoding): send the file as it is")
    length = headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > limits.max_bytes:
        await _drain(body)
        raise too_large(limits)
    with tempfile.TemporaryDirectory(dir=folder) as own:
        part = Path(own, "part")
        try:
            with part.open("wb") as file:
                taken = await asyncio.wait_for(
                    _take(body, file, limits.max_bytes), limits.upload_seconds
                )
        except asyncio.TimeoutError:
            raise Refusal(408, f"the upload took longer than {limits.upload_seconds:g} s") from None
        except OSError as error:
            raise Refusal(507, f"the server cannot store the file: {error.strerror}") from None
        if taken is None:
            part.unlink()
            await _drain(body)
            raise too_large(limits)
        size, head = taken
        yield _finished(part, name, size, head)


def _finished(part: Path, name: str, size: int, head: bytes) -> Upload:
    if not size:
        raise Refusal(400, "the request has no body: send the bytes of a video file")
    path = part.rename(part.with_name(f"upload{picture_suffix(head)}"))
    return Upload(path, shown_name(name), size)


async def _take(body: AsyncIterator[bytes], file: IO[bytes], most: int) -> tuple[int, bytes] | None:
    """Write the pieces; their size and first bytes, or None where they are too many."""
    size, head = 0, b""
    async for piece in body:
        size += len(piece)
        if size > most:
            return None
        head += piece[: max(0, HEAD - len(head))]
        file.write(piece)
    return size, head


async def _drain(body: AsyncIterator[bytes]) -> None:
    """Take what still comes of a refused upload and forget it, for a while.

    A sender whose connection is closed while it sends never sees the answer.
    """

    async def take() -> None:
        size = 0
        async for piece in body:
            size += len(piece)
            if size > DRAINED:
                return

    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(take(), DRAIN_SECONDS)


@contextlib.contextmanager
def fetched(url: str, hosts: frozenset[str], folder: Path, limits: Limits) -> Iterator[Upload]:
    """The file of an address as if it were uploaded, from allowed hosts alone.

    Args:
        url: http or https.
        hosts: from which files may be fetched, ``name`` or ``name:port``.
        folder: gets a folder with the file.
        limits: of size and time.

    Raises:
        Refusal: the address is not allowed, cannot be fetched, or is too large or slow.
    """
    _check_address(url, hosts)
    until = time.monotonic() + limits.upload_seconds
    opener = urllib.request.build_opener(_AllowedRedirects(hosts))
    with tempfile.TemporaryDirectory(dir=folder) as own:
        part, size, head = Path(own, "part"), 0, b""
        try:
            with opener.open(url, timeout=10) as answer, part.open("wb") as file:
                while piece := answer.read(BLOCK):
                    size += len(piece)
                    head = head or piece[:HEAD]
                    if size > limits.max_bytes:
                        raise too_large(limits)
                    if time.monotonic() > until:
                        raise Refusal(408, f"the file took longer than {limits.upload_seconds:g} s")
                    file.write(piece)
        except (OSError, HTTPException, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            raise Refusal(422, printable(f"cannot fetch the address: {reason}")) from None
        yield _finished(part, urlsplit(url).path, size, head)


def _check_address(url: str, hosts: frozenset[str]) -> None:
    if not hosts:
        raise Refusal(403, "this server fetches no addresses: send the file itself")
    try:
        parts = urlsplit(url)
        known = parts.netloc.lower() in hosts
    except ValueError:
        known = False
    if not known or not url.lower().startswith(SCHEMES):
        raise Refusal(403, f"this server fetches from {', '.join(sorted(hosts))} alone")


class _AllowedRedirects(urllib.request.HTTPRedirectHandler):
    def __init__(self, hosts: frozenset[str]):
        self._hosts = hosts

    def redirect_request(self, request: Any, file: Any, code: int, *rest: Any) -> Any:
        _check_address(rest[-1], self._hosts)
        return super().redirect_request(request, file, code, *rest)


def about(error: DecodeError, upload: Upload) -> str:
    """What is said of an upload that cannot be read: under its sender's name."""
    return printable(str(error).replace(str(upload.path), upload.name))
