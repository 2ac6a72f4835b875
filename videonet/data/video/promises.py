"""What a container promises of its length, compared with what is in the file.

A file that was cut off (a full disk, an interrupted download) mostly still plays. Its boxes, chunks
or elements say how long they are, its header how long the video lasts: what is missing is named.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import BinaryIO

import av
import numpy as np

from videonet.data.video.access import READ_ERRORS, open_container
from videonet.data.video.boxes import boxes, element
from videonet.data.video.content import Source, open_bytes, size_of
from videonet.data.video.packets import has_forbidden_bytes, unit_size

_SLACK_SECONDS = 0.5  # that a header may promise too much: sound ends a little later, and rounding
_SLACK_SHARE = 0.02


def missing_part(path: Source, frames: int, end: float) -> str:
    """What a container promises and the file does not hold, as a phrase; empty where all is there.

    ``frames`` that are shown, and the ``end`` of the last one in seconds from the start.
    """
    container, stream = open_container(path)
    with container:
        kind, size = container.format.name, size_of(path)
        promised = _promised_seconds(container, stream)
        announced = stream.frames
        try:
            last, packets, damaged, odd = _last_packet(container, stream)
        except READ_ERRORS:
            last, packets, damaged, odd = end, announced, 0, None
        number = stream.id
    cut_at = f"cut at {end:.1f} of {promised:.1f} s" if promised else "cut off"
    short = bytes_missing(path, kind, size)
    if short:
        return f"{cut_at}: {short}"
    if damaged:
        return f"{damaged} of its {packets} packets are marked as damaged"
    if odd is not None:
        return f"packet {odd} of its {packets} holds bytes that no encoder writes"
    if kind == "mpegts" and (place := lost_packet(path, number)) is not None:
        return f"a packet of its transport stream is missing at byte {place:,}"
    if promised and last < promised - max(_SLACK_SECONDS, _SLACK_SHARE * promised):
        return cut_at
    if announced and packets < announced - max(1, round(_SLACK_SHARE * announced)):
        return f"{cut_at}: it holds {packets} frames of {announced}"
    return ""


def _promised_seconds(container: av.container.InputContainer, stream: av.VideoStream) -> float:
    """How long the header says that the file lasts; 0 where it does not say.

    In streams without a header FFmpeg guesses it from what is there.
    """
    if container.format.name in ("mpegts", "mpeg", "h264", "hevc", "mpegvideo", "m4v", "ogg"):
        return 0.0
    return (container.duration or 0) / av.time_base


def _last_packet(
    container: av.container.InputContainer, stream: av.VideoStream
) -> tuple[float, int, int, int | None]:
    """What the packets of a file say.

    Returns:
        Seconds at which the last packet of any stream ends, the number of packets of the video, of
        damaged ones among them, and the number of the first one whose bytes are not its codec's.
    """
    start = (container.start_time or 0) / av.time_base
    end, count, damaged, odd = 0.0, 0, 0, None
    has_units = stream.codec_context.codec.canonical_name in ("h264", "hevc")
    size = unit_size(stream) if has_units else 0
    while True:
        try:
            for packet in container.demux():
                if packet.stream_index == stream.index and packet.size:
                    if odd is None and has_units and has_forbidden_bytes(memoryview(packet), size):
                        odd = count
                    count, damaged = count + 1, damaged + packet.is_corrupt
                stamp = packet.pts if packet.pts is not None else packet.dts
                if stamp is not None and packet.time_base:
                    time = float((stamp + (packet.duration or 0)) * packet.time_base)
                    end = max(end, time - start)
            return end, count, damaged, odd
        except IndexError:  # a stream that appears late
            continue


def bytes_missing(path: Source, kind: str, size: int) -> str:
    """What the structure of a file says is missing from its end, empty where it says nothing.

    ``kind`` is FFmpeg's name of the container, ``size`` the length of the file in bytes.
    """
    look = _LOOKS.get(kind)
    if look is None:
        return ""
    try:
        with open_bytes(path) as file:
            return look(file, size)
    except (OSError, struct.error, IndexError, ValueError):
        return ""


def _short(what: str, end: int, size: int) -> str:
    return f"{what} ends {end - size:,} bytes after the file" if end > size else ""


def _mp4(file: BinaryIO, size: int) -> str:
    """ISO/IEC 14496-12: boxes, one after the other."""
    for kind, _, end in boxes(file):
        if end > size:
            return _short(f"its box {kind.decode('ascii')}", end, size)
    return ""


def _matroska(file: BinaryIO, size: int) -> str:
    """RFC 8794: elements of an identifier and a length of 1 to 8 bytes each, one in another.

    The segment says how long it is; where a stream was written that could not be known then, the
    clusters in it do.
    """
    _, place, length = element(file, 0)  # the EBML header
    place += length or 0
    _, place, length = element(file, place)
    if length is not None:
        return _short("its segment", place + length, size)
    while place < size:
        kind, content, length = element(file, place)
        if length is None:  # a cluster of unknown length: its blocks are elements of this level
            place = content
            continue
        if content + length > size:
            return _short(
                "a block" if kind in (0xA3, 0xA0) else "a cluster", content + length, size
            )
        place = content + length
    return ""


def _avi(file: BinaryIO, size: int) -> str:
    """RIFF: chunks of a name and a length, one after the other, padded to even lengths."""
    place = 0
    while place + 12 <= size:
        file.seek(place)
        name, length = struct.unpack("<4sI", file.read(8))
        if name != b"RIFF":
            return ""
        if length in (0, 0xFFFFFFFF):  # a recording that was never finished says nothing
            return ""
        if place + 8 + length > size:
            return _short("its RIFF chunk", place + 8 + length, size)
        place += 8 + length + length % 2
    return ""


def _gif(file: BinaryIO, size: int) -> str:
    """GIF89a: the last byte is a trailer; bytes of nothing may follow."""
    file.seek(max(0, size - 64))
    return "" if file.read().rstrip(b"\0").endswith(b";") else "its trailer is missing"


def _ogg(file: BinaryIO, size: int) -> str:
    """RFC 3533: pages, each with the lengths of its segments; the last of a stream is marked."""
    file.seek(max(0, size - 2**17))
    tail = file.read()
    place = tail.rfind(b"OggS")
    if place < 0 or place + 27 > len(tail):
        return "its last page is cut" if place >= 0 else ""
    segments = tail[place + 26]
    head = place + 27 + segments
    end = head + sum(tail[place + 27 : head])
    if end > len(tail):
        return "its last page is cut"
    return "" if tail[place + 5] & 4 else "its last page is missing"


def _flv(file: BinaryIO, size: int) -> str:
    """Tags, each followed by its own length."""
    file.seek(size - 4)
    length = struct.unpack(">I", file.read(4))[0]
    if not 11 <= length <= size - 13:
        return "its last tag is cut"
    file.seek(size - 4 - length)
    tag = file.read(4)
    whole = tag[0] & 31 in (8, 9, 18) and int.from_bytes(tag[1:4], "big") + 11 == length
    return "" if whole else "its last tag is cut"


def _asf(file: BinaryIO, size: int) -> str:
    """The header's file properties say how long the file is, unless it was broadcast."""
    head = file.read(2**16)
    place = head.find(bytes.fromhex("A1DCAB8C47A9CF118EE400C00C205365"))
    if place < 0:
        return ""
    length, flags = struct.unpack("<Q40xI", head[place + 40 : place + 92])
    return "" if flags & 1 else _short("its data", length, size)


