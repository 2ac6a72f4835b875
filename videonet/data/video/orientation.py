"""How the decoded picture has to be turned, mirrored and stretched to be seen as it was meant."""

from __future__ import annotations

from dataclasses import dataclass

import av
import numpy as np
from av.buffer import Buffer

# Outside of it a sample aspect ratio is damage: nothing is filmed with such pixels.
WIDEST_PIXEL = 8.0
# Up to here it is what the rounding of a size to whole pixels left, and the size is the one meant.
SQUARE = 0.01

# (a, b, c, d) of the display matrix, as signs, by (counter-clockwise turn, mirrored after it). A
# point (x, y) of the decoded picture is shown at (a x + c y, b x + d y), y pointing down.
_TURNS = {
    (1, 0, 0, 1): (0, False),
    (0, -1, 1, 0): (90, False),
    (-1, 0, 0, -1): (180, False),
    (0, 1, -1, 0): (270, False),
    (-1, 0, 0, 1): (0, True),
    (0, -1, -1, 0): (90, True),
    (1, 0, 0, -1): (180, True),
    (0, 1, 1, 0): (270, True),
}


@dataclass(frozen=True)
class Orientation:
    """A counter-clockwise turn in degrees (0, 90, 180, 270), then left and right change places."""

    rotation: int = 0
    mirrored: bool = False

    def upright(self, picture: np.ndarray) -> np.ndarray:
        """The picture ``(H, W, 3)`` as it is meant to be seen; a view."""
        if self.rotation:
            picture = np.rot90(picture, self.rotation // 90)
        return picture[:, ::-1] if self.mirrored else picture


def orientation_of(frame: av.VideoFrame) -> Orientation:
    """What the display matrix of a decoded frame says, to the nearest quarter turn."""
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
    except (KeyError, ValueError):
        matrix = None
    if not isinstance(matrix, Buffer):
        return Orientation()
    values = np.frombuffer(bytes(matrix), dtype=np.int32)
    return orientation_from(values) if len(values) == 9 else Orientation()


def orientation_from(matrix: np.ndarray) -> Orientation:
    """The orientation of a display matrix ``(9,)`` of 16.16 numbers, row by row.

    A matrix that makes a point or a line of the picture is damaged and changes nothing.
    """
    a, b, c, d = (int(matrix[k]) for k in (0, 1, 3, 4))
    if a * d - b * c == 0:
        return Orientation()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        signs = (_sign(a), 0, 0, _sign(d))
    else:
        signs = (0, _sign(b), _sign(c), 0)
    return Orientation(*_TURNS[signs])


def _sign(value: int) -> int:
    return -1 if value < 0 else 1


def pixel_aspect(stream: av.VideoStream) -> float:
    """Width of a pixel over its height; 1 where the file says nothing, next to 1, or nonsense."""
    ratio = float(stream.sample_aspect_ratio or 1)
    if abs(ratio - 1) <= SQUARE or not 1 / WIDEST_PIXEL <= ratio <= WIDEST_PIXEL:
        return 1.0
    return ratio


def shown_size(width: int, height: int, aspect: float, orientation: Orientation) -> tuple[int, int]:
    """(width, height) of the upright picture with square pixels; its lines stay as they are."""
    width = max(1, round(width * aspect))
    return (height, width) if orientation.rotation % 180 else (width, height)
