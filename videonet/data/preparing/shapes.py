"""Textured shapes and backgrounds, drawn with soft edges by signed distances.

A shape's state is ``x``, ``y`` (its centre) and ``radius`` in pixels and ``angle`` in radians
clockwise, one value per frame each.
"""

from __future__ import annotations

import colorsys
import functools
from dataclasses import dataclass

import numpy as np

DRIFT_SHARE = 0.2  # clips whose background drifts, in a random direction
MAX_DRIFT = 0.05  # of the frame's side, over the whole clip

Trajectory = dict[str, np.ndarray]


def _arc(x: float, y: float, radius: float, first: float, last: float) -> list[tuple[float, float]]:
    angles = np.radians(np.linspace(first, last, 24))
    return list(zip(x + radius * np.cos(angles), y + radius * np.sin(angles), strict=True))


def _star() -> list[tuple[float, float]]:
    radii = [1.25, 0.38] + [0.8, 0.38] * 4  # one long arm shows the angle
    angles = np.arange(10) * np.pi / 5
    return [(r * np.sin(a), -r * np.cos(a)) for r, a in zip(radii, angles, strict=True)]


# No shape looks the same after any turn below a full one, so every angle can be seen.
_OUTLINES: dict[str, list[tuple[float, float]]] = {
    "triangle": [(0, -1), (0.65, 0.8), (-0.65, 0.8)],
    "flag": [(-1, -0.65), (1, -0.65), (0.45, 0), (1, 0.65), (-1, 0.65)],
    "ell": [(-0.7, -1), (0, -1), (0, 0.3), (0.8, 0.3), (0.8, 1), (-0.7, 1)],
    "tee": [(-0.9, -0.9), (0.9, -0.9), (0.9, -0.25), (0.35, -0.25), (0.35, 1)]
    + [(-0.35, 1), (-0.35, -0.25), (-0.9, -0.25)],
    "arrow": [(-1, -0.35), (0, -0.35), (0, -0.85), (1, 0), (0, 0.85), (0, 0.35), (-1, 0.35)],
    "star": _star(),
    "crescent": _arc(0, 0, 1, 50, 310) + _arc(0.55, 0, 0.772, 277, 83),
    "drop": _arc(0, 0.4, 0.62, -30, 210) + [(0, -1)],
    "half_disc": _arc(0, 0, 1, 0, 180),
}
SHAPES: tuple[str, ...] = tuple(_OUTLINES)
_TABLE_SIZE = 192
_TABLE_REACH = 1.2


@functools.cache
def outline(shape: str) -> np.ndarray:
    """Corners (N, 2) around the shape's centre of area; the farthest is at distance 1."""
    points = np.array(_OUTLINES[shape])
    following = np.roll(points, -1, axis=0)
    cross = points[:, 0] * following[:, 1] - following[:, 0] * points[:, 1]
    points = points - ((points + following) * cross[:, None]).sum(0) / (3 * cross.sum())
    return points / np.hypot(*points.T).max()


@functools.cache
def _distance_table(shape: str) -> np.ndarray:
    """Signed distance to the outline (negative inside) on a square grid over ±_TABLE_REACH."""
    axis = np.linspace(-_TABLE_REACH, _TABLE_REACH, _TABLE_SIZE)
    u, v = axis[None, :], axis[:, None]
    squared = np.full((_TABLE_SIZE, _TABLE_SIZE), np.inf)
    inside = np.zeros((_TABLE_SIZE, _TABLE_SIZE), dtype=bool)
    corners = outline(shape)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        dx, dy = x1 - x0, y1 - y0
        along = np.clip(((u - x0) * dx + (v - y0) * dy) / (dx * dx + dy * dy), 0, 1)
        squared = np.minimum(squared, (u - x0 - along * dx) ** 2 + (v - y0 - along * dy) ** 2)
        if dy != 0:
            inside ^= ((y0 > v) != (y1 > v)) & (u < x0 + (v - y0) * dx / dy)
    return (np.sqrt(squared) * np.where(inside, -1, 1)).astype(np.float32)


def _lookup(table: np.ndarray, u: np.ndarray, v: np.ndarray, reach: float) -> np.ndarray:
    """Bilinear value of a square table that covers ±reach; the border's value outside."""
    last = table.shape[0] - 1
    column = np.clip((u + reach) * (last / (2 * reach)), 0, last - 1e-3)
    row = np.clip((v + reach) * (last / (2 * reach)), 0, last - 1e-3)
    left, top = column.astype(np.int32), row.astype(np.int32)
    column -= left
    row -= top
    start = top * (last + 1) + left
    flat = table.ravel()
    upper = flat[start]
    upper += column * (flat[start + 1] - upper)
    lower = flat[start + last + 1]
    lower += column * (flat[start + last + 2] - lower)
    return upper + row * (lower - upper)


@dataclass(frozen=True)
class _Pattern:
    """A mix in [0, 1] of two colours over the plane."""

    kind: str
    frequency: float
    noise: np.ndarray

    @staticmethod
    def random(rng: np.random.Generator, frequencies: tuple[float, float]) -> _Pattern:
        kind = str(rng.choice(["plain", "gradient", "stripes", "checks", "noise"]))
        cells = int(rng.integers(4, 10))
        noise = rng.random((cells, cells)).astype(np.float32)
        return _Pattern(kind, rng.uniform(*frequencies), noise)

    def __call__(self, u: np.ndarray, v: np.ndarray, pixels: np.ndarray | float) -> np.ndarray:
        """The mix at (u, v), where one unit is ``pixels`` wide: edges are one pixel soft."""
        if self.kind == "plain":
            return np.zeros_like(u)
        if self.kind == "gradient":
            return np.clip(0.5 + 0.6 * u, 0, 1)
        if self.kind == "noise":
            return _lookup(self.noise, u, v, _TABLE_REACH)
        wave = np.sin(self.frequency * u)
        if self.kind == "checks":
            wave *= np.sin(self.frequency * v)
        return np.clip(0.5 + wave * (pixels / self.frequency), 0, 1)