def _ivf(file: BinaryIO, size: int) -> str:
    """Frames, each after its length and time."""
    file.seek(6)
    place = struct.unpack("<H", file.read(2))[0]
    while place + 12 <= size:
        file.seek(place)
        place += 12 + struct.unpack("<I", file.read(4))[0]
    return _short("its last frame", place, size) or (
        "its last frame is cut" if place < size else ""
    )


def _mpegts(file: BinaryIO, size: int) -> str:
    """ISO/IEC 13818-1: packets of equal length, one after the other."""
    length, _ = _ts_packets(file.read(2**12))
    return "its last packet is cut" if length and size % length else ""


def _ts_packets(head: bytes) -> tuple[int, int]:
    """Length of the packets of a transport stream, and where in them the byte 0x47 is; else 0."""
    for length, sync in ((188, 0), (192, 4), (204, 0)):  # plain, with times, with a checksum
        if len(head) > 4 * length and all(head[sync + k * length] == 0x47 for k in range(4)):
            return length, sync
    return 0, 0


def lost_packet(path: Source, number: int) -> int | None:
    """The byte where packets of one stream of a transport stream are missing or overwritten.

    The packets of a stream (ISO/IEC 13818-1, 2.4.3) are counted by four bits, which only rise with
    those that carry something; one may come twice.
    """
    with open_bytes(path) as file:
        length, sync = _ts_packets(file.read(2**12))
        if not length:
            return None
        file.seek(0)
        start, newest = 0, None
        while block := file.read(length * 2**14):
            rows = np.frombuffer(block[: len(block) // length * length], np.uint8)
            rows = rows.reshape(-1, length)[:, sync : sync + 6].astype(np.int32)
            unsynced = np.flatnonzero(rows[:, 0] != 0x47)
            if len(unsynced):
                return start + int(unsynced[0]) * length
            places = np.flatnonzero(((rows[:, 1] & 31) << 8 | rows[:, 2]) == number)
            places = places[rows[places, 3] & 0x10 > 0]
            unit = _without_start(block, length, sync, rows, places)
            if unit is not None:
                return start + unit * length
            counters = rows[places, 3] & 15
            if len(places):
                before = counters[0] - 1 if newest is None else newest
                steps = np.diff(counters, prepend=before) % 16
                # A packet may say that the count begins anew.
                anew = (rows[places, 3] & 0x20 > 0) & (rows[places, 4] > 0)
                anew &= rows[places, 5] & 0x80 > 0
                odd = np.flatnonzero((steps > 1) & ~anew)
                if len(odd):
                    return start + int(places[odd[0]]) * length
                newest = int(counters[-1])
            start += len(block)
    return None


def _without_start(
    block: bytes, length: int, sync: int, rows: np.ndarray, places: np.ndarray
) -> int | None:
    """The first packet that says that a unit begins in it, and does not hold its start code."""
    for row in places[rows[places, 1] & 0x40 > 0].tolist():
        has_adaptation = rows[row, 3] & 0x20 > 0
        content = row * length + sync + 4 + (1 + int(rows[row, 4]) if has_adaptation else 0)
        end = row * length + sync + 188
        if content + 3 > end or block[content : content + 3] != b"\0\0\1":
            return row
    return None


def _mpeg(file: BinaryIO, size: int) -> str:
    """ISO/IEC 13818-1 and 11172-1: packs, and in them packets of a name and a length."""
    file.seek(max(0, size - 2**20))
    tail = file.read()
    place = tail.find(b"\0\0\1\xba")
    while 0 <= place < len(tail):
        name = tail[place : place + 4]
        if len(name) < 4 and b"\0\0\1".startswith(name[:3]):
            return "its last packet is cut"
        if name == b"\0\0\1\xb9":  # the end of the program
            return ""
        if name == b"\0\0\1\xba" and place + 14 <= len(tail):
            is_mpeg2 = tail[place + 4] >> 6 == 1
            place += 14 + (tail[place + 13] & 7) if is_mpeg2 else 12
        elif name[:3] == b"\0\0\1" and place + 6 <= len(tail):
            place += 6 + int.from_bytes(tail[place + 4 : place + 6], "big")
        else:
            return "its last packet is cut" if name[:3] == b"\0\0\1" else ""
    return "its last packet is cut" if place > len(tail) else ""


_LOOKS: dict[str, Callable[[BinaryIO, int], str]] = {
    "mov,mp4,m4a,3gp,3g2,mj2": _mp4,
    "matroska,webm": _matroska,
    "avi": _avi,
    "gif": _gif,
    "ogg": _ogg,
    "flv": _flv,
    "asf": _asf,
    "ivf": _ivf,
    "mpegts": _mpegts,
    "mpeg": _mpeg,
}
