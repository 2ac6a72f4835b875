"""Pictures and videos of predictions: scores over time, scores on frames, and heat maps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib import color_sequences, colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from videonet.data.video.writer import new_video
from videonet.figures import save_figure
from videonet.tasks.segments import Segment, cell_borders

Limits = tuple[float, float] | None  # the lowest and the highest score; None for no limits

SHOWN_FRAMES = 8  # of a clip in a picture
TOP_CURVES = 8  # outputs drawn over time
LONG = 240  # windows; more of them are drawn as rows of colour, as curves would cover one another
LONG_CELLS = 800  # of a row; each shows the highest score of the windows in it
MINUTES_FROM = 180.0  # seconds; times of longer videos are minutes and seconds
SHORTEST_SIDE = 240  # of explained videos, in pixels


def plot_timeline(
    times: Sequence[tuple[float, float]],
    scores: np.ndarray,
    segments: Sequence[Segment],
    names: Sequence[str],
    title: str,
    path: Path,
    *,
    limits: Limits = None,
) -> None:
    """The highest scores of a video over time, above its segments.

    Args:
        times: (start, end) of the windows in seconds.
        scores: (N, K).
        segments: of the video.
        names: of the K outputs.
        title: of the picture.
        path: the PNG file.
        limits: of the scores, see :attr:`videonet.tasks.Task.score_range`.
    """
    borders = cell_borders(times)
    strongest = np.argsort(-scores.max(axis=0))[: min(TOP_CURVES, scores.shape[1])]
    colours = dict(zip(strongest.tolist(), color_sequences["tab10"], strict=False))
    figure = Figure(figsize=(11, 4), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    if len(times) > LONG:
        _draw_rows(figure, upper, borders, scores[:, strongest], limits)
        upper.set_yticks(range(len(strongest)), [names[index] for index in strongest], fontsize=8)
        for label, index in zip(upper.get_yticklabels(), strongest.tolist(), strict=True):
            label.set_color(colours[index])
    else:
        for index in strongest:
            line = {"label": names[index], "color": colours[index], "lw": 1.3}
            upper.stairs(scores[:, index], borders, **line)
        upper.set(ylabel="score")
        if limits is not None:
            upper.set(ylim=(limits[0], limits[0] + 1.02 * (limits[1] - limits[0])))
        upper.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    upper.set_title(title, fontsize=10)
    by_name = {names[index]: colour for index, colour in colours.items()}
    for s in segments:
        lower.barh(0, s.end - s.start, left=s.start, color=by_name.get(s.label, "gray"))
        if s.end - s.start > 0.08 * (borders[-1] - borders[0]):
            lower.text((s.start + s.end) / 2, 0, s.label, ha="center", va="center", fontsize=8)
    lower.set(xlabel="seconds", yticks=[], ylabel="segments", xlim=(borders[0], borders[-1]))
    if borders[-1] - borders[0] > MINUTES_FROM:
        lower.set(xlabel="minutes:seconds")
        lower.xaxis.set_major_locator(MaxNLocator(12, steps=[1, 1.2, 1.5, 3, 6, 10]))
        lower.xaxis.set_major_formatter(lambda x, _: f"{int(x) // 60}:{int(x) % 60:02d}")
    save_figure(figure, path, dpi=110)


def _draw_rows(
    figure: Figure, axes: Axes, borders: np.ndarray, scores: np.ndarray, limits: Limits
) -> None:
    """A row of colour for each column of scores (N, k), the first one uppermost."""
    starts = np.unique(np.linspace(0, len(scores), LONG_CELLS, endpoint=False).astype(int))
    cells = np.maximum.reduceat(scores, starts, axis=0)  # (cells, k)
    edges = np.append(borders[starts], borders[-1])
    rows = np.arange(cells.shape[1] + 1) - 0.5
    low, high = limits or (float(scores.min()), float(scores.max()))
    mesh = axes.pcolormesh(edges, rows, cells.T, cmap="viridis", vmin=low, vmax=high)
    axes.invert_yaxis()
    figure.colorbar(mesh, ax=axes, label="score", pad=0.01)


def draw_scores(
    picture: np.ndarray, top: Sequence[tuple[str, float]], *, limits: Limits = None
) -> np.ndarray:
    """A copy of a picture with a name and a bar for each score at its lower left.

    Args:
        picture: RGB uint8 (H, W, 3).
        top: (name, score) of each line, from the top.
        limits: of the scores; without limits there are no bars.
    """
    image = Image.fromarray(np.ascontiguousarray(picture))
    draw = ImageDraw.Draw(image, "RGBA")
    size = max(9, min(image.height // 18, 28))
    font = ImageFont.load_default(size)
    line, width = round(1.5 * size), min(round(0.5 * image.width), 16 * size)
    first = image.height - line * len(top) - size // 2
    for row, (name, score) in enumerate(top):
        y = first + row * line
        draw.rectangle((4, y, 4 + width, y + line - 2), fill=(0, 0, 0, 130))
        if limits is not None:
            share = (score - limits[0]) / (limits[1] - limits[0])
            end = 4 + round(width * share)
            draw.rectangle((4, y, end, y + line - 2), fill=(30, 130, 230, 170))
        draw.text((8, y + size // 5), f"{name} {score:.2f}", font=font, fill=(255, 255, 255, 255))
    return np.asarray(image)


def write_overlay(
    frames: Iterator[tuple[float, np.ndarray]],
    times: Sequence[tuple[float, float]],
    tops: Sequence[Sequence[tuple[str, float]]],
    fps: float,
    path: Path,
    *,
    limits: Limits = None,
) -> None:
    """A copy of a video, each frame with the scores of the window around it.

    Args:
        frames: (seconds, picture) of every frame.
        times: (start, end) of the windows in seconds.
        tops: (name, score) of the highest scores of each window.
        fps: nominal frames per second.
        path: the MP4 file.
        limits: of the scores, see :func:`draw_scores`.
    """
    borders = cell_borders(times)
    with new_video(path, fps) as writer:
        for time, picture in frames:
            cell = int(np.clip(np.searchsorted(borders, time, side="right") - 1, 0, len(tops) - 1))
            writer.add(draw_scores(picture, tops[cell], limits=limits), time)


def blend_heat(frames: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Grey frames with a heat map over them.

    Args:
        frames: uint8 (T, H, W, 3).
        heat: (T, H, W) in 0 … 1.

    Returns:
        uint8 (T, H, W, 3).
    """
    colours = colormaps["inferno"](heat)[..., :3] * 255
    strength = 0.85 * heat[..., None] ** 0.7
    grey = frames.mean(axis=3, keepdims=True)
    return ((1 - strength) * grey + strength * colours + 0.5).astype(np.uint8)


