"""A small video data set of moving shapes that only the order of frames can classify.

Ten classes in five opposite pairs. Every clip shows one textured shape over a textured background;
its state at each frame is (x, y, radius, angle, opacity). The class moves one of the five by its
rule and the other four stand still. Two laws hold by construction:

- **Reversal.** A clip of a class played backwards is distributed exactly as a clip of the opposite
  class: the attribute follows a rising path or the same path backwards.
- **Single frames tell nothing.** The value of an attribute that stands still is the value of such
  a path at a random frame, so a frame taken at a random time has the same distribution, all five
  attributes together, in every class. A model of one frame stays at chance.
"""

from __future__ import annotations

import colorsys
import functools
import io
import json
import logging
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import av
import numpy as np

from videonet.errors import DataError

logger = logging.getLogger(__name__)

# Class -> (attribute that changes, +1 for a rising path and -1 for a falling one).
# Image coordinates: y points down, a rising angle turns clockwise.
RULES: dict[str, tuple[str, int]] = {
    "move_left": ("x", -1),
    "move_right": ("x", 1),
    "move_up": ("y", -1),
    "move_down": ("y", 1),
    "come_nearer": ("radius", 1),
    "go_away": ("radius", -1),
    "turn_clockwise": ("angle", 1),
    "turn_anticlockwise": ("angle", -1),
    "appear": ("opacity", 1),
    "vanish": ("opacity", -1),
}
CLASS_NAMES: tuple[str, ...] = tuple(RULES)

# Attribute -> the ranges that the low and the high end of a path are drawn from.
# Positions and radii are fractions of the frame's side.
ENDS: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {
    "x": ((0.15, 0.30), (0.70, 0.85)),
    "y": ((0.15, 0.30), (0.70, 0.85)),
    "radius": ((0.18, 0.22), (0.40, 0.48)),
    "opacity": ((0.20, 0.35), (0.90, 1.00)),
}
TURN = (2.8, 4.9)  # radians from the first angle of a path to its last
CRF = "16"
DISTRACTOR_SHARE = 0.15
DRIFT_SHARE = 0.2  # clips whose background drifts, in a random direction
MAX_DRIFT = 0.05  # of the frame's side, over the whole clip

# Part of the description in demo.json: a change of the drawing or the laws gets a new number.
VERSION = 1
DESCRIPTION = "demo.json"
BOXES = "boxes.json"
PARTIAL = ".partial"
SPLITS = ("train", "val")

Trajectory = dict[str, np.ndarray]


@dataclass(frozen=True)
class DemoDataset:
    """A demo data set on disk; ``written`` counts the clips that this call had to write."""

    folder: Path
    classes: tuple[str, ...]
    written: int


@dataclass(frozen=True)
class _Parameters:
    """What the files depend on, as stored in demo.json."""

    seed: int
    train_clips: int
    val_clips: int
    size: int
    num_frames: int
    fps: int
    version: int = VERSION

    def check(self) -> None:
        least = {"seed": 0, "train_clips": 1, "val_clips": 1, "size": 32, "num_frames": 2, "fps": 1}
        for key, bound in least.items():
            value = getattr(self, key)
            if value < bound:
                raise DataError(f"demo data set: {key} is {value}, expected {bound} or more")
        if self.size % 2:
            raise DataError(f"demo data set: size is {self.size}, expected an even number")


@dataclass(frozen=True)
class _Clip:
    """One clip to be made: its place in the data set, which is also its seed."""

    split: str
    index: int

    @property
    def label(self) -> int:
        return self.index % len(CLASS_NAMES)

    @property
    def path(self) -> str:
        number = self.index // len(CLASS_NAMES)
        return f"{self.split}/{CLASS_NAMES[self.label]}/{number:04d}.mp4"

    def generator(self, seed: int) -> np.random.Generator:
        key = (SPLITS.index(self.split), self.index)
        return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def _rising_path(attribute: str, num_frames: int, rng: np.random.Generator) -> np.ndarray:
    """One random non-decreasing path (T,): its ends, start, duration and easing vary."""
    if attribute == "angle":
        low = rng.uniform(0, 2 * np.pi)
        high = low + rng.uniform(*TURN)
    else:
        low, high = (rng.uniform(*ends) for ends in ENDS[attribute])
    duration = rng.uniform(0.8, 1.0)
    start = rng.uniform(0, 1 - duration)
    progress = np.clip((np.linspace(0, 1, num_frames) - start) / duration, 0, 1)
    easing = rng.uniform()
    progress += easing * (progress**2 * (3 - 2 * progress) - progress)
    if attribute == "radius":  # equal ratios look like an even approach
        return low * (high / low) ** progress
    return low + (high - low) * progress


