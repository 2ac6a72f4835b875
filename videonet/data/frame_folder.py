"""Videos stored as pictures: a folder of numbered ones, ``000001.jpg``, …, or a single one.

A single picture is a video of one frame.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from videonet.data.container import VideoInfo
from videonet.data.reader import VideoReader
from videonet.errors import DecodeError

PICTURES = (".jpg", ".jpeg", ".png")
_NUMBERED = re.compile(r"(\D*)(\d+)\.(jpg|jpeg|png)", re.IGNORECASE)


class PictureReader(VideoReader):
    """Reads the pictures of a folder in the order of their numbers, or one picture.

    ``fps`` is the frame rate that they stand for. A picture is turned as its EXIF data says.
    Raises DecodeError for a folder without numbered pictures and for a gap in the numbers.
    """

    def __init__(self, path: str, fps: float, short_side: int | None = None, roughly: bool = False):
        self._files = _numbered_files(path) if os.path.isdir(path) else [path]
        self.path = path
        self._first: Image.Image | None = self._decode(self._files[0])  # an image is decoded once
        frames, (width, height) = len(self._files), self._first.size
        info = VideoInfo(
            frames, fps, width, height, 0, frames / fps, "jpeg", "rgb24", "frames", False
        )
        super().__init__(path, info, np.arange(frames) / fps, short_side, roughly)

    def _read(self, wanted: np.ndarray) -> Tensor:
        width, height = self.size
        out = np.empty((len(wanted), height, width, 3), dtype=np.uint8)
        for place, index in enumerate(wanted):
            picture = self._first if index == 0 else self._decode(self._files[index])
            if picture.size != (self.info.width, self.info.height):
                raise DecodeError(
                    f"cannot read {self.path}: {os.path.basename(self._files[index])} has "
                    f"{picture.size} pixels (width, height), the first picture "
                    f"{(self.info.width, self.info.height)}"
                )
            out[place] = picture.resize(self.size, Image.Resampling.BILINEAR)
        return torch.from_numpy(out)

    def _decode(self, file: str) -> Image.Image:
        try:
            with Image.open(file) as picture:
                return ImageOps.exif_transpose(picture).convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            reason = (str(error).splitlines() or ["unknown"])[0].strip(" .")
            name = "" if file == self.path else f"{os.path.basename(file)}: "
            raise DecodeError(f"cannot read {self.path}: {name}{reason}") from None

    def close(self) -> None:
        self._files, self._first = [], None


def _numbered_files(path: str) -> list[str]:
    names = {}
    for name in os.listdir(path):
        match = _NUMBERED.fullmatch(name)
        if match:
            names[int(match[2])] = name
    if not names:
        raise DecodeError(f"cannot read {path}: the folder holds no pictures like 000001.jpg")
    numbers = sorted(names)
    if numbers[-1] - numbers[0] != len(numbers) - 1:
        gap = next(a + 1 for a, b in zip(numbers, numbers[1:], strict=False) if b != a + 1)
        raise DecodeError(f"cannot read {path}: picture number {gap} is missing")
    return [str(Path(path, names[number])) for number in numbers]
