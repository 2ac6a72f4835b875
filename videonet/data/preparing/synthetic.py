"""A small video data set of moving shapes that only the order of frames can classify.

Eight classes in four opposite pairs. Every clip shows one textured shape over a textured
background; its state at each frame is (x, y, radius, angle). The class moves one of the four by
its rule and the others stand still. Two laws hold by construction:

- **Reversal.** A clip of a class played backwards is distributed exactly as a clip of the opposite
  class: the attribute follows a rising path or the same path backwards.
- **Single frames tell nothing.** The value of an attribute that stands still is the value of such
  a path at a random frame, so a frame taken at a random time has the same distribution, all five
  attributes together, in every class. A model of one frame stays at chance.
"""

from __future__ import annotations

import functools
import io
import json
import logging
import multiprocessing
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from videonet.data.loading.processes import end_with_parent
from videonet.data.preparing.shapes import SHAPES, Trajectory, draw_background, draw_shape, outline
from videonet.data.video.writer import VideoWriter
from videonet.errors import DataError
from videonet.files import remove_unfinished, replacing

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
}
CLASS_NAMES: tuple[str, ...] = tuple(RULES)

# Attribute -> the ranges that the low and the high end of a path are drawn from.
# Positions and radii are fractions of the frame's side.
ENDS: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {
    "x": ((0.15, 0.30), (0.70, 0.85)),
    "y": ((0.15, 0.30), (0.70, 0.85)),
    "radius": ((0.18, 0.22), (0.40, 0.48)),
}
TURN = (2.8, 4.9)  # radians from the first angle of a path to its last
CRF = 16  # close to lossless: coding errors must not betray the motion

# Part of the description in demo.json: a change of the drawing or the laws gets a new number.
VERSION = 1
DESCRIPTION = "demo.json"
BOXES = "boxes.json"
SPLITS = ("train", "val")


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
    radians clockwise. ``label`` is an index into :data:`CLASS_NAMES`.
    """
    moving, direction = RULES[CLASS_NAMES[label]]
    trajectory = {}
    for name in ("x", "y", "radius", "angle"):
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


def render_clip(
    label: int, size: int, num_frames: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one random clip of a class (an index into :data:`CLASS_NAMES`).

    Returns RGB frames, uint8 (T, size, size, 3), and the shape's box in each frame, int (T, 4):
    x0, y0, x1, y1 in pixels with x1, y1 exclusive.
    """
    trajectory, shape = _plan(label, size, num_frames, rng)
    frames, colours = draw_background(size, num_frames, rng)
    draw_shape(frames, shape, trajectory, colours, rng)
    return frames, _boxes(shape, trajectory, size)


def _boxes(shape: str, trajectory: Trajectory, size: int) -> np.ndarray:
    x, y, radius, angle = (trajectory[name][:, None] for name in ("x", "y", "radius", "angle"))
    u, v = outline(shape).T
    px = x + radius * (u * np.cos(angle) - v * np.sin(angle))  # (T, N)
    py = y + radius * (u * np.sin(angle) + v * np.cos(angle))
    edges = [np.floor(px.min(1)), np.floor(py.min(1)), np.ceil(px.max(1)), np.ceil(py.max(1))]
    return np.clip(np.stack(edges, axis=1), 0, size).astype(int)


def _encode(frames: np.ndarray, fps: int) -> bytes:
    """An H.264 mp4 file of frames (T, H, W, 3), the same bytes on every run."""
    buffer = io.BytesIO()
    with VideoWriter(
        buffer, fps, crf=CRF, preset="ultrafast", threads=1, clock=None, bitexact=True
    ) as writer:
        for image in frames:
            writer.add(image)
    return buffer.getvalue()


def _write_file(path: Path, content: bytes) -> None:
    """Write a file that is whole under its name, or not there."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


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
    try:
        with ProcessPoolExecutor(
            min(processes, len(clips)), mp_context=context, initializer=end_with_parent
        ) as pool:
            yield from pool.map(write, clips, chunksize=min(16, -(-len(clips) // processes)))
    except BrokenProcessPool:
        raise DataError(
            f"{folder}: a process that wrote clips was ended from outside; the same command goes on"
        ) from None


def _claim(folder: Path, parameters: _Parameters) -> None:
    """Make the folder this data set's, or raise DataError where it is something else's."""
    description = folder / DESCRIPTION
    wanted = asdict(parameters) | {"classes": list(CLASS_NAMES)}
    remove_unfinished(folder)
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
    elif folder.is_dir() and any(folder.iterdir()):
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
    train_clips: int = 5000,
    val_clips: int = 200,
    size: int = 64,
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
        train_clips, val_clips: number of clips, spread evenly over the classes.
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
    for place in {(folder / clip.path).parent for clip in clips}:
        remove_unfinished(place)
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
