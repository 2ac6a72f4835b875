"""What a prediction takes for a video: paths, addresses, bytes, open files, frames in memory."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, TypeGuard

import numpy as np
from PIL import Image
from torch import Tensor

from videonet.data.loading.dataset import EvaluationViews
from videonet.data.video.memory import Frames, FramesReader, stack_frames
from videonet.data.video.reader import VideoReader
from videonet.errors import CheckpointError, ConfigError, DecodeError
from videonet.inference.buckets import fetch, is_address

File = str | os.PathLike[str] | bytes | IO[bytes]
Video = File | Frames
SCHEMES = ("http://", "https://")
# How the files of pictures begin; what lies in memory has no name that tells.
_PICTURES = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png", b"BM": ".bmp"}
CHUNK = 2**20


def is_several(video: Any) -> TypeGuard[Sequence[Any]]:
    """Whether a list or tuple holds videos; pictures are the frames of one."""
    if not isinstance(video, list | tuple) or not video:
        return False
    first = video[0]
    if isinstance(first, Image.Image):
        return False
    return not isinstance(first, np.ndarray | Tensor) or first.ndim == 4


@contextlib.contextmanager
def open_input(video: Any, views: EvaluationViews, fps: float | None) -> Iterator[VideoReader]:
    """A reader of a video, at the size that its views are cropped from where that is cheaper.

    Args:
        video: see :data:`Video`: a path, an address (http, https), the bytes of a file, an open
            binary file, or frames as :func:`~videonet.data.video.memory.stack_frames` takes them.
        views: that will be made of it.
        fps: frames per second of frames in memory.

    Raises:
        DecodeError: it cannot be read or fetched, or frames are not what they should be.
        ConfigError: it is nothing of these, or the frames' rate is missing.
    """
    if isinstance(video, np.ndarray | Tensor | list | tuple):
        frames = stack_frames(video)
        with FramesReader(frames, _rate(views, fps)) as reader:
            yield reader
    elif isinstance(video, str | os.PathLike):
        with local_file(os.fspath(video)) as path, views.open(str(path)) as reader:
            yield reader
    elif isinstance(video, bytes | bytearray | memoryview) or hasattr(video, "read"):
        with _stored(video) as path, views.open(str(path)) as reader:
            yield reader
    else:
        raise ConfigError(
            f"a video is given as a {type(video).__name__}, expected a path, an address, bytes, an "
            "open file or frames"
        )


@contextlib.contextmanager
def local_file(path: str) -> Iterator[str | Path]:
    """A video as a file of this machine: itself, or a copy for as long as the context lasts.

    Args:
        path: a file, or an address: http, https, or another scheme that fsspec knows (s3, gs, hf).

    Raises:
        DecodeError: it cannot be fetched.
    """
    if not is_address(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="videonet-") as folder:
        name = path.split("?")[0].split("#")[0].rpartition("/")[2]
        suffix = Path(name).suffix if Path(name).suffix[1:].isalnum() else ""
        copy = Path(folder, f"video{suffix}")
        if path.lower().startswith(SCHEMES):
            _download(path, copy)
        else:
            fetch(path, copy)
        with _named(copy, path):
            yield copy


def _rate(views: EvaluationViews, fps: float | None) -> float:
    if fps is None:
        raise ConfigError(
            "frames in memory do not say how fast they follow: give fps, their number per second"
        )
    if not 0 < fps < float("inf"):
        raise ConfigError(f"fps is {fps}, expected a number of frames per second above 0")
    return float(fps)


@contextlib.contextmanager
def _stored(content: Any) -> Iterator[Path]:
    """Bytes, or what an open file has from its position on, as a file for the decoders."""
    with tempfile.TemporaryDirectory(prefix="videonet-") as folder:
        first, rest = _pieces(content)
        if not first:
            raise DecodeError("the video has no bytes")
        path = Path(folder, f"video{picture_suffix(first)}")
        with path.open("wb") as file:
            file.write(first)
            file.writelines(rest)
        with _named(path, "the video"):
            yield path


@contextlib.contextmanager
def _named(copy: Path, name: str) -> Iterator[None]:
    """What cannot be read has the name by which it was given, and not that of a passing copy."""
    try:
        yield
    except DecodeError as error:
        raise DecodeError(str(error).replace(str(copy), name)) from error


def picture_suffix(first: bytes) -> str:
    """How the name of a picture ends whose file begins with these bytes; empty for a video."""
    if first[:4] == b"RIFF" and first[8:12] == b"WEBP":
        return ".webp"
    return next((suffix for start, suffix in _PICTURES.items() if first.startswith(start)), "")


def _pieces(content: Any) -> tuple[bytes, Iterator[bytes] | Sequence[bytes]]:
    """The first bytes, and the rest."""
    if not hasattr(content, "read"):
        return bytes(content), ()
    first = content.read(CHUNK)
    if not isinstance(first, bytes):
        raise ConfigError("the video's file is open as text, expected it open as binary ('rb')")
    return first, iter(lambda: content.read(CHUNK), b"")


def _download(address: str, path: Path) -> None:
    from videonet.checkpoint.download import download

    try:
        download(address, path, what="video")
    except CheckpointError as error:
        raise DecodeError(f"cannot read {address}: {error}") from error