def _random_colour(rng: np.random.Generator, saturation: float) -> np.ndarray:
    hue, pale, value = rng.random(), rng.uniform(0.1, saturation), rng.uniform(0.1, 1)
    return 255 * np.array(colorsys.hsv_to_rgb(hue, pale, value), dtype=np.float32)


def _contrasting_colours(rng: np.random.Generator, others: list[np.ndarray]) -> list[np.ndarray]:
    """Two colours that differ visibly from all the others and from each other."""
    colours: list[np.ndarray] = []
    while len(colours) < 2:
        colour = _random_colour(rng, 1.0)
        if all(np.linalg.norm(colour - other) > 130 for other in others + colours):
            colours.append(colour)
    return colours


def draw_shape(
    frames: np.ndarray,
    shape: str,
    trajectory: Trajectory,
    behind: list[np.ndarray],
    rng: np.random.Generator,
) -> None:
    """Blend a shape of random texture into uint8 frames (T, H, W, 3), in place.

    Lengths are in pixels; ``behind`` are colours that it must stand out from.
    """
    pattern = _Pattern.random(rng, (4, 8))
    main, second = _contrasting_colours(rng, behind)
    x, y, radius, angle = (
        trajectory[name].astype(np.float32)[:, None, None] for name in ("x", "y", "radius", "angle")
    )
    half = int(np.ceil(np.max(radius))) + 2
    offsets = np.arange(-half, half + 1, dtype=np.float32) + np.float32(0.5)
    left, top = np.floor(x).astype(int) - half, np.floor(y).astype(int) - half
    dx = offsets[None, None, :] + (np.floor(x) - x)  # (T, 1, P)
    dy = offsets[None, :, None] + (np.floor(y) - y)  # (T, P, 1)
    cosine, sine = np.cos(angle) / radius, np.sin(angle) / radius
    u = dx * cosine + dy * sine  # (T, P, P), the shape's own coordinates
    v = dy * cosine - dx * sine
    cover = np.clip(0.5 - radius * _lookup(_distance_table(shape), u, v, _TABLE_REACH), 0, 1)
    colour = main + pattern(u, v, radius)[..., None] * (second - main)  # (T, P, P, 3)
    height, width = frames.shape[1:3]
    for t, (x0, y0) in enumerate(zip(left.flat, top.flat, strict=True)):
        rows = slice(max(-y0, 0), max(min(height - y0, 2 * half + 1), 0))
        columns = slice(max(-x0, 0), max(min(width - x0, 2 * half + 1), 0))
        target = frames[t, rows.start + y0 : rows.stop + y0, columns.start + x0 : columns.stop + x0]
        blend = cover[t, rows, columns, None] * (colour[t, rows, columns] - target)
        blend += target
        np.add(blend, 0.5, out=target, casting="unsafe")  # rounds to uint8


def draw_background(
    size: int,
    num_frames: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, list[np.ndarray]]:
    """A still or slowly drifting background, uint8 (T, size, size, 3), and its two colours."""
    margin = int(np.ceil(size * MAX_DRIFT / 2)) + 1
    side = size + 2 * margin
    axis = np.linspace(-1, 1, side, dtype=np.float32)
    u, v = np.meshgrid(axis, axis)
    tilt = rng.uniform(0, 2 * np.pi)
    u, v = u * np.cos(tilt) + v * np.sin(tilt), v * np.cos(tilt) - u * np.sin(tilt)
    mix = _Pattern.random(rng, (4, 16))(u, v, side / 2)
    main = _random_colour(rng, 0.7)
    second = np.clip(main + rng.uniform(-35, 35, 3), 0, 255).astype(np.float32)
    canvas = main + mix[..., None] * (second - main)
    canvas += rng.uniform(0, 5) * rng.standard_normal((side, side, 1))
    canvas = _to_uint8(canvas)

    length = size * MAX_DRIFT * rng.random() * (rng.random() < DRIFT_SHARE)
    heading = rng.uniform(0, 2 * np.pi)
    if length == 0:
        still = canvas[margin : margin + size, margin : margin + size]
        return np.repeat(still[None], num_frames, axis=0), [main, second]
    steps = np.linspace(-length / 2, length / 2, num_frames)
    views = [
        _crop(canvas, margin + step * np.sin(heading), margin + step * np.cos(heading), size)
        for step in steps
    ]
    return np.stack(views), [main, second]


def _crop(image: np.ndarray, top: float, left: float, size: int) -> np.ndarray:
    """A square of a uint8 image at a fractional place, bilinear."""
    row, column = int(top), int(left)
    part = image[row : row + size + 1, column : column + size + 1].astype(np.float32)
    part = part[:-1] + np.float32(top - row) * (part[1:] - part[:-1])
    return _to_uint8(part[:, :-1] + np.float32(left - column) * (part[:, 1:] - part[:, :-1]))


def _to_uint8(image: np.ndarray) -> np.ndarray:
    return (np.clip(image, 0, 255) + 0.5).astype(np.uint8)
