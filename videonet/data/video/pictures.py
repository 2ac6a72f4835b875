"""Videos stored as pictures: a folder of numbered ones, ``000001.jpg``, …, or a single one.

A single picture is a video of one frame.
"""

from __future__ import annotations

import os
import re
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from videonet.data.video.access import (
    MOST_PIXELS,
    check_plain_file,
    decode_error,
    is_out_of_files,
    reason_of,
)
from videonet.data.video.content import Source, open_bytes
from videonet.data.video.damage import libjpeg_report, listening
from videonet.data.video.info import VideoInfo
from videonet.data.video.names import is_picture
from videonet.data.video.reader import VideoReader
from videonet.errors import DecodeError

MOST_BYTES = 2**28  # of a picture file
# What Pillow may take a file for, whatever its name: others start programs (PostScript).
_FORMATS = ("BMP", "JPEG", "PNG", "WEBP")
_PNG = b"\x89PNG\r\n\x1a\n"
_NUMBERED = re.compile(r"(?P<series>.*?)(?P<number>\d+)\.[^.]+", re.DOTALL)
# Optical flow lies beside the pictures that it was computed from, in series of these names.
_FLOW = re.compile(r"(flow|tvl1)[_-]?.*|[uvxy][_-]?", re.IGNORECASE)
_SAMPLES_16 = ("I", "I;16", "I;16B", "I;16L", "I;16N")  # Pillow's modes of 16-bit grey


class PictureReader(VideoReader):
    """Reads the pictures of a folder in the order of their numbers, or one picture.

    ``fps`` is the frame rate that they stand for. ``names``: of the pictures in the folder, in
    their order, instead of all that are numbered. A picture is turned as its EXIF data says.
    Raises DecodeError for a folder without numbered pictures, with several series of them, and
    for a gap in the numbers.
    """

    def __init__(
        self,
        path: Source,
        fps: float,
        short_side: int | None = None,
        allow_larger: bool = False,
        names: Sequence[str] | None = None,
    ):
        self.path = str(path)
        self._files: list[Source] = [path]
        if names is not None:
            self._files = [os.path.join(self.path, name) for name in names]
        elif isinstance(path, str) and os.path.isdir(path):
            self._files = [*numbered_files(path)]
        first = self._decode(self._files[0])
        self._first: Image.Image | None = first  # an image is decoded once
        frames, (width, height) = len(self._files), first.size
        kind = os.path.splitext(str(self._files[0]))[1].lower().lstrip(".").replace("jpg", "jpeg")
        info = VideoInfo(
            frames, fps, width, height, 0, frames / fps, kind, "rgb24", "frames", False
        )
        super().__init__(self.path, info, np.arange(frames) / fps, short_side, allow_larger)

    def _read(self, wanted: np.ndarray) -> Tensor:
        width, height = self.size
        out = np.empty((len(wanted), height, width, 3), dtype=np.uint8)
        for place, index in enumerate(wanted):
            kept = self._first if index == 0 else None
            picture = kept or self._decode(self._files[index])
            if picture.size != (self.info.width, self.info.height):
                raise DecodeError(
                    f"cannot read {self.path}: {os.path.basename(str(self._files[index]))} has "
                    f"{picture.size} pixels (width, height), the first picture "
                    f"{(self.info.width, self.info.height)}"
                )
            out[place] = np.asarray(picture.resize(self.size, Image.Resampling.BILINEAR))
        return torch.from_numpy(out)

    def forwards(self, first: int = 0) -> Iterator[tuple[float, Callable[[], np.ndarray]]]:
        """See :meth:`videonet.data.video.pyav_reader.PyAVReader.forwards`."""
        for index in range(first, self.info.frames):
            yield float(self.times[index]), partial(self._picture, index)

    def _picture(self, index: int) -> np.ndarray:
        """A picture at its own size, uint8 (H, W, 3)."""
        return np.array(self._decode(self._files[index]).convert("RGB"))

    def _decode(self, file: Source) -> Image.Image:
        try:
            return read_picture(file)
        except DecodeError as error:
            if str(file) == self.path:
                raise
            reason = str(error).removeprefix(f"cannot read {file}: ")
            name = os.path.basename(str(file))
            raise DecodeError(f"cannot read {self.path}: {name}: {reason}") from None

    @property
    def files(self) -> list[Source]:
        """The pictures, in their order."""
        return list(self._files)

    def close(self) -> None:
        self._files, self._first = [], None


def read_picture(file: Source) -> Image.Image:
    """An upright picture in 8-bit RGB; of 16-bit samples the high bytes, without its alpha.

    Raises DecodeError for what is no plain file, no picture of a known format, too large, damaged,
    or an animation.
    """
    check_plain_file(file)
    content = file if isinstance(file, str) else file.open()
    try:
        with warnings.catch_warnings():  # Pillow's own limit on pixels only warns
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(content, formats=_FORMATS) as picture:
                _check_size(file, picture)
                return _to_rgb(ImageOps.exif_transpose(picture))
    # Pillow raises nearly anything for damaged headers and metadata.
    except (OSError, ValueError, SyntaxError, ArithmeticError, LookupError, TypeError) as error:
        if is_out_of_files(error):
            raise decode_error(file, error) from None
        raise DecodeError(f"cannot read {file}: {_reason(error)}") from None
    except (Image.DecompressionBombError, MemoryError, EOFError, AttributeError) as error:
        raise DecodeError(f"cannot read {file}: {_reason(error)}") from None