def plot_heat(frames: np.ndarray, heat: np.ndarray, title: str, path: Path) -> None:
    """At most ``SHOWN_FRAMES`` frames above the same frames under their heat.

    Args:
        frames: uint8 (T, H, W, 3).
        heat: (T, H, W) in 0 … 1.
        title: of the picture.
        path: the PNG file.
    """
    shown = _spread_frames(len(frames))
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
    frames: np.ndarray,
    heat: np.ndarray,
    top: Sequence[tuple[str, float]],
    fps: float,
    path: Path,
    *,
    limits: Limits = None,
) -> None:
    """A video of frames beside the same frames under their heat, enlarged.

    Args:
        frames: uint8 (T, H, W, 3).
        heat: (T, H, W) in 0 … 1.
        top: (name, score) that every frame shows.
        fps: frames per second.
        path: the MP4 file.
        limits: of the scores, see :func:`draw_scores`.
    """
    factor = max(1, math.ceil(SHORTEST_SIDE / min(frames.shape[1:3])))
    pairs = np.concatenate((frames, blend_heat(frames, heat)), axis=2)  # (T, H, 2 W, 3)
    with new_video(path, fps) as writer:
        for index, picture in enumerate(pairs):
            size = (picture.shape[1] * factor, picture.shape[0] * factor)
            large = Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC)
            writer.add(draw_scores(np.asarray(large), top, limits=limits), index / fps)


def plot_prediction(
    clip: Tensor,
    top: Sequence[tuple[str, float]],
    title: str,
    path: Path,
    *,
    limits: Limits = None,
) -> None:
    """Frames of a clip above bars of scores.

    Args:
        clip: uint8 (3, T, H, W).
        top: (name, score) of each bar.
        title: of the picture.
        path: the PNG file.
        limits: of the scores, see :attr:`videonet.tasks.Task.score_range`.
    """
    names, scores = zip(*top, strict=True)
    frames = clip.permute(1, 2, 3, 0).numpy()  # (T, H, W, 3)
    shown = _spread_frames(len(frames))
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=(1, 1.3))[:, 0]
    for axes, index in zip(np.atleast_1d(upper.subplots(1, len(shown))), shown, strict=True):
        axes.imshow(frames[index])
        axes.set_title(f"frame {index}", fontsize=8)
        axes.axis("off")
    figure.suptitle(title, fontsize=10)
    axes = lower.subplots()
    axes.barh(range(len(names)), scores, color="tab:blue")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set(xlabel="score")
    if limits is not None:
        axes.set(xlim=(limits[0], limits[0] + 1.1 * (limits[1] - limits[0])))
    for row, score in enumerate(scores):
        axes.text(score + 0.01, row, f"{score:.3f}", va="center")
    save_figure(figure, path)


def _spread_frames(count: int) -> np.ndarray:
    """At most ``SHOWN_FRAMES`` of so many frames, evenly spread from the first to the last."""
    return np.linspace(0, count - 1, min(SHOWN_FRAMES, count)).round().astype(int)
