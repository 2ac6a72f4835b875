"""Reading with decord, for the files that it is known to read exactly."""

from __future__ import annotations

import importlib
import os
from types import ModuleType
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from videonet.data.video.access import INDEXED, decode_error
from videonet.data.video.content import Source
from videonet.data.video.pyav_reader import PyAVReader
from videonet.data.video.reader import VideoReader
from videonet.errors import ConfigError, DecodeError


class DecordReader(VideoReader):
    """Reads with decord, one thread, resizing in its filter graph.

    ``reference`` says what the file contains. Raises DecodeError where decord says something else.
    """

    def __init__(
        self, reference: PyAVReader, short_side: int | None = None, allow_larger: bool = False
    ):
        path, info = reference.path, reference.info
        super().__init__(path, info, reference.times, short_side, allow_larger)
        decord = import_backend("decord")
        weakness = _weakness(reference)
        if weakness:
            raise DecodeError(f"cannot read {path}: decord does not read {weakness} exactly")
        decord.logging.set_level(decord.logging.QUIET)  # FFmpeg's own lines; errors are raised
        upright = (info.width, info.height)
        width, height = self.size if self.size != upright else (-1, -1)  # -1: its own
        try:
            # A tolerance above 0 and below one frame: a guessed frame is an error, not a picture.
            self._reader = decord.VideoReader(
                plain(reference.source), width=width, height=height, num_threads=1, fault_tol=1e-6
            )
        except Exception as error:  # decord raises RuntimeError, AssertionError and its own
            raise decode_error(path, error) from None
        if len(self._reader) != info.frames:  # edit lists, truncated files
            raise DecodeError(
                f"cannot read {path}: decord counts {len(self._reader)} frames, "
                f"the file holds {info.frames}"
            )
        starts = self._reader.get_frame_timestamp(range(info.frames))[:, 0]
        check_times(path, "decord", starts - starts[0], self.times)

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


def plain(source: Source) -> str | BinaryIO:
    """What another decoder opens: an absolute path, never taken for a protocol, or a file."""
    return os.path.abspath(source) if isinstance(source, str) else source.open()


def _weakness(reference: PyAVReader) -> str:
    """What of a file makes decord 0.6.0 give other or broken frames, else nothing."""
    info = reference.info
    if info.container not in INDEXED:  # AVI, MPEG program streams
        return info.container
    if "420" not in info.pixels:  # x264's 4:4:4
        return info.pixels
    weaknesses = {
        "files with open GOPs": info.open_gop,
        "mirrored pictures": info.mirrored,
        "cropped pictures": reference.crop is not None,
        "pixels that are not square": reference.aspect != 1,
        "files with several video streams": reference.streams > 1,
        "files whose packets do not tell their frames": bool(info.counted),
    }
    return next((name for name, is_so in weaknesses.items() if is_so), "")


def check_times(path: str, backend: str, found: np.ndarray, expected: np.ndarray) -> None:
    """Raise DecodeError where a backend shows frames at other times, seconds from the first."""
    least = float(np.diff(expected).min()) if len(expected) > 1 else 1.0
    apart = np.abs(np.asarray(found) - expected) > min(least / 2, 0.01)
    if apart.any():
        k = int(np.argmax(apart))
        raise DecodeError(
            f"cannot read {path}: {backend} shows a frame at {found[k]:.3f} s that is at "
            f"{expected[k]:.3f} s"
        )


def import_backend(module: str) -> ModuleType:
    """A module of another decoder. Raises ConfigError where it cannot be used here."""
    try:
        return importlib.import_module(module)
    except (ImportError, OSError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"the video backend {module} cannot be used: {reason}") from None
