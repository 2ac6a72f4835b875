"""Which frames a file shows, told from its packets, or by decoding where they do not tell.

A packet tells what it shows by a few bits at its start, which differ from codec to codec: VP8, VP9
and MPEG-4 have packets that show nothing. Decoding may start at a packet that the container calls
a key frame and that is one for the codec too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

import av
import numpy as np

from videonet.data.video.access import (
    INDEXED,
    READ_ERRORS,
    decode_error,
    demux,
    is_key,
    open_container,
    seconds_per_tick,
)
from videonet.data.video.content import Source
from videonet.data.video.info import (
    HIGHEST_RATE,
    NO_STAMP,
    UNKNOWN_RATE,
    FrameTable,
    times_of,
)
from videonet.errors import DecodeError

# Codecs of which every packet is a picture of its own. What a palette or a header in the first
# packet says (QuickTime's and Microsoft's old codecs) is lost after a seek, so they are not here.
_STILL = frozenset(
    (
        *("cfhd", "dnxhd", "dvvideo", "ffv1", "ffvhuff", "huffyuv", "jpeg2000", "magicyuv"),
        *("mjpeg", "png", "prores", "rawvideo", "utvideo", "v210", "v408", "v410"),
    )
)
_TINY = 12  # bytes; an MPEG-4 packet that only repeats the picture before it has fewer


class Look(NamedTuple):
    """What a packet tells."""

    shown: bool  # it shows a frame
    start: bool  # decoding may start at it


class _Doubt(Exception):
    """Only decoding can tell what a packet shows."""


Looker = Callable[[memoryview, bool], Look]  # a packet, and whether it is called a key frame
_FRAME = Look(shown=True, start=False)


def table_from_packets(
    path: Source, container: av.container.InputContainer, stream: av.VideoStream
) -> FrameTable | None:
    """The frames of an open container, read to its end without decoding; None in doubt.

    In doubt are containers whose time stamps are guessed, codecs that are not known here, stamps
    that are missing, come twice or are those of decoding, a first packet that is no key frame or
    that pictures lead, and what a codec's own look doubts.
    Raises DecodeError for a file without a packet.
    """
    name = container.format.name
    look = _looker(stream, name)
    if look is None:
        return None
    rows: list[tuple[int, bool]] = []  # stamp, start
    first: int | None = None
    coded = True  # every packet carries the time of its decoding
    read = 0
    try:
        for packet in demux(container, stream):
            if not packet.size:
                continue
            read += 1
            pts = packet.pts
            if pts is None or packet.is_corrupt or (first is None and not packet.is_keyframe):
                return None
            first = pts if first is None else first
            coded = coded and pts == packet.dts
            found = look(memoryview(packet), packet.is_keyframe)
            if packet.is_discard or not found.shown:
                continue
            if pts < first:
                return None
            rows.append((pts, found.start and packet.is_keyframe))
    except _Doubt:
        return None
    except READ_ERRORS as error:
        raise decode_error(path, error) from None
    if not rows:
        if read:
            return None
        raise DecodeError(f"cannot read {path}: it holds no video frame")
    # The decoder puts them into another order.
    if coded and len(rows) > 1 and stream.codec_context.has_b_frames:
        return None
    return _table(path, rows, stream, stamped=name in INDEXED)


def _table(
    path: Source, rows: list[tuple[int, bool]], stream: av.VideoStream, *, stamped: bool
) -> FrameTable | None:
    """The table of ``(stamp, start)`` rows in the order of the file; None for equal stamps."""
    open_gop = _has_open_gop(rows)
    if not stamped and open_gop:  # AVI with pictures that are not in their order
        return None
    rows.sort()
    pts = np.array([stamp for stamp, _ in rows], dtype=np.int64)
    if (np.diff(pts) <= 0).any():
        return None
    starts = [k for k, (_, start) in enumerate(rows) if start and stamped]
    keys = np.union1d(starts, [0]).astype(np.int64)
    times = times_of(pts, seconds_per_tick(path, stream), header_rate(stream))
    return FrameTable(pts, times, keys, stamped, open_gop)


def _has_open_gop(rows: list[tuple[int, bool]]) -> bool:
    """Whether, in the order of the file, a key frame is followed by an earlier time stamp."""
    newest_key = rows[0][0]
    for pts, starts in rows:
        if pts < newest_key:
            return True
        if starts:
            newest_key = pts
    return False


def count_frames(path: Source) -> tuple[FrameTable, av.VideoFrame]:
    """The frames that FFmpeg's decoder shows from the start to the end, and the first of them.

    A packet that cannot be decoded shows nothing; who reads it is told. Raises DecodeError where
    nothing is shown.
    """
    container, stream = open_container(path, careful=False)
    look = _looker(stream, container.format.name)
    stamps: list[int] = []
    announced: list[int] = []  # stamps of packets from the first key frame on
    first_key: int | None = None
    starts: set[int] = set()
    newest_key: int | None = None
    first: av.VideoFrame | None = None
    open_gop, failed = False, 0
    with container:
        try:
            for packet in demux(container, stream):
                if packet.is_keyframe and packet.pts is not None and _starts(look, packet):
                    starts.add(packet.pts)
                    newest_key = packet.pts
                elif packet.pts is not None and newest_key is not None:
                    open_gop = open_gop or packet.pts < newest_key
                if packet.pts is not None:
                    if first_key is None and is_key(stream, packet):
                        first_key = packet.pts
                    if first_key is not None and not packet.is_discard:
                        announced.append(packet.pts)
                frames = _shown(packet)
                if frames is None:
                    stamp = packet.pts
                    leads = stamp is not None and newest_key is not None and stamp < newest_key
                    failed += first is not None and not leads
                for frame in frames or ():
                    first = first or frame
                    stamps.append(NO_STAMP if frame.pts is None else frame.pts)
        except READ_ERRORS as error:
            if first is None:
                raise decode_error(path, error) from None
        if first is None:
            raise DecodeError(f"cannot read {path}: it holds no video frame")
        pts = np.array(stamps, dtype=np.int64)
        rising = bool((np.diff(pts) > 0).all()) and NO_STAMP not in stamps
        stamped = rising and container.format.name in INDEXED and look is not None
        sought = [k for k, shown in enumerate(stamps) if stamped and shown in starts]
        keys = np.union1d(sought, [0]).astype(np.int64)
        times = times_of(pts, seconds_per_tick(path, stream), header_rate(stream))
    lost = failed
    if stamped and first_key is not None:
        lost += sum(first_key <= stamp < pts[0] for stamp in announced)
    return FrameTable(pts, times, keys, stamped, open_gop, counted=True, lost=lost), first


def _starts(look: Looker | None, packet: av.Packet) -> bool:
    try:
        return look is not None and bool(packet.size) and look(memoryview(packet), True).start
    except _Doubt:
        return False


def _shown(packet: av.Packet) -> list[av.VideoFrame] | None:
    """The frames that come with a packet; None where it cannot be decoded."""
    try:
        return packet.decode()
    except av.FFmpegError:
        return None


def header_rate(stream: av.VideoStream) -> float:
    """The frame rate that the header of a stream claims, if it can be one."""
    for rate in (stream.average_rate, stream.guessed_rate):
        if rate and 0 < float(rate) < HIGHEST_RATE:
            return float(rate)
    return UNKNOWN_RATE


def _looker(stream: av.VideoStream, container: str) -> Looker | None:
    """What looks at the packets of a stream; None where they do not tell."""
    context = stream.codec_context
    codec = context.codec.canonical_name
    if codec in _STILL and context.pix_fmt != "pal8" and container in (*INDEXED, "avi"):
        return lambda data, is_key: Look(shown=True, start=is_key)
    if codec == "mpeg4" and container == "avi":
        return _look_at_avi_mpeg4
    if container not in INDEXED:
        return None
    if codec in ("h264", "hevc"):
        size = unit_size(stream)
        look = _look_at_h264 if codec == "h264" else _look_at_hevc
        return lambda data, is_key: look(data, is_key, size)
    return {
        "av1": lambda data, is_key: Look(shown=True, start=is_key),
        "mpeg1video": _look_at_mpeg2,
        "mpeg2video": _look_at_mpeg2,
        "mpeg4": _look_at_mpeg4,
        "vp8": _look_at_vp8,
        "vp9": _look_at_vp9,
    }.get(codec)


def _look_at_vp8(data: memoryview, is_key: bool) -> Look:
    """RFC 6386, section 9.1: bit 0 is 0 in key frames, bit 4 says that the frame is shown."""
    return Look(shown=bool(data[0] & 0x10), start=not data[0] & 1)


def _look_at_vp9(data: memoryview, is_key: bool) -> Look:
    """VP9 bitstream specification, uncompressed_header; of a superframe one frame is shown."""
    frames = [data[0]]
    last = data[-1]
    if last & 0xE0 == 0xC0:  # Annex B: an index of several frames in one packet
        count, width = (last & 7) + 1, (last >> 3 & 3) + 1
        sizes = bytes(data[-1 - count * width : -1])
        frames, place = [], 0
        for k in range(count):
            if place >= len(data):
                raise _Doubt
            frames.append(data[place])
            place += int.from_bytes(sizes[k * width : (k + 1) * width], "little")
    shown = [_vp9_shown(first) for first in frames]
    if sum(shown) > 1:
        raise _Doubt
    profile_bits = 1 if frames[0] & 0x30 == 0x30 else 0
    is_key = not frames[0] >> (3 - profile_bits) & 1 and not frames[0] >> (2 - profile_bits) & 1
    return Look(shown=any(shown), start=is_key)


def _vp9_shown(first: int) -> bool:
    """From the first byte of a frame: show_existing_frame, or show_frame."""
    shift = 1 if first & 0x30 == 0x30 else 0  # profile 3 has a reserved bit
    return bool(first >> (3 - shift) & 1 or first >> (1 - shift) & 1)


def _look_at_mpeg4(data: memoryview, is_key: bool) -> Look:
    """ISO/IEC 14496-2: a picture begins with 00 00 01 B6 and two bits of its type, I is 0."""
    if len(data) <= _TINY:
        raise _Doubt
    if not is_key:
        return _FRAME
    content = bytes(data)
    place = content.find(b"\0\0\1\xb6")
    if not 0 <= place < len(content) - 4:
        raise _Doubt
    return Look(shown=True, start=content[place + 4] >> 6 == 0)


def _look_at_avi_mpeg4(data: memoryview, is_key: bool) -> Look:
    """In AVI one packet may hold two pictures (packed B-frames), which come late."""
    look = _look_at_mpeg4(data, True)
    content = bytes(data)
    kind = content[content.find(b"\0\0\1\xb6") + 4] >> 6
    if kind == 2 or content.count(b"\0\0\1\xb6") != 1:
        raise _Doubt
    return look


def _look_at_mpeg2(data: memoryview, is_key: bool) -> Look:
    """ISO/IEC 13818-2: a picture header is 00 00 01 00, a time of 10 bits, and a type, I is 1.

    The two fields of a frame may be two pictures: one packet holds both, or there is doubt.
    """
    content = bytes(data)
    place = content.find(b"\0\0\1\0")
    if not 0 <= place < len(content) - 5:
        raise _Doubt
    extension = content.find(b"\0\0\1\xb5", place)
    is_coding = 0 <= extension < len(content) - 7 and content[extension + 4] >> 4 == 8
    if is_coding and content[extension + 6] & 3 != 3:  # picture_structure: not a whole frame
        raise _Doubt
    return Look(shown=True, start=content[place + 5] >> 3 & 7 == 1)


def _look_at_h264(data: memoryview, is_key: bool, size: int) -> Look:
    """ITU-T H.264: decoding starts at IDR pictures and at recovery points without a delay."""
    for place, end in _units(data, size) if is_key else ():
        kind = data[place] & 31
        if kind in (1, 5):  # a slice
            return Look(shown=True, start=kind == 5)
        if kind == 6 and _is_recovery_point(data[place + 1 : end]):
            return Look(shown=True, start=True)
    return _FRAME


def _is_recovery_point(message: memoryview) -> bool:
    """Whether a supplemental message (Annex D) says that pictures are whole from here on."""
    place = 0
    while place + 2 < len(message):
        kind, length = message[place], message[place + 1]
        if kind == 255 or length == 255:
            return False
        if kind == 6:
            return bool(message[place + 2] & 0x80)  # recovery_frame_cnt is 0
        place += 2 + length
    return False


def _look_at_hevc(data: memoryview, is_key: bool, size: int) -> Look:
    """ITU-T H.265: decoding starts at pictures of the types 16 to 21.

    After a broken link, or the end of a sequence, pictures that lead a key frame are not shown.
    """
    start = None
    for place, _ in _units(data, size):
        kind = data[place] >> 1 & 63
        if kind in (16, 17, 18, 36, 37):
            raise _Doubt
        if kind < 32 and start is None:  # a slice
            start = 16 <= kind <= 21
    return Look(shown=True, start=bool(start))


def unit_size(stream: av.VideoStream) -> int:
    """Bytes of the length before each unit of H.264 and HEVC; 0 where start codes divide them."""
    context = stream.codec_context
    extradata = context.extradata or b""
    place = 4 if context.codec.canonical_name == "h264" else 21  # in avcC and hvcC
    boxed = len(extradata) > place and extradata[0] == 1
    return (extradata[place] & 3) + 1 if boxed else 0


def has_forbidden_bytes(data: memoryview, size: int) -> bool:
    """Whether a packet of H.264 or HEVC holds bytes that no encoder writes, as lost sectors do.

    Within a unit 00 00 is never followed by 00, 01 or 02 (ITU-T H.264 and H.265, 7.4.1); zeros
    may stand at its end. ``size`` of the lengths, 0: start codes.
    """
    if not size:
        return _BETWEEN_START_CODES.search(data) is not None
    return any(
        _IN_UNIT.search(bytes(data[place:end]).rstrip(b"\0")) for place, end in _units(data, size)
    )


_IN_UNIT = re.compile(rb"\x00\x00[\x00-\x02]")
_BETWEEN_START_CODES = re.compile(rb"\x00\x00(?:\x00+[^\x00\x01]|\x02)")


def _units(data: memoryview, size: int) -> Iterator[tuple[int, int]]:
    """First byte and end of every unit of a packet; ``size`` of the lengths, 0: start codes."""
    if not size:
        content = bytes(data)
        place = content.find(b"\0\0\1")
        while 0 <= place < len(content) - 4:
            following = content.find(b"\0\0\1", place + 3)
            yield place + 3, following if following >= 0 else len(content)
            place = following
        return
    place = 0
    while place + size < len(data):
        length = int.from_bytes(data[place : place + size], "big")
        yield place + size, min(place + size + length, len(data))
        place += size + length
