"""One seam for reading videos: open, ``frames_at(indices)``, close, whatever decodes.

PyAV reads every file that FFmpeg reads, and is the measure for the others: decord and torchcodec
are trusted with a file when they agree with PyAV about it, and PyAV goes on where they do not.
"""

from __future__ import annotations

import functools
import importlib
import logging
import os
from collections.abc import Callable
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from videonet.data.container import VideoInfo, decode_error
from videonet.data.frame_folder import PICTURES, PictureReader
from videonet.data.pyav_reader import PyAVReader
from videonet.data.reader import VideoReader, scaled_size
from videonet.errors import ConfigError, DecodeError

__all__ = ["BACKENDS", "PyAVReader", "VideoInfo", "VideoReader", "open_video", "scaled_size"]

logger = logging.getLogger(__name__)

BACKENDS = ("auto", "decord", "pyav", "torchcodec")
FRAMES_FPS = 30.0
_INDEXED = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")  # containers that seek exactly


def open_video(
    path: str | os.PathLike[str],
    backend: str = "auto",
    short_side: int | None = None,
    *,
    roughly: bool = False,
    known: VideoInfo | None = None,
    frames_fps: float = FRAMES_FPS,
) -> VideoReader:
    """Open a video for reading frames by index: a file, a folder of numbered pictures, a picture.

    ``backend``: one of :data:`BACKENDS`. ``auto`` is PyAV, which reads the most and decodes the
    least; decord and torchcodec give way to PyAV for files that they cannot read exactly, which
    is logged once per codec. ``short_side``: frames come with exactly this short side (in pixels,
    smaller videos are enlarged) and the long side in proportion, rounded down; None keeps the
    size, and with ``roughly`` videos of up to twice the short side keep theirs too, which is
    cheaper where a resizing follows anyway. ``known``: what a manifest says of the file, which
    makes opening it cheaper. ``frames_fps``: the frame rate of pictures.

    Raises DecodeError, naming the path and the reason, for a file that holds no readable video.
    """
    if backend not in BACKENDS:
        raise ConfigError(f"unknown video backend {backend!r}; known are {', '.join(BACKENDS)}")
    path = os.fspath(path)
    if os.path.isdir(path) or path.lower().endswith(PICTURES):
        return PictureReader(path, frames_fps, short_side, roughly)
    if backend in ("auto", "pyav"):
        return PyAVReader(path, short_side, roughly, known)
    make = TorchcodecReader if backend == "torchcodec" else DecordReader
    return FallbackReader(backend, make, path, short_side, roughly, known)


class DecordReader(VideoReader):
    """Reads with decord, one thread, resizing in its filter graph."""

    def __init__(
        self,
        path: str,
        info: VideoInfo,
        times: np.ndarray,
        short_side: int | None = None,
        roughly: bool = False,
    ):
        super().__init__(path, info, times, short_side, roughly)
        decord = _import_backend("decord")
        weakness = _decord_weakness(info)
        if weakness:
            raise DecodeError(f"cannot read {path}: decord seeks inexactly in {weakness}")
        decord.logging.set_level(decord.logging.QUIET)  # FFmpeg's own lines; errors are raised
        upright = (info.width, info.height)
        width, height = self.size if self.size != upright else (-1, -1)  # -1: its own
        try:
            # A tolerance above 0 and below one frame: a guessed frame is an error, not a picture.
            self._reader = decord.VideoReader(
                path, width=width, height=height, num_threads=1, fault_tol=1e-6
            )
        except Exception as error:  # decord raises RuntimeError, AssertionError and its own
            raise decode_error(path, error) from None
        if len(self._reader) != info.frames:  # edit lists, truncated files
            raise DecodeError(
                f"cannot read {path}: decord counts {len(self._reader)} frames, "
                f"the file holds {info.frames}"
            )

    def _read(self, wanted: np.ndarray) -> Tensor:
        try:
            frames = torch.from_numpy(self._reader.get_batch(wanted).asnumpy())
        except Exception as error:
            raise decode_error(self.path, error) from None
        if tuple(frames.shape[1:3]) != self.size[::-1]:
            raise DecodeError(
                f"cannot read {self.path}: decord gives {tuple(frames.shape[1:3])} pixels "
                f"(height, width), expected {self.size[::-1]}"
            )
        return frames

    def close(self) -> None:
        self._reader = None


