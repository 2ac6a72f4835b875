"""Cropping that the container asks for: clean apertures (MP4, MOV) and pixel crops (Matroska).

FFmpeg's decoders apply what the codec itself crops; what the container says is left to the player,
and PyAV does not hand it on.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import numpy as np

from videonet.data.video.boxes import boxes, elements
from videonet.data.video.content import Source, open_bytes

_MOV, _MATROSKA = "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"


class Crop(NamedTuple):
    """The part of a decoded picture that is shown, in its pixels."""

    left: int
    top: int
    width: int
    height: int

    def cut(self, picture: np.ndarray) -> np.ndarray:
        """The part of a picture ``(H, W, 3)`` that is shown; a view."""
        return picture[self.top : self.top + self.height, self.left : self.left + self.width]


def find_crop(path: Source, kind: str, number: int, width: int, height: int) -> Crop | None:
    """What a container shows of the pictures of a stream; None for all of it.

    ``kind`` is FFmpeg's name of the container, ``number`` the track's in MP4 and MOV, its place
    among the tracks in Matroska. A crop that does not lie in the picture of ``width`` × ``height``
    is damaged and changes nothing.
    """
    find = {_MOV: _clean_aperture, _MATROSKA: _pixel_crop}.get(kind)
    if find is None:
        return None
    try:
        with open_bytes(path) as file:
            crop = find(file, number, width, height)
    except (OSError, struct.error, IndexError, ValueError):
        return None
    if crop is None or crop == (0, 0, width, height):
        return None
    inside = crop.left >= 0 and crop.top >= 0 and min(crop.width, crop.height) > 0
    inside = inside and crop.left + crop.width <= width and crop.top + crop.height <= height
    return crop if inside else None


def _clean_aperture(file: BinaryIO, number: int, width: int, height: int) -> Crop | None:
    """ISO/IEC 14496-12, 12.1.4: size and offset of the centre of what is shown, as fractions."""
    for track in _inside(file, boxes(file), b"moov", b"trak"):
        header = next(_inside(file, boxes(file, *track), b"tkhd"), None)
        if header is None:
            continue
        file.seek(header[0])
        version = file.read(1)[0]
        file.seek(header[0] + (20 if version == 1 else 12))
        if struct.unpack(">I", file.read(4))[0] != number:
            continue
        where = boxes(file, *track)
        for start, end in _inside(file, where, b"mdia", b"minf", b"stbl", b"stsd"):
            for _, entry, entry_end in boxes(file, start + 8, end):  # after version and count
                # A sample entry of a video has 78 bytes of its own before the boxes in it.
                for place, _ in _inside(file, boxes(file, entry + 78, entry_end), b"clap"):
                    file.seek(place)
                    values = struct.unpack(">IIIIiIiI", file.read(32))
                    return _aperture(values, width, height)
    return None


def _aperture(values: tuple[int, ...], width: int, height: int) -> Crop | None:
    if 0 in values[1::2]:
        return None
    wide, high, right, down = (
        above / below for above, below in zip(values[::2], values[1::2], strict=True)
    )
    left, top = (width - wide) / 2 + right, (height - high) / 2 + down
    return Crop(math.floor(left), math.floor(top), round(wide), round(high))


def _inside(
    file: BinaryIO, found: Iterator[tuple[bytes, int, int]], *names: bytes
) -> Iterator[tuple[int, int]]:
    """Start and end of the content of every box that is reached by these names."""
    for kind, start, end in found:
        if kind == names[0]:
            if len(names) == 1:
                yield start, end
            else:
                yield from _inside(file, boxes(file, start, end), *names[1:])


_SEGMENT, _TRACKS, _TYPE, _VIDEO = 0x18538067, 0x1654AE6B, 0x83, 0xE0
_STREAMS = (1, 2, 17, 33)  # types of tracks that are streams: video, sound, subtitles, data
_BOTTOM, _TOP, _LEFT, _RIGHT = 0x54AA, 0x54BB, 0x54CC, 0x54DD
_CLUSTER = 0x1F43B675


def _pixel_crop(file: BinaryIO, number: int, width: int, height: int) -> Crop | None:
    """RFC 9559, 5.1.4.1.28: how many pixels of each side are not shown."""
    for kind, start, end in elements(file):
        if kind != _SEGMENT:
            continue
        for inner, first, last in elements(file, start, end):
            if inner == _CLUSTER:  # the tracks come before the pictures
                return None
            if inner != _TRACKS:
                continue
            entries = [
                {name: place for name, *place in elements(file, *track)}
                for _, *track in elements(file, first, last)
            ]
            streams = [e for e in entries if _unsigned(file, e.get(_TYPE)) in _STREAMS]
            return _crop_of_entry(file, streams[number], width, height)
    return None


def _crop_of_entry(
    file: BinaryIO, entry: dict[int, list[int]], width: int, height: int
) -> Crop | None:
    if _VIDEO not in entry:
        return None
    video = {name: place for name, *place in elements(file, *entry[_VIDEO])}
    left, right, top, bottom = (
        _unsigned(file, video.get(side)) for side in (_LEFT, _RIGHT, _TOP, _BOTTOM)
    )
    return Crop(left, top, width - left - right, height - top - bottom)


def _unsigned(file: BinaryIO, place: list[int] | None) -> int:
    if place is None:
        return 0
    file.seek(place[0])
    return int.from_bytes(file.read(min(8, place[1] - place[0])), "big")
