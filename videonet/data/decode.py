"""One seam for reading videos: open, ``frames_at(indices)``, close, whatever decodes.

PyAV reads every file that FFmpeg reads, and is the measure for the others: decord and torchcodec
are trusted with a file when they agree with PyAV about it, and PyAV goes on where they do not.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np

from videonet.choices import FRAMES_FPS
from videonet.data.video.content import BytesContent, Content, FileContent, Source
from videonet.data.video.decord_reader import DecordReader
from videonet.data.video.fallback import FallbackReader
from videonet.data.video.info import VideoInfo
from videonet.data.video.names import PICTURE_SUFFIXES
from videonet.data.video.pictures import PictureReader
from videonet.data.video.pyav_reader import PyAVReader
from videonet.data.video.reader import SelectedFrames, VideoReader, scaled_size
from videonet.data.video.tar_members import source_of
from videonet.data.video.torchcodec_reader import CudaReader, TorchcodecReader
from videonet.errors import ConfigError

__all__ = [
    "BACKENDS",
    "Encoded",
    "FRAMES_FPS",
    "PyAVReader",
    "VideoInfo",
    "VideoReader",
    "open_video",
    "scaled_size",
]

# What is opened: a path, the bytes of a file, an open binary file.
Encoded = str | os.PathLike[str] | bytes | BinaryIO | Content
BACKENDS = ("auto", "cuda", "decord", "pyav", "torchcodec")


def open_video(
    path: Encoded,
    backend: str = "auto",
    short_side: int | None = None,
    *,
    allow_larger: bool = False,
    known: VideoInfo | None = None,
    frames_fps: float = FRAMES_FPS,
    frames: Sequence[str] | Sequence[int] | None = None,
) -> VideoReader:
    """Open a video for reading frames by index: a file, a folder of numbered pictures, a picture.

    ``path`` may also be the encoded bytes of a video, a binary file that is open and can seek, or
    the name of a member of a tar file (:mod:`videonet.data.video.tar_members`).

    ``backend``: one of :data:`BACKENDS`. ``auto`` is PyAV, which reads the most and decodes the
    least; decord, torchcodec and ``cuda`` (torchcodec on an NVIDIA GPU, whose colours differ a
    little) give way to PyAV for files that they cannot read exactly, which is logged once per
    codec. ``short_side``: frames come with exactly this short side (in pixels,
    smaller videos are enlarged) and the long side in proportion, rounded down; None keeps the
    size, and with ``allow_larger`` videos of up to twice the short side keep theirs too, which is
    cheaper where a resizing follows anyway. ``known``: what a manifest says of the file, which
    makes opening it cheaper; where the file says something else, the file is right.
    ``frames_fps``: the frame rate of pictures. ``frames``: those that the video consists of,
    names of pictures in its folder or numbers of frames of its file; None for all.

    Raises DecodeError, naming the path and the reason, for a file that holds no readable video.
    """
    if backend not in BACKENDS:
        raise ConfigError(f"unknown video backend {backend!r}; known are {', '.join(BACKENDS)}")
    source = _source(path)
    if frames and isinstance(frames[0], str):
        return PictureReader(source, frames_fps, short_side, allow_larger, [str(f) for f in frames])
    reader = _open(source, backend, short_side, allow_larger, known, frames_fps)
    return reader if frames is None else SelectedFrames(reader, np.array(frames, dtype=np.int64))


def _source(path: Encoded) -> Source:
    if isinstance(path, Content):
        return path
    if isinstance(path, bytes):
        return BytesContent(path)
    if isinstance(path, str | os.PathLike):
        return source_of(os.fspath(path))
    return FileContent(path)


def _open(
    path: Source,
    backend: str,
    short_side: int | None,
    allow_larger: bool,
    known: VideoInfo | None,
    frames_fps: float,
) -> VideoReader:
    name = str(path)
    if (isinstance(path, str) and os.path.isdir(path)) or name.lower().endswith(PICTURE_SUFFIXES):
        return PictureReader(path, frames_fps, short_side, allow_larger)
    if backend in ("auto", "pyav"):
        return PyAVReader(path, short_side, allow_larger, known)
    others = {"cuda": CudaReader, "decord": DecordReader, "torchcodec": TorchcodecReader}
    return FallbackReader(backend, others[backend], path, short_side, allow_larger, known)
