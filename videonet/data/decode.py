"""One seam for reading videos: open, ``frames_at(indices)``, close, whatever decodes.

PyAV opens every file first: it is the only backend that reports codec, rotation and the time of
every frame, and what it finds is the measure that another backend has to agree with before it is
trusted with the file.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType

import av
import numpy as np
import torch
from av.video.reformatter import VideoReformatter
from torch import Tensor

from videonet.data.container import (
    VideoInfo,
    decode_error,
    describe,
    frame_table,
    open_container,
)
from videonet.errors import ConfigError, DecodeError

logger = logging.getLogger(__name__)

BACKENDS = ("auto", "decord", "pyav", "torchcodec")
_DECORD_CONTAINERS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")


class VideoReader(ABC):
    """An open video. Use it as a context manager; it belongs to the process that opened it."""

    def __init__(self, path: str, info: VideoInfo, times: np.ndarray, short_side: int | None):
        self.path = path
        self.info = info
        self.times = times  # (frames,) seconds from the first frame
        self.size = scaled_size(info.width, info.height, short_side)  # upright (width, height)

    def frames_at(self, indices: Sequence[int] | np.ndarray | Tensor) -> Tensor:
        """Return the frames at these indices, in this order, repeats allowed.

        Returns uint8 ``(T, H, W, 3)``, upright RGB. Each distinct frame is decoded once.
        Raises DecodeError where the file is damaged, IndexError outside ``0 … frames - 1``.
        """
        indices = np.asarray(indices, dtype=np.int64)
        wanted, place = np.unique(indices, return_inverse=True)
        if not len(wanted) or wanted[0] < 0 or wanted[-1] >= self.info.frames:
            raise IndexError(f"{self.path}: frames {indices.tolist()} of {self.info.frames}")
        frames = self._read(wanted)  # (distinct, H, W, 3)
        if len(wanted) == len(indices) and (place[1:] > place[:-1]).all():
            return frames
        return frames[torch.from_numpy(place)]

    @abstractmethod
    def _read(self, wanted: np.ndarray) -> Tensor:
        """Decode the frames at rising, distinct, valid indices."""

    @abstractmethod
    def close(self) -> None:
        """Give back the file and the decoder's memory."""

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_video(
    path: str | os.PathLike[str], backend: str = "auto", short_side: int | None = None
) -> VideoReader:
    """Open a video for reading frames by index.

    ``backend``: one of :data:`BACKENDS`; ``auto`` takes decord where it is installed and agrees
    with the container about the file, PyAV where it does not or cannot go on. ``short_side``:
    frames come with exactly this short side (in pixels, smaller videos are enlarged) and the long
    side in proportion, rounded down; None keeps the size.

    Raises DecodeError, naming the path and the reason, for a file that holds no readable video.
    """
    if backend not in BACKENDS:
        raise ConfigError(f"unknown video backend {backend!r}; known are {', '.join(BACKENDS)}")
    path = os.fspath(path)
    reference = PyAVReader(path, short_side)
    if backend == "pyav" or (backend == "auto" and not _is_installed("decord")):
        return reference
    if backend == "auto":
        return AutoReader(reference, short_side)
    reference.close()
    make = TorchcodecReader if backend == "torchcodec" else DecordReader
    return make(path, reference.info, reference.times, short_side)


def scaled_size(width: int, height: int, short_side: int | None) -> tuple[int, int]:
    """The (width, height) with this short side and the same shape, the long side rounded down."""
    if short_side is None:
        return width, height
    if width <= height:
        return short_side, height * short_side // width
    return width * short_side // height, short_side


