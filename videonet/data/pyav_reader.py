"""Reading with PyAV (libav): from the key frame on, and of each clip no more than it needs."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from torch import Tensor

from videonet.data.container import (
    VideoInfo,
    decode_error,
    describe,
    frame_table,
    open_container,
)
from videonet.data.memory import RecycledMemory
from videonet.data.reader import VideoReader
from videonet.errors import DecodeError

_INDEXED = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")  # containers that seek by an index
_MEMORY = RecycledMemory()


class PyAVReader(VideoReader):
    """Reads any file that FFmpeg reads.

    Groups of pictures that hold no wanted frame are sought over. Frames between the wanted ones
    that no other frame refers to are not decoded; the wanted frames do not change by that.

    ``known``: what a manifest says of the file; its first frame is not decoded then.
    """

    def __init__(
        self,
        path: str,
        short_side: int | None = None,
        roughly: bool = False,
        known: VideoInfo | None = None,
    ):
        self._path = path
        self._scaler = VideoReformatter()
        self._container, self._stream = open_container(path)
        self._decoded: Iterator[av.VideoFrame] = iter(())
        self._frame, self._index = None, -1  # the frame last decoded, and its index
        self._key = 0  # the key frame that decoding started at
        self._needed: frozenset[int] | None = None  # time stamps to decode; None: all
        self._last = 0  # the last of them
        try:
            self._table = frame_table(path, self._container, self._stream)
            if known is None or known.frames != len(self._table.pts):
                known = self._describe()
        except DecodeError:
            self.close()
            raise
        super().__init__(path, known, self._table.times, short_side, roughly)

    def close(self) -> None:
        self._frame = None
        self._decoded = iter(())
        self._container.close()

    def _describe(self) -> VideoInfo:
        self._start_at(0)
        if self._frame is None:
            raise DecodeError(f"cannot read {self._path}: it holds no video frame")
        return describe(self._container, self._stream, self._frame, self._table)

    def _read(self, wanted: np.ndarray) -> Tensor:
        width, height = self.size
        frames = _MEMORY.empty((len(wanted), height, width, 3))
        out = frames.numpy()
        place = {index: k for k, index in enumerate(wanted.tolist())}
        for group in self._groups(wanted):
            self._go_to(group)
            for frame in self._walk(int(group[-1])):
                if self._index in place:
                    out[place.pop(self._index)] = self._picture(frame)
        if place:
            raise DecodeError(
                f"cannot read {self.path}: frame {min(place)} of {self.info.frames} is missing"
            )
        return frames

    def forwards(self, first: int = 0) -> Iterator[tuple[float, Callable[[], np.ndarray]]]:
        """Every frame from ``first`` on, decoded once: its time in seconds, and a function that
        gives its picture ``(H, W, 3)``, so that frames nobody looks at cost no conversion.

        Raises DecodeError where the file is damaged or ends early.
        """
        self._go_to(np.array([first]))
        index = first - 1
        for frame in self._walk(self.info.frames - 1):
            index = self._index
            if index >= first:
                yield float(self.times[index]), functools.partial(self._picture, frame)
        if index + 1 < self.info.frames:
            raise DecodeError(
                f"cannot read {self.path}: frame {index + 1} of {self.info.frames} is missing"
            )

    def _groups(self, wanted: np.ndarray) -> list[np.ndarray]:
        """The wanted frames by the key frame that their decoding starts at."""
        keys = np.searchsorted(self._table.keys, wanted, side="right")
        return np.split(wanted, np.flatnonzero(np.diff(keys)) + 1)

    def _go_to(self, group: np.ndarray) -> None:
        """Stand on a frame from which all of ``group`` is reached by decoding onwards."""
        table, first = self._table, int(group[0])
        key = int(table.keys[np.searchsorted(table.keys, first, side="right") - 1])
        self._needed, self._last = None, int(group[-1])
        if table.stamped:
            self._needed = frozenset(table.pts[group].tolist())
            self._last = int(table.pts[group[-1]])
        self._key = key
        if self._frame is None or not key <= self._index <= first:
            self._start_at(key, first)

    def _start_at(self, key: int, first: int = 0) -> None:
        """Decode a frame at or before ``first``, from key frame ``key`` where seeking finds it."""
        if self._table.stamped and (key > 0 or self._container.format.name in _INDEXED):
            with contextlib.suppress(av.FFmpegError):  # the next way follows
                self._container.seek(int(self._table.pts[key]), stream=self._stream, backward=True)
                self._decoded = self._frames()
                if self._step() and self._index <= first:
                    return
        self._container.close()  # opening again is the one way back that every format allows
        self._container, self._stream = open_container(self._path)
        self._decoded = self._frames()
        self._index = -1
        self._step()

    def _walk(self, last: int) -> Iterator[av.VideoFrame]:
        """The decoded frames from the present one to number ``last``; ``_index`` counts along.

        Raises DecodeError for a damaged frame, wanted or not: others are decoded from it.
        """
        while self._frame is not None:
            if self._frame.is_corrupt and self._index >= self._key:
                raise DecodeError(f"cannot read {self._path}: frame {self._index} is damaged")
            yield self._frame
            if self._index >= last or not self._step():
                return

    def _step(self) -> bool:
        """Decode the next frame; False at the end of the file."""
        try:
            self._frame = next(self._decoded, None)
        except av.FFmpegError as error:
            self._frame = None
            raise decode_error(self._path, error) from None
        if self._frame is None:
            return False
        if self._table.stamped and self._frame.pts is not None:
            self._index = int(np.searchsorted(self._table.pts, self._frame.pts))
        else:
            self._index += 1
        return True

    def _frames(self) -> Iterator[av.VideoFrame]:
        decoder = self._stream.codec_context
        for packet in self._container.demux(self._stream):
            decoder.skip_frame = "NONREF" if self._is_needless(packet) else "DEFAULT"
            yield from packet.decode()

    def _is_needless(self, packet: av.Packet) -> bool:
        """Whether the frame of a packet is not wanted, now or by who reads on from the last one."""
        if self._needed is None or packet.pts is None:
            return False
        return packet.pts < self._last and packet.pts not in self._needed

    def _picture(self, frame: av.VideoFrame) -> np.ndarray:
        """Upright RGB ``(H, W, 3)`` of one frame at the size asked for."""
        width, height = self.size if self.info.rotation % 180 == 0 else self.size[::-1]
        scaled = self._scaler.reformat(
            frame, width, height, format="rgb24", interpolation="BILINEAR", threads=1
        )
        return np.rot90(scaled.to_ndarray(), self.info.rotation // 90)
