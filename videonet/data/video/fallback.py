"""Another backend than PyAV where it agrees with PyAV about the file, and PyAV where not."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable

import numpy as np
from torch import Tensor

from videonet.data.video.content import Source
from videonet.data.video.info import VideoInfo
from videonet.data.video.pyav_reader import PyAVReader
from videonet.data.video.reader import VideoReader
from videonet.errors import DecodeError

logger = logging.getLogger(__name__)


class FallbackReader(VideoReader):
    """Reads with another backend until that refuses the file, then with PyAV.

    PyAV always opens the file: what it contains is found once, and the guards against what is no
    plain video file are its.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[PyAVReader, int | None, bool], VideoReader],
        path: Source,
        short_side: int | None = None,
        allow_larger: bool = False,
        known: VideoInfo | None = None,
    ):
        self._name = name
        self._reference = PyAVReader(path, short_side, allow_larger, known)
        self._fast: VideoReader | None = None
        super().__init__(
            str(path), self._reference.info, self._reference.times, short_side, allow_larger
        )
        try:
            self._fast = make(self._reference, short_side, allow_larger)
        except DecodeError as error:
            self._give_up(error)
        except BaseException:
            self._reference.close()
            raise

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
        _log_fallback(self._name, self.info.codec)
        logger.debug("%s; read with pyav instead", error)

    def close(self) -> None:
        for reader in (self._fast, self._reference):
            if reader is not None:
                reader.close()
        self._fast = None


@functools.cache
def _log_fallback(backend: str, codec: str) -> None:
    """Said once per process, backend and codec, not once per file."""
    logger.info("%s cannot read some %s videos of this run; pyav reads them", backend, codec)