class PyAVReader(VideoReader):
    """Reads with PyAV (libav), in order, from the key frame before the first wanted frame."""

    def __init__(self, path: str, short_side: int | None = None):
        self._path = path
        self._scaler = VideoReformatter()
        self._open()
        try:
            self._table = frame_table(path)
            self._frame = self._next_frame()
            if self._frame is None or not len(self._table.pts):
                raise DecodeError(f"cannot read {path}: it holds no video frame")
            info = describe(self._container, self._stream, self._frame, self._table)
        except DecodeError:
            self.close()
            raise
        self._index = self._index_of(self._frame, -1)
        super().__init__(path, info, self._table.times, short_side)

    def _open(self) -> None:
        self._container, self._stream = open_container(self._path)
        self._decoded = self._container.decode(self._stream)

    def close(self) -> None:
        self._frame = None
        self._decoded = iter(())
        self._container.close()

    def _next_frame(self) -> av.VideoFrame | None:
        try:
            return next(self._decoded, None)
        except av.FFmpegError as error:
            raise decode_error(self._path, error) from None

    def _index_of(self, frame: av.VideoFrame, previous: int) -> int:
        """The index of a decoded frame: by its time stamp where stamps can be trusted."""
        if not self._table.stamped or frame.pts is None:
            return previous + 1
        return int(np.searchsorted(self._table.pts, frame.pts))

    def _read(self, wanted: np.ndarray) -> Tensor:
        self._go_to(int(wanted[0]))
        width, height = self.size
        out = np.empty((len(wanted), height, width, 3), dtype=np.uint8)
        missing = set(wanted.tolist())
        for index, frame in self._walk(int(wanted[-1])):
            if index in missing:
                missing.remove(index)
                out[np.searchsorted(wanted, index)] = self._picture(frame)
        if missing:
            raise DecodeError(
                f"cannot read {self.path}: frame {min(missing)} of {self.info.frames} is missing"
            )
        return torch.from_numpy(out)

    def forwards(self, first: int = 0) -> Iterator[tuple[float, Callable[[], np.ndarray]]]:
        """Every frame from ``first`` on, decoded once: its time in seconds, and a function that
        gives its picture ``(H, W, 3)``, so that frames nobody looks at cost no conversion.

        Raises DecodeError where the file is damaged or ends early.
        """
        self._go_to(first)
        index = first - 1
        for index, frame in self._walk(self.info.frames - 1):
            if index >= first:
                yield float(self.times[index]), functools.partial(self._picture, frame)
        if index + 1 < self.info.frames:
            raise DecodeError(
                f"cannot read {self.path}: frame {index + 1} of {self.info.frames} is missing"
            )

    def _go_to(self, first: int) -> None:
        """Stand on a frame from which ``first`` is reached by decoding onwards."""
        table = self._table
        key = int(table.keys[np.searchsorted(table.keys, first, side="right") - 1])
        if self._frame is not None and key <= self._index <= first:
            return
        if table.stamped and key > 0:
            self._container.seek(int(table.pts[key]), stream=self._stream, backward=True)
            self._decoded = self._container.decode(self._stream)
            self._frame = self._next_frame()
            if self._frame is not None:
                self._index = self._index_of(self._frame, -1)
                if self._index <= first:
                    return
        self._container.close()  # opening again is the one way back that every format allows
        self._open()
        self._frame = self._next_frame()
        self._index = 0

    def _walk(self, last: int) -> Iterator[tuple[int, av.VideoFrame]]:
        while self._frame is not None:
            yield self._index, self._frame
            if self._index >= last:
                return
            self._frame = self._next_frame()
            if self._frame is not None:
                self._index = self._index_of(self._frame, self._index)

    def _picture(self, frame: av.VideoFrame) -> np.ndarray:
        """Upright RGB ``(H, W, 3)`` of one frame at the size asked for."""
        if frame.is_corrupt:
            raise DecodeError(f"cannot read {self.path}: frame {self._index} is damaged")
        width, height = self.size if self.info.rotation % 180 == 0 else self.size[::-1]
        scaled = self._scaler.reformat(
            frame, width=width, height=height, format="rgb24", interpolation="BILINEAR"
        )
        return np.rot90(scaled.to_ndarray(), self.info.rotation // 90)


class DecordReader(VideoReader):
    """Reads with decord, one thread, resizing in its filter graph."""

    def __init__(self, path: str, info: VideoInfo, times: np.ndarray, short_side: int | None):
        super().__init__(path, info, times, short_side)
        weakness = _decord_weakness(info)
        if weakness:
            raise DecodeError(f"cannot read {path}: decord seeks inexactly in {weakness}")
        decord = _import_backend("decord")
        decord.logging.set_level(decord.logging.QUIET)  # FFmpeg's own lines; errors are raised
        width, height = self.size if short_side else (-1, -1)
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

    def __init__(self, path: str, info: VideoInfo, times: np.ndarray, short_side: int | None):
        super().__init__(path, info, times, short_side)
        decoders = _import_backend("torchcodec.decoders")
        try:
            self._decoder = decoders.VideoDecoder(
                path, dimension_order="NCHW", num_ffmpeg_threads=1, seek_mode="exact"
            )
        except (RuntimeError, ValueError, OSError) as error:
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


class AutoReader(VideoReader):
    """Reads with decord until decord refuses the file, then with the PyAV reader it was given."""

    def __init__(self, reference: PyAVReader, short_side: int | None):
        super().__init__(reference.path, reference.info, reference.times, short_side)
        self._reference, self._decord = reference, None
        try:
            self._decord = DecordReader(self.path, self.info, self.times, short_side)
        except DecodeError as error:
            self._note(error)

    def _read(self, wanted: np.ndarray) -> Tensor:
        if self._decord is not None:
            try:
                return self._decord._read(wanted)
            except DecodeError as error:
                self._decord = None
                self._note(error)
        return self._reference._read(wanted)

    def _note(self, error: DecodeError) -> None:
        _log_fallback(self.info.codec)
        logger.debug("%s; read with pyav instead", error)

    def close(self) -> None:
        self._decord = None
        self._reference.close()


def _decord_weakness(info: VideoInfo) -> str:
    """What of a file makes decord 0.6.0 give other or broken frames after a seek, else nothing."""
    if info.container not in _DECORD_CONTAINERS:  # AVI, MPEG program streams
        return info.container
    if "420" not in info.pixels:  # x264's 4:4:4
        return info.pixels
    return "files with open GOPs" if info.open_gop else ""


@functools.cache
def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _import_backend(module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except (ImportError, OSError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"the video backend {module} cannot be used: {reason}") from None


@functools.cache
def _log_fallback(codec: str) -> None:
    """Said once per process and codec, not once per file."""
    logger.info("decord cannot read some %s videos of this run; pyav reads them", codec)