def _check_size(file: Source, picture: Image.Image) -> None:
    if picture.width * picture.height > MOST_PIXELS:
        raise DecodeError(
            f"cannot read {file}: it has {picture.width} x {picture.height} pixels, more than "
            f"{MOST_PIXELS:,}"
        )
    # Phones append other pictures to a JPEG (MPO), which is a picture all the same.
    count = getattr(picture, "n_frames", 1)
    if count > 1 and picture.format not in ("JPEG", "MPO"):
        raise DecodeError(f"cannot read {file}: it is an animation of {count} pictures")


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode in _SAMPLES_16:
        samples = np.asarray(picture).astype(np.int64)
        return Image.fromarray((samples.clip(0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    return picture.convert("RGB")


def _reason(error: BaseException) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return f"cannot identify the picture, expected one of {', '.join(_FORMATS)}"
    text = getattr(error, "strerror", None) or str(error)
    return (text.splitlines() or [type(error).__name__])[0].strip(" .") or type(error).__name__


def picture_damage(file: Source) -> str:
    """What shows damage in a picture that Pillow reads all the same; empty where nothing does.

    Raises DecodeError for what is no plain file.
    """
    check_plain_file(file)
    with open_bytes(file) as content:
        data = content.read(MOST_BYTES)
    if data.startswith(b"\xff\xd8"):
        return _jpeg_damage(data)
    if data.startswith(_PNG):
        return _png_damage(data)
    if data.startswith(b"RIFF"):  # WebP
        size = int.from_bytes(data[4:8], "little") + 8
        return "" if size <= len(data) else f"its header promises {size} bytes, not {len(data)}"
    return ""


def _png_damage(data: bytes) -> str:
    """The first part (chunk) that its checksum does not fit, or that is missing."""
    place = len(_PNG)
    while place + 12 <= len(data):
        size = int.from_bytes(data[place : place + 4], "big")
        kind, end = data[place + 4 : place + 8], place + 8 + size
        if end + 4 > len(data):
            break
        if zlib.crc32(data[place + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            return f"the checksum of its part {ascii(kind.decode('latin-1'))} does not fit"
        if kind == b"IEND":
            return ""
        place = end + 4
    return "its end is missing"


def _jpeg_damage(data: bytes) -> str:
    """What FFmpeg or libjpeg reports of a JPEG: each of them misses what the other one finds."""
    if said := _ffmpeg_report(data):
        return f"FFmpeg reports {said}"
    said = libjpeg_report(data)
    return f"libjpeg reports {said}" if said else ""


def _ffmpeg_report(data: bytes) -> str:
    decoder = av.CodecContext.create("mjpeg", "r")
    decoder.options = {"err_detect": "explode"}
    with listening() as complaints:
        try:
            decoder.decode(av.Packet(data))
            decoder.decode(None)
        except av.InvalidDataError as error:
            return complaints.about("mjpeg") or reason_of(error)
        except av.FFmpegError:  # a kind of JPEG that FFmpeg does not decode
            return ""
    return complaints.about("mjpeg")


def numbered_files(path: str) -> list[str]:
    """The numbered pictures of a folder in the order of their numbers.

    Of several series, told apart by what stands before the number, those of optical flow are left
    out. Raises DecodeError where not exactly one is left, and for gaps and repeated numbers.
    """
    series: dict[str, dict[int, str]] = {}
    try:
        names = sorted(name for name in os.listdir(path) if is_picture(name))
    except OSError as error:
        raise decode_error(path, error) from None
    for name in names:
        match = _NUMBERED.fullmatch(name)
        if match:
            numbers = series.setdefault(match["series"], {})
            number = int(match["number"]) if len(match["number"]) < 19 else -1
            if number in numbers or number < 0:
                other = numbers.get(number, "a number of that length")
                raise DecodeError(f"cannot read {path}: {name} and {other} have one number")
            numbers[number] = name
    if not series:
        raise DecodeError(f"cannot read {path}: the folder holds no pictures like 000001.jpg")
    chosen = (
        [name for name in series if not _FLOW.fullmatch(name)] if len(series) > 1 else [*series]
    )
    if len(chosen) != 1:
        examples = ", ".join(sorted(numbers[min(numbers)] for numbers in series.values())[:4])
        raise DecodeError(
            f"cannot read {path}: it holds {len(series)} series of pictures ({examples}), "
            "expected one"
        )
    return _in_order(path, series[chosen[0]])


def _in_order(path: str, names: dict[int, str]) -> list[str]:
    numbers = sorted(names)
    if numbers[-1] - numbers[0] != len(numbers) - 1:
        gap = next(a + 1 for a, b in zip(numbers, numbers[1:], strict=False) if b != a + 1)
        raise DecodeError(f"cannot read {path}: picture number {gap} is missing")
    return [str(Path(path, names[number])) for number in numbers]
