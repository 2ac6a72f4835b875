"""Pictures of predictions: scores over time, labels on the frames, and what explains them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from videonet.figures import save_figure
from videonet.files import temporary_name, writing
from videonet.inference.segments import Segment, cell_borders

TOP_CURVES = 8  # classes drawn over time
SHORTEST_SIDE = 240  # of explained videos, in pixels
TICKS_PER_SECOND = 90_000


def plot_timeline(
    times: Sequence[tuple[float, float]],
    scores: np.ndarray,
    segments: Sequence[Segment],
    names: Sequence[str],
    title: str,
    path: Path,
) -> None:
    """Scores of the classes that matter most over time, above the segments.

    Args:
        times: (start, end) of the windows in seconds.
        scores: (N, K).
    """
    borders = cell_borders(times)
    strongest = np.argsort(-scores.max(axis=0))[: min(TOP_CURVES, scores.shape[1])]
    colours = dict(zip(strongest.tolist(), colormaps["tab10"].colors, strict=False))
    figure = Figure(figsize=(11, 4), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    for index in strongest:
        upper.stairs(scores[:, index], borders, label=names[index], color=colours[index], lw=1.3)
    upper.set(ylabel="score", ylim=(0, 1.02))
    upper.set_title(title, fontsize=10)
    upper.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    by_name = {names[index]: colour for index, colour in colours.items()}
    for s in segments:
        lower.barh(0, s.end - s.start, left=s.start, color=by_name.get(s.label, "gray"))
        if s.end - s.start > 0.08 * (borders[-1] - borders[0]):
            lower.text((s.start + s.end) / 2, 0, s.label, ha="center", va="center", fontsize=8)
    lower.set(xlabel="seconds", yticks=[], ylabel="segments", xlim=(borders[0], borders[-1]))
    save_figure(figure, path, dpi=110)


class VideoFile:
    """Writes pictures to an H.264 MP4 file; under its name the file is whole or not there.

    Odd sizes lose a row or a column.
    """

    def __init__(self, path: Path, fps: float):
        self.path, self._partial = path, temporary_name(path)
        with writing(path):
            self._container = av.open(f"file:{self._partial}", "w", format="mp4")
        rate = Fraction(fps).limit_denominator(1001)
        self._stream = self._container.add_stream("libx264", rate=rate, options={"crf": "20"})
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = Fraction(1, TICKS_PER_SECOND)
        self._sized = False

    def add(self, picture: np.ndarray, time: float) -> None:
        """The next picture, RGB uint8 (H, W, 3), shown at `time` seconds."""
        height, width = (n // 2 * 2 for n in picture.shape[:2])
        if not self._sized:
            self._stream.height, self._stream.width, self._sized = height, width, True
        picture = np.ascontiguousarray(picture[:height, :width])
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame.pts = round(time * TICKS_PER_SECOND)
        frame.time_base = Fraction(1, TICKS_PER_SECOND)
        with writing(self.path):
            self._container.mux(self._stream.encode(frame))

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        whole = False
        try:
            with writing(self.path):
                if kind is None:
                    self._container.mux(self._stream.encode())
                self._container.close()
                if kind is None:
                    self._partial.replace(self.path)
                    whole = True
        finally:
            if not whole:
                self._partial.unlink(missing_ok=True)


def draw_scores(picture: np.ndarray, top: Sequence[tuple[str, float]]) -> np.ndarray:
    """The picture (H, W, 3) with a bar and a name for each score, best first, at its lower left."""
    image = Image.fromarray(np.ascontiguousarray(picture))
    draw = ImageDraw.Draw(image, "RGBA")
    size = max(9, min(image.height // 18, 28))
    font = ImageFont.load_default(size)
    line, width = round(1.5 * size), min(round(0.5 * image.width), 16 * size)
    first = image.height - line * len(top) - size // 2
    for row, (name, score) in enumerate(top):
        y = first + row * line
        draw.rectangle((4, y, 4 + width, y + line - 2), fill=(0, 0, 0, 130))
        draw.rectangle((4, y, 4 + round(width * score), y + line - 2), fill=(30, 130, 230, 170))
        draw.text((8, y + size // 5), f"{name} {score:.2f}", font=font, fill=(255, 255, 255, 255))
    return np.asarray(image)


def write_overlay(
    frames: Iterator[tuple[float, np.ndarray]],
    times: Sequence[tuple[float, float]],
    tops: Sequence[Sequence[tuple[str, float]]],
    fps: float,
    path: Path,
) -> None:
    """A copy of a video with the scores of the window around each moment on it.

    Args:
        frames: (seconds, picture) of every frame.
        times: (start, end) of the windows; tops: (name, score) of the highest scores of each.
    """
    borders = cell_borders(times)
    with VideoFile(path, fps) as file:
        for time, picture in frames:
            cell = int(np.clip(np.searchsorted(borders, time, side="right") - 1, 0, len(tops) - 1))
            file.add(draw_scores(picture, tops[cell]), time)


def blend_heat(frames: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Grey frames (T, H, W, 3) under a heat map (T, H, W) in 0 … 1; uint8."""
    colours = colormaps["inferno"](heat)[..., :3] * 255
    strength = 0.85 * heat[..., None] ** 0.7
    grey = frames.mean(axis=3, keepdims=True)
    return ((1 - strength) * grey + strength * colours + 0.5).astype(np.uint8)


def plot_heat(frames: np.ndarray, heat: np.ndarray, title: str, path: Path) -> None:
    """Frames (T, H, W, 3) above the same frames under their heat (T, H, W); at most 8 of them."""
    shown = np.linspace(0, len(frames) - 1, min(8, len(frames))).round().astype(int)
    figure = Figure(figsize=(1.4 * len(shown) + 0.2, 3.2), layout="constrained")
    rows = figure.subplots(2, len(shown), squeeze=False)
    blended = blend_heat(frames, heat)
    for column, index in enumerate(shown):
        for axes, picture in zip(rows[:, column], (frames[index], blended[index]), strict=True):
            axes.imshow(picture)
            axes.axis("off")
        rows[0, column].set_title(f"frame {index}", fontsize=8)
    figure.suptitle(title, fontsize=10)
    save_figure(figure, path, dpi=100)


def write_heat_video(
    frames: np.ndarray, heat: np.ndarray, top: Sequence[tuple[str, float]], fps: float, path: Path
) -> None:
    """The frames (T, H, W, 3) beside themselves under their heat (T, H, W), enlarged."""
    factor = max(1, math.ceil(SHORTEST_SIDE / min(frames.shape[1:3])))
    pairs = np.concatenate((frames, blend_heat(frames, heat)), axis=2)  # (T, H, 2 W, 3)
    with VideoFile(path, fps) as file:
        for index, picture in enumerate(pairs):
            size = (picture.shape[1] * factor, picture.shape[0] * factor)
            large = Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC)
            file.add(draw_scores(np.asarray(large), top), index / fps)
