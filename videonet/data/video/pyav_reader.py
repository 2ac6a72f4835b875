"""Reading with PyAV (libav): from the key frame on, and of each clip no more than it needs."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator

import av
import numpy as np
from torch import Tensor

from videonet.data.loading.buffer_pool import BufferPool
from videonet.data.video.access import (
    READ_ERRORS,
    decode_error,
    demux,
    is_key,
    open_container,
    seconds_per_tick,
)
from videonet.data.video.colours import RGBConverter, describe_colours
from videonet.data.video.content import Source, size_of
from videonet.data.video.cropping import Crop, find_crop
from videonet.data.video.info import (
    NO_STAMP,
    FrameTable,
    VideoInfo,
    frame_rate,
    pack_table,
    unpack_table,
)
from videonet.data.video.orientation import (
    Orientation,
    orientation_of,
    pixel_aspect,
    shown_size,
)
from videonet.data.video.packets import count_frames, header_rate, table_from_packets
from videonet.data.video.reader import VideoReader
from videonet.errors import DecodeError

_BUFFERS = BufferPool()
# Pictures of these codecs may be two fields, each in a packet of its own.
_FIELDS = ("h264", "hevc", "mpeg1video", "mpeg2video")


class UnexpectedFrames(DecodeError):
    """The decoder shows other frames than those that are known of the file."""


class _Unexpected(Exception):
    """The decoder shows another frame than the one that was sought."""


class PyAVReader(VideoReader):
    """Reads any file that FFmpeg reads.

    Groups of pictures that hold no wanted frame are sought over. Frames between the wanted ones
    that no other frame refers to are not decoded; the wanted frames do not change by that. Where
    time stamps do not tell the frames apart, they are counted from the start.

    ``known``: what a manifest says of the file; its first frame is not decoded then. ``count``: do
    not trust the packets, but decode all of the file to find its frames.
    """

    def __init__(
        self,
        path: Source,
        short_side: int | None = None,
        allow_larger: bool = False,
        known: VideoInfo | None = None,
        *,
        count: bool = False,
    ):
        self._path = path
        self._convert = RGBConverter()
        self._container, self._stream = open_container(path)
        self.crop = self._find_crop()  # what the container shows of each picture; None: all
        self._decoded: Iterator[av.VideoFrame] = iter(())
        self._frame: av.VideoFrame | None = None  # the frame last decoded
        self._index = -1  # its index
        self._key = 0  # the key frame that decoding started at
        self._needed: frozenset[int] | None = None  # time stamps to decode; None: all
        self._last = 0  # the last of them
        self._checked = known is None  # what the manifest says is what a frame says
        try:
            self._table = count_frames(path)[0] if count else self._find_table(known)
            info = self._confirmed(known) or self._describe()
        except DecodeError:
            self.close()
            raise
        super().__init__(str(path), info, self._table.times, short_side, allow_larger)

    @property
    def source(self) -> Source:
        """What is read."""
        return self._path

    @property
    def streams(self) -> int:
        """Video streams of the file, covers and thumbnails included."""
        return len(self._container.streams.video)

    @property
    def stream_index(self) -> int:
        """Number of the stream that is read, among all streams of the file."""
        return self._stream.index

    @property
    def aspect(self) -> float:
        """Width of a pixel over its height."""
        return pixel_aspect(self._stream)

    @property
    def all_streams(self) -> tuple[av.stream.Stream, ...]:
        """The streams of the file, of every kind."""
        return tuple(self._container.streams)

    @property
    def header_rate(self) -> float:
        """Frames per second that the header claims; 0 where it does not."""
        return float(self._stream.average_rate or self._stream.guessed_rate or 0)

    @property
    def colours(self) -> str:
        """Matrix, range and transfer curve as the stream is marked."""
        return describe_colours(self._stream.codec_context)

    @property
    def speakers(self) -> tuple[str, ...]:
        """Under which names FFmpeg logs what it finds in this file."""
        context = self._stream.codec_context
        return context.name, context.codec.canonical_name, self._container.format.name

    @property
    def table(self) -> FrameTable:
        """The frames of the file."""
        return self._table

    def close(self) -> None:
        self._frame = None
        self._decoded = iter(())
        self._container.close()

    def _find_crop(self) -> Crop | None:
        context, kind = self._stream.codec_context, self._container.format.name
        number = self._stream.index if kind == "matroska,webm" else self._stream.id
        return find_crop(self._path, kind, number, context.width, context.height)

    def _shown_size(self, width: int, height: int, turn: Orientation) -> tuple[int, int]:
        if self.crop is not None:
            width, height = self.crop.width, self.crop.height
        return shown_size(width, height, pixel_aspect(self._stream), turn)

    def _find_table(self, known: VideoInfo | None) -> FrameTable:
        """The frames of the file, from the manifest, its packets, or by decoding."""
        if known is not None and known.counted:
            tick = seconds_per_tick(self._path, self._stream)
            rate = header_rate(self._stream)
            try:
                return unpack_table(known.counted, tick, rate, size_of(self._path))
            except DecodeError as error:
                raise DecodeError(f"cannot read {self._path}: {error}") from None
        table = table_from_packets(self._path, self._container, self._stream)
        return table or count_frames(self._path)[0]

    def _confirmed(self, known: VideoInfo | None) -> VideoInfo | None:
        """What the manifest says, where the header of the file agrees."""
        if known is None:
            return None
        context, table = self._stream.codec_context, self._table
        turn = Orientation(known.rotation, known.mirrored)
        size = self._shown_size(context.width, context.height, turn)
        same = (known.frames, known.width, known.height) == (len(table.pts), *size)
        same = same and known.container == self._container.format.name
        same = same and known.codec == context.codec.canonical_name
        fps = frame_rate(header_rate(self._stream), table.times)
        if not same or abs(known.fps / fps - 1) > 1e-6 or known.even != table.even:
            return None
        return known

    def _describe(self) -> VideoInfo:
        """What the file contains, from its first frame on."""
        self._checked = True
        codec = self._stream.codec_context.codec.canonical_name
        try:
            self._start_at(0)
        except _Unexpected:
            if self._table.counted:
                raise self._other_frames() from None
            self._count()  # the decoder does not show what the packets announce
        if not self._table.counted and (
            self._frame is None
            or self._index > 0
            or (self._frame.interlaced_frame and codec in _FIELDS)
        ):
            self._count()
        frame = self._frame
        if frame is None:
            raise DecodeError(f"cannot read {self._path}: its first frame is damaged")
        table = self._table
        turn = orientation_of(frame)
        width, height = self._shown_size(frame.width, frame.height, turn)
        fps = frame_rate(header_rate(self._stream), table.times)
        return VideoInfo(
            frames=len(table.pts),
            fps=fps,
            width=width,
            height=height,
            rotation=turn.rotation,
            duration=float(table.times[-1]) + 1 / fps,
            codec=codec,
            pixels=frame.format.name,
            container=self._container.format.name,
            open_gop=table.open_gop,
            even=table.even,
            mirrored=turn.mirrored,
            counted=pack_table(table) if table.counted else "",
        )

    def _count(self) -> None:
        """Take what the decoder shows for the frames of the file, and stand on the first."""
        self._table = count_frames(self._path)[0]
        try:
            self._start_at(0)
        except _Unexpected:
            raise self._other_frames() from None

    def _read(self, wanted: np.ndarray) -> Tensor:
        width, height = self.size
        frames = _BUFFERS.empty((len(wanted), height, width, 3))
        out = frames.numpy()
        place = {index: k for k, index in enumerate(wanted.tolist())}
        for group in self._groups(wanted):
            self._go_to(group)
            for frame in self._walk(int(group[-1])):
                if self._index in place:
                    out[place.pop(self._index)] = self._picture(frame)
        if place:
            raise self._missing(min(place))
        return frames

    def forwards(self, first: int = 0) -> Iterator[tuple[float, Callable[[], np.ndarray]]]:
        """Every frame from ``first`` on, decoded once.

        Yields:
            Its time in seconds, and a function that gives its picture ``(H, W, 3)``, so that frames
            nobody looks at cost no conversion.

        Raises:
            DecodeError: the file is damaged or ends early.
        """
        self._go_to(np.array([first]))
        expected = first
        for frame in self._walk(self.info.frames - 1):
            if self._index < first:
                continue
            if self._index != expected:
                break
            expected += 1
            yield float(self.times[self._index]), functools.partial(self._picture, frame)
        if expected < self.info.frames:
            raise self._missing(expected)

    def _missing(self, index: int) -> DecodeError:
        return UnexpectedFrames(
            f"cannot read {self._path}: frame {index} of {len(self._table.pts)} is missing"
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
            try:
                self._start_at(key, first)
            except _Unexpected:
                raise self._other_frames() from None

    def _start_at(self, key: int, first: int = 0) -> None:
        """Decode a frame at or before ``first``, from key frame ``key`` where it can be sought.

        Raises _Unexpected where the first frame of the file is not one of the table.
        """
        self._key = key
        # What is before the first frame that decoding found is damage: it has to be met.
        if self._table.stamped and (key or not self._table.counted):
            with contextlib.suppress(
                av.FFmpegError, DecodeError, _Unexpected
            ):  # the next way follows
                self._container.seek(int(self._table.pts[key]), stream=self._stream, backward=True)
                self._index = -1
                self._decoded = self._frames()
                if self._step() and self._index <= first:
                    return
        self._container.close()  # opening again is the one way back that every format allows
        self._container, self._stream = open_container(self._path)
        self._key, self._index = 0, -1
        self._decoded = self._frames()
        self._step()

    def _other_frames(self) -> DecodeError:
        return UnexpectedFrames(
            f"cannot read {self._path}: its decoder shows other frames than "
            + ("the manifest says" if self._table.counted else "its packets announce")
            + "; run tools/data.py verify"
        )

    def _walk(self, last: int) -> Iterator[av.VideoFrame]:
        """The decoded frames from the present one to number ``last``; ``_index`` counts along.

        Raises DecodeError for a damaged frame, wanted or not: others are decoded from it.
        """
        while self._frame is not None:
            if self._frame.is_corrupt and self._index >= self._key:
                raise DecodeError(f"cannot read {self._path}: frame {self._index} is damaged")
            yield self._frame
            try:
                if self._index >= last or not self._step():
                    return
            except _Unexpected:
                raise self._other_frames() from None

    def _step(self) -> bool:
        """Decode the next frame; False at the end of the file.

        Raises _Unexpected for a frame that is not the next of the table, or not in it.
        """
        try:
            self._frame = next(self._decoded, None)
        except READ_ERRORS as error:
            self._frame = None
            raise decode_error(self._path, error) from None
        if self._frame is None:
            return False
        table, stamp = self._table, self._frame.pts
        if table.stamped:
            index = int(np.searchsorted(table.pts, stamp)) if stamp is not None else len(table.pts)
        else:
            index = self._index + 1
            stamp = NO_STAMP if stamp is None else stamp
        if not self._index < index < len(table.pts) or table.pts[index] != stamp:
            self._frame = None
            raise _Unexpected
        self._index = index
        return True

    def _frames(self) -> Iterator[av.VideoFrame]:
        decoder, has_key, begun, shown = self._stream.codec_context, False, False, False
        for packet in demux(self._container, self._stream):
            has_key = has_key or is_key(self._stream, packet)
            decoder.skip_frame = "NONREF" if self._is_needless(packet) else "DEFAULT"
            try:
                frames = packet.decode()
            except av.FFmpegError:
                # Nothing can be decoded before a key frame, nor what leads the one sought. Others
                # that are not shown (before the start of an edit list) are referred to.
                if shown or (has_key and not (begun and self._leads(packet))):
                    raise
                continue
            begun = begun or packet.pts is None or not self._leads(packet)
            for frame in frames:
                shown = True
                yield frame

    def _leads(self, packet: av.Packet) -> bool:
        """Whether a packet comes before the frame that decoding started at: it shows nothing."""
        table = self._table
        if packet.pts is None:
            return table.counted
        return table.pts[self._key] != NO_STAMP and packet.pts < table.pts[self._key]

    def _is_needless(self, packet: av.Packet) -> bool:
        """Whether the frame of a packet is not wanted, now or by who reads on from the last one."""
        if self._needed is None or packet.pts is None:
            return False
        return packet.pts < self._last and packet.pts not in self._needed

    def _picture(self, frame: av.VideoFrame) -> np.ndarray:
        """Upright RGB ``(H, W, 3)`` of one frame at the size asked for."""
        turn = Orientation(self.info.rotation, self.info.mirrored)
        if not self._checked:
            self._check(frame, turn)
        width, height = self.size if turn.rotation % 180 == 0 else self.size[::-1]
        try:
            if self.crop is not None:
                return turn.upright(self._convert.cropped(frame, self.crop, width, height))
            return turn.upright(self._convert(frame, width, height))
        except READ_ERRORS as error:  # a picture in a format that cannot be converted
            raise decode_error(self._path, error) from None

    def _check(self, frame: av.VideoFrame, turn: Orientation) -> None:
        """Raise DecodeError where a frame is not as the manifest says."""
        if orientation_of(frame) != turn or frame.format.name != self.info.pixels:
            raise DecodeError(
                f"cannot read {self._path}: its pictures are not as the manifest says; "
                "run tools/data.py verify"
            )
        self._checked = True