class TorchcodecReader(VideoReader):
    """Reads with torchcodec (optional, needs FFmpeg's libraries on the system)."""

    def __init__(
        self,
        path: str,
        info: VideoInfo,
        times: np.ndarray,
        short_side: int | None = None,
        roughly: bool = False,
    ):
        super().__init__(path, info, times, short_side, roughly)
        decoders = _import_backend("torchcodec.decoders")
        if info.container not in _INDEXED:  # AVI, MPEG program streams
            raise DecodeError(f"cannot read {path}: torchcodec seeks inexactly in {info.container}")
        try:
            self._decoder = decoders.VideoDecoder(
                path, dimension_order="NCHW", num_ffmpeg_threads=1, seek_mode="exact"
            )
        except (RuntimeError, ValueError, OSError) as error:
            if "libtorchcodec" in str(error):
                raise ConfigError(
                    "the video backend torchcodec cannot be used: it finds no FFmpeg libraries "
                    "(on Debian: apt install ffmpeg), or does not fit the version of torch"
                ) from None
            raise decode_error(path, error) from None
        if len(self._decoder) != info.frames:
            raise DecodeError(
                f"cannot read {path}: torchcodec counts {len(self._decoder)} frames, "
                f"the file holds {info.frames}"
            )

    def _read(self, wanted: np.ndarray) -> Tensor:
        from torchvision.transforms.v2 import functional as F

        try:
            frames = self._decoder.get_frames_at(indices=wanted.tolist()).data  # (T, 3, H, W)
        except (RuntimeError, ValueError, IndexError) as error:
            raise decode_error(self.path, error) from None
        if tuple(frames.shape[2:]) != self.size[::-1]:
            frames = F.resize(frames, self.size[::-1], antialias=True)
        return frames.permute(0, 2, 3, 1)

    def close(self) -> None:
        self._decoder = None


class FallbackReader(VideoReader):
    """Reads with another backend until that refuses the file, then with PyAV.

    PyAV opens the file first, unless the manifest knows it: the other backend has to agree.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[str, VideoInfo, np.ndarray, int | None, bool], VideoReader],
        path: str,
        short_side: int | None = None,
        roughly: bool = False,
        known: VideoInfo | None = None,
    ):
        self._name = name
        self._open_reference = functools.partial(PyAVReader, path, short_side, roughly)
        self._reference: PyAVReader | None = None
        self._fast: VideoReader | None = None
        if known is not None and known.even:
            info, times = known, np.arange(known.frames) / known.fps
        else:
            self._reference = self._open_reference()
            info, times = self._reference.info, self._reference.times
        super().__init__(path, info, times, short_side, roughly)
        try:
            self._fast = make(path, info, times, short_side, roughly)
        except DecodeError as error:
            self._give_up(error)

    def _read(self, wanted: np.ndarray) -> Tensor:
        if self._fast is not None:
            try:
                return self._fast._read(wanted)
            except DecodeError as error:
                self._give_up(error)
        return self._reference._read(wanted)

    def _give_up(self, error: DecodeError) -> None:
        if self._fast is not None:
            self._fast.close()
            self._fast = None
        if self._reference is None:
            self._reference = self._open_reference()
            if self._reference.info.frames != self.info.frames:
                raise DecodeError(
                    f"cannot read {self.path}: it holds {self._reference.info.frames} frames, the "
                    f"manifest says {self.info.frames}; run tools/data.py verify again"
                )
        _log_fallback(self._name, self.info.codec)
        logger.debug("%s; read with pyav instead", error)

    def close(self) -> None:
        for reader in (self._fast, self._reference):
            if reader is not None:
                reader.close()
        self._fast = None


def _decord_weakness(info: VideoInfo) -> str:
    """What of a file makes decord 0.6.0 give other or broken frames after a seek, else nothing."""
    if info.container not in _INDEXED:  # AVI, MPEG program streams
        return info.container
    if "420" not in info.pixels:  # x264's 4:4:4
        return info.pixels
    return "files with open GOPs" if info.open_gop else ""


def _import_backend(module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except (ImportError, OSError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"the video backend {module} cannot be used: {reason}") from None


@functools.cache
def _log_fallback(backend: str, codec: str) -> None:
    """Said once per process, backend and codec, not once per file."""
    logger.info("%s cannot read some %s videos of this run; pyav reads them", backend, codec)