def sample_trajectory(label: int, num_frames: int, rng: np.random.Generator) -> Trajectory:
    """The shape's state over one random clip of a class: attribute -> (T,).

    ``x``, ``y`` (the centre) and ``radius`` are fractions of the frame's side, ``angle`` is in
    radians clockwise, ``opacity`` in [0, 1]. ``label`` is an index into :data:`CLASS_NAMES`.
    """
    moving, direction = RULES[CLASS_NAMES[label]]
    trajectory = {}
    for name in ("x", "y", "radius", "angle", "opacity"):
        path = _rising_path(name, num_frames, rng)
        still = np.full(num_frames, path[rng.integers(num_frames)])
        trajectory[name] = path[::direction] if name == moving else still
    return trajectory


def _plan(
    label: int, size: int, num_frames: int, rng: np.random.Generator
) -> tuple[Trajectory, str]:
    """A trajectory in pixels, and the shape that follows it."""
    trajectory = sample_trajectory(label, num_frames, rng)
    for name in ("x", "y", "radius"):
        trajectory[name] = trajectory[name] * size
    return trajectory, str(rng.choice(SHAPES))


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
def _outline(shape: str) -> np.ndarray:
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
    corners = _outline(shape)
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


def _draw_shape(
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
    x, y, radius, angle, opacity = (
        trajectory[name].astype(np.float32)[:, None, None]
        for name in ("x", "y", "radius", "angle", "opacity")
    )
    half = int(np.ceil(radius.max())) + 2
    offsets = np.arange(-half, half + 1, dtype=np.float32) + np.float32(0.5)
    left, top = np.floor(x).astype(int) - half, np.floor(y).astype(int) - half
    dx = offsets[None, None, :] + (np.floor(x) - x)  # (T, 1, P)
    dy = offsets[None, :, None] + (np.floor(y) - y)  # (T, P, 1)
    cosine, sine = np.cos(angle) / radius, np.sin(angle) / radius
    u = dx * cosine + dy * sine  # (T, P, P), the shape's own coordinates
    v = dy * cosine - dx * sine
    cover = np.clip(0.5 - radius * _lookup(_distance_table(shape), u, v, _TABLE_REACH), 0, 1)
    cover *= opacity
    colour = main + pattern(u, v, radius)[..., None] * (second - main)  # (T, P, P, 3)
    height, width = frames.shape[1:3]
    for t, (x0, y0) in enumerate(zip(left.flat, top.flat, strict=True)):
        rows = slice(max(-y0, 0), max(min(height - y0, 2 * half + 1), 0))
        columns = slice(max(-x0, 0), max(min(width - x0, 2 * half + 1), 0))
        target = frames[t, rows.start + y0 : rows.stop + y0, columns.start + x0 : columns.stop + x0]
        blend = cover[t, rows, columns, None] * (colour[t, rows, columns] - target)
        blend += target
        np.add(blend, 0.5, out=target, casting="unsafe")  # rounds to uint8


def _background(
    size: int, num_frames: int, rng: np.random.Generator
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
    for _ in range(rng.integers(1, 3) if rng.random() < DISTRACTOR_SHARE else 0):
        label, moment = int(rng.integers(len(CLASS_NAMES))), rng.integers(num_frames)
        trajectory, shape = _plan(label, side, num_frames, rng)
        state = {name: path[moment : moment + 1] for name, path in trajectory.items()}
        _draw_shape(canvas[None], shape, state, [main, second], rng)

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


def render_clip(
    label: int, size: int, num_frames: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one random clip of a class (an index into :data:`CLASS_NAMES`).

    Returns RGB frames, uint8 (T, size, size, 3), and the shape's box in each frame, int (T, 4):
    x0, y0, x1, y1 in pixels with x1, y1 exclusive.
    """
    trajectory, shape = _plan(label, size, num_frames, rng)
    frames, colours = _background(size, num_frames, rng)
    _draw_shape(frames, shape, trajectory, colours, rng)
    return frames, _boxes(shape, trajectory, size)


def _boxes(shape: str, trajectory: Trajectory, size: int) -> np.ndarray:
    x, y, radius, angle = (trajectory[name][:, None] for name in ("x", "y", "radius", "angle"))
    u, v = _outline(shape).T
    px = x + radius * (u * np.cos(angle) - v * np.sin(angle))  # (T, N)
    py = y + radius * (u * np.sin(angle) + v * np.cos(angle))
    edges = [np.floor(px.min(1)), np.floor(py.min(1)), np.ceil(px.max(1)), np.ceil(py.max(1))]
    return np.clip(np.stack(edges, axis=1), 0, size).astype(int)


def _encode(frames: np.ndarray, fps: int) -> bytes:
    """An H.264 mp4 file of frames (T, H, W, 3); one thread, so the bytes are reproducible."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        options = {"preset": "ultrafast", "crf": CRF}
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def _write_file(path: Path, content: bytes) -> None:
    """Write through a temporary name, so that a file under its own name is always whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    partial.write_bytes(content)
    partial.replace(path)


def _write_clip(clip: _Clip, folder: Path, parameters: _Parameters) -> None:
    rng = clip.generator(parameters.seed)
    frames, _ = render_clip(clip.label, parameters.size, parameters.num_frames, rng)
    _write_file(folder / clip.path, _encode(frames, parameters.fps))


def _write_clips(
    clips: list[_Clip], folder: Path, parameters: _Parameters, processes: int
) -> Iterator[None]:
    """Write clips, yielding after each; every clip has its own seed, so the order is free."""
    write = functools.partial(_write_clip, folder=folder, parameters=parameters)
    if processes == 1 or len(clips) <= 1:
        yield from map(write, clips)
        return
    # A fork spares every worker the import of torch; the workers use numpy and PyAV only, so the
    # threads that the caller may have are no danger. Elsewhere than on Linux a fork is not safe.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with ProcessPoolExecutor(min(processes, len(clips)), mp_context=context) as pool:
        yield from pool.map(write, clips, chunksize=min(16, -(-len(clips) // processes)))


def _claim(folder: Path, parameters: _Parameters) -> None:
    """Make the folder this data set's, or raise DataError where it is something else's."""
    description = folder / DESCRIPTION
    wanted = asdict(parameters) | {"classes": list(CLASS_NAMES)}
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file, expected a folder for the demo data set")
    if description.is_file():
        try:
            found = json.loads(description.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"{description} is not JSON: {error}") from error
        found = found if isinstance(found, dict) else {}
        for key, value in wanted.items():
            if found.get(key) != value:
                raise DataError(
                    f"{folder} holds another demo data set: {key} is {found.get(key)!r} in "
                    f"{DESCRIPTION}, {value!r} was asked for; delete it or choose another folder"
                )
    elif folder.is_dir() and any(path.suffix != PARTIAL for path in folder.iterdir()):
        raise DataError(f"{folder} is not empty and has no {DESCRIPTION}: choose another folder")
    else:
        _write_file(description, (json.dumps(wanted, indent=1) + "\n").encode())


def _write_lists(clips: list[_Clip], folder: Path, parameters: _Parameters) -> None:
    for split in SPLITS:
        lines = [f"{clip.path} {clip.label}\n" for clip in clips if clip.split == split]
        _write_file(folder / f"{split}.csv", "".join(lines).encode())
    _write_file(folder / "classes.txt", "".join(f"{name}\n" for name in CLASS_NAMES).encode())
    boxes = {}
    for clip in clips:
        rng = clip.generator(parameters.seed)
        trajectory, shape = _plan(clip.label, parameters.size, parameters.num_frames, rng)
        boxes[clip.path] = _boxes(shape, trajectory, parameters.size).tolist()
    _write_file(folder / BOXES, json.dumps(boxes, separators=(",", ":")).encode())


def write_demo_dataset(
    folder: str | Path,
    *,
    train_clips: int = 1000,
    val_clips: int = 200,
    size: int = 96,
    num_frames: int = 32,
    fps: int = 15,
    seed: int = 0,
    processes: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> DemoDataset:
    """Write the demo data set, or what is missing of it.

    The folder gets ``train/<class>/*.mp4`` and ``val/<class>/*.mp4`` (H.264, size×size pixels),
    ``train.csv`` and ``val.csv`` (lines ``relative/path label``), ``classes.txt`` (a name a line),
    ``boxes.json`` (path -> per frame [x0, y0, x1, y1] of the shape, in pixels, x1 and y1
    exclusive) and ``demo.json`` (the parameters). The same parameters give the same bytes, whatever
    the number of processes; two seeds share no clip, nor do train and val. A complete data set of
    the same parameters is left as it is; what an interrupted run left behind is completed.

    Args:
        folder: where to write; made if absent.
        train_clips, val_clips: number of clips, spread evenly over the ten classes.
        size: height and width in pixels, even.
        processes: how many processes draw and encode; more than one needs the caller's script to
            be guarded by ``if __name__ == "__main__":``, except on Linux.
        progress: called as ``progress(done, total)`` after every written clip.

    Raises:
        DataError: a parameter out of range; a folder that holds other files, or a demo data set
            of other parameters.
    """
    folder = Path(folder)
    parameters = _Parameters(seed, train_clips, val_clips, size, num_frames, fps)
    parameters.check()
    if processes < 1:
        raise DataError(f"demo data set: processes is {processes}, expected 1 or more")
    _claim(folder, parameters)
    counts = {"train": train_clips, "val": val_clips}
    clips = [_Clip(split, index) for split in SPLITS for index in range(counts[split])]
    missing = [clip for clip in clips if not (folder / clip.path).is_file()]
    for done, _ in enumerate(_write_clips(missing, folder, parameters, processes), start=1):
        if progress is not None:
            progress(done, len(missing))
    lists = ("train.csv", "val.csv", "classes.txt", BOXES)
    if missing or not all((folder / name).is_file() for name in lists):
        _write_lists(clips, folder, parameters)
        logger.info("demo data set: wrote %d of %d clips to %s", len(missing), len(clips), folder)
    else:
        logger.info("demo data set: %s is complete, left as it is", folder)
    return DemoDataset(folder, CLASS_NAMES, len(missing))
