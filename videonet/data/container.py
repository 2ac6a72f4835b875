"""What a video file holds, read with PyAV without decoding more than its first frame."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from videonet.errors import DecodeError


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a video before its frames are read.

    ``width`` and ``height`` are those of the upright picture before any resizing; ``rotation`` is
    the counter-clockwise turn in degrees (0, 90, 180, 270) that made it upright; ``frames`` counts
    the frames that are really in the file; ``duration`` is in seconds; ``codec``, ``pixels`` and
    ``container`` are FFmpeg's names; ``open_gop`` says that some frames are shown before the key
    frame that they follow in the file, ``even`` that the frames are evenly spaced in time.
    """

    frames: int
    fps: float
    width: int
    height: int
    rotation: int
    duration: float
    codec: str
    pixels: str
    container: str
    open_gop: bool
    even: bool = True


@dataclass(frozen=True)
class FrameTable:
    """The frames of a file in the order in which they are shown."""

    pts: np.ndarray  # (frames,) time stamps in units of the stream's time base
    times: np.ndarray  # (frames,) seconds from the first frame
    keys: np.ndarray  # indices of the key frames, the first is 0
    stamped: bool  # a decoded frame can be found again by its time stamp
    open_gop: bool  # a frame is shown before the key frame that it follows in the file

    @property
    def even(self) -> bool:
        """Whether every frame is within a quarter of a frame of an even clock."""
        last = len(self.times) - 1
        clock = np.linspace(0, self.times[-1], last + 1)
        return bool(np.abs(self.times - clock).max() <= 0.25 * self.times[-1] / max(last, 1))


# Damaged headers claim pictures that no memory holds; 8K video has 2**25 pixels.
MOST_PIXELS = 2**27
# Titles and comments are not always UTF-8: av 19 reads them all, older ones when told to.
_METADATA = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}


def open_container(path: str) -> tuple[av.container.InputContainer, av.VideoStream]:
    if not Path(path).is_file():
        raise DecodeError(f"cannot read {path}: there is no such file")
    try:
        container = av.open(path, **_METADATA)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise decode_error(path, error) from None
    if not container.streams.video:
        container.close()
        raise DecodeError(f"cannot read {path}: it holds no video stream")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        container.close()
        raise DecodeError(f"cannot read {path}: its video has no codec that FFmpeg decodes")
    stream.thread_type = "NONE"  # the workers are the parallelism
    if stream.codec_context.width * stream.codec_context.height > MOST_PIXELS:
        width, height = stream.codec_context.width, stream.codec_context.height
        container.close()
        raise DecodeError(f"cannot read {path}: it claims pictures of {width} x {height} pixels")
    return container, stream


def frame_table(
    path: str, container: av.container.InputContainer, stream: av.VideoStream
) -> FrameTable:
    """The frames of an open container, which is read to its end without decoding."""
    try:
        packets = [
            (packet.pts, packet.is_keyframe)
            for packet in container.demux(stream)
            if packet.size and not packet.is_discard and not packet.is_corrupt
        ]
    except av.FFmpegError as error:
        raise decode_error(path, error) from None
    if not packets:
        raise DecodeError(f"cannot read {path}: it holds no video frame")
    rate = stream.average_rate or stream.guessed_rate or 25
    stamps = {pts for pts, _ in packets}
    # AVI has no time stamps for showing: those of its packets are in decoding order.
    stamped = container.format.name != "avi" and None not in stamps
    stamped = stamped and len(stamps) == len(packets)
    if not stamped:
        order = np.arange(len(packets))
        return FrameTable(order, order / float(rate), order[:1], False, False)
    open_gop = _has_open_gop(packets)
    packets.sort()
    pts = np.array([pts for pts, _ in packets], dtype=np.int64)
    keys = np.flatnonzero([is_key for _, is_key in packets])
    times = (pts - pts[:1]) * float(stream.time_base)
    return FrameTable(pts, times, np.union1d(keys, [0]), True, open_gop)


def _has_open_gop(packets: list[tuple[int, bool]]) -> bool:
    """Whether, in the order of the file, a key frame is followed by an earlier time stamp."""
    newest_key = packets[0][0] if packets else 0
    for pts, is_key in packets:
        if pts < newest_key:
            return True
        if is_key:
            newest_key = pts
    return False


def describe(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    frame: av.VideoFrame,
    table: FrameTable,
) -> VideoInfo:
    frames = len(table.pts)
    span = float(table.times[-1])
    fps = float(stream.average_rate or stream.guessed_rate or 0)
    fps = fps or ((frames - 1) / span if span else 25.0)
    # Damaged display matrices give angles like -2**31.
    rotation = round(frame.rotation / 90) * 90 % 360 if abs(frame.rotation) <= 360 else 0
    width, height = frame.width, frame.height
    if rotation % 180:
        width, height = height, width
    codec = stream.codec_context.codec.canonical_name
    duration = span + 1 / fps
    return VideoInfo(
        frames,
        fps,
        width,
        height,
        rotation,
        duration,
        codec,
        frame.format.name,
        container.format.name,
        table.open_gop,
        table.even,
    )


def decode_error(path: str, error: BaseException) -> DecodeError:
    """One sentence from a backend's error, without its source lines and stack traces."""
    text = getattr(error, "strerror", None) or str(error)  # PyAV's errors carry one
    text = re.sub(r"\[\d\d:\d\d:\d\d\] \S+:\d+: ?", "", text).strip()
    reason = text.splitlines()[0].strip(" .") if text else type(error).__name__
    return DecodeError(f"cannot read {path}: {reason}")
