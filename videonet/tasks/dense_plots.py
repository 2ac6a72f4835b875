"""Pictures of objects and label maps: drawn on frames, precision over recall, the worst images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageColor, ImageDraw, ImageFont

from videonet.data.masks import Rle, decode_masks, mask_overlaps
from videonet.figures import save_figure
from videonet.tasks.average_precision import AveragePrecision
from videonet.terminal import printable

OPACITY = 0.45  # of masks
MOST_CURVES = 10  # categories with a curve of their own
COLOURS = tuple(  # without greys, which say nothing
    ImageColor.getrgb(code)[:3]
    for code in (
        *("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#bcbd22"),
        *("#17becf", "#1b9e77", "#d95f02", "#7570b3", "#e7298a", "#66a61e", "#e6ab02", "#a6761d"),
    )
)


@dataclass(frozen=True)
class DrawnObject:
    """What is drawn of an object.

    Attributes:
        box: left, top, right, bottom in pixels; None for no box.
        text: beside the box, such as the class and the score.
        mask: run lengths or bool (H, W); None for none.
        number: of the object over time, or of its class: those of one number have one colour.
    """

    box: Sequence[float] | None = None
    text: str = ""
    mask: Rle | np.ndarray | None = None
    number: int = 0


def draw_objects(frame: np.ndarray, objects: Sequence[DrawnObject]) -> np.ndarray:
    """Masks, boxes and texts on a frame.

    Args:
        frame: uint8 (H, W, 3).
        objects: the first one on top.

    Returns:
        A new frame of the same size.
    """
    height, width = frame.shape[:2]
    pixels = frame.astype(np.float32)
    for one in reversed(objects):
        if one.mask is not None:
            mask = one.mask
            if isinstance(mask, Mapping):
                mask = decode_masks([mask], (height, width))[0].numpy()
            pixels[mask] += OPACITY * (np.array(colour_of(one.number)) - pixels[mask])
    picture = Image.fromarray(pixels.round().astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(max(10, round(min(height, width) / 32)))
    line = max(1, round(min(height, width) / 240))
    for one in reversed(objects):
        colour = colour_of(one.number)
        if one.box is not None:
            left, top, right, bottom = (float(side) for side in one.box)
            draw.rectangle(
                (left, top, max(right - 1, left), max(bottom - 1, top)), outline=colour, width=line
            )
        if one.text and one.box is not None:
            _write(draw, one.text, (left, top), font, colour, (width, height))
    return np.asarray(picture)


def colour_of(number: int) -> tuple[int, ...]:
    """The colour (R, G, B) of an object or class."""
    return COLOURS[number % len(COLOURS)]


def _write(draw, text: str, corner, font, colour: tuple[int, ...], limits: tuple[int, int]) -> None:
    """A text above a corner, or within the picture where there is no room above."""
    text = printable(text)
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    x = min(max(corner[0], 0), max(limits[0] - right, 0))
    y = corner[1] - bottom if corner[1] >= bottom else max(corner[1], 0)
    y = min(y, limits[1] - bottom)
    draw.rectangle((x, y, x + right, y + bottom + 1), fill=colour)
    dark = sum(part * share for part, share in zip(colour, (0.3, 0.59, 0.11), strict=True)) > 140
    draw.text((x, y), text, font=font, fill=(0, 0, 0) if dark else (255, 255, 255))


def draw_labels(frame: np.ndarray, labels: np.ndarray, ignored: int = 255) -> np.ndarray:
    """A label map over a frame: class 0 stays as it is, what is ignored is darkened.

    Args:
        frame: uint8 (H, W, 3).
        labels: classes (H, W).
        ignored: label of pixels that do not count.
    """
    table = np.array([colour_of(max(k - 1, 0)) for k in range(256)], dtype=np.float32)
    pixels = frame.astype(np.float32)
    shown = (labels != 0) & (labels != ignored)
    pixels[shown] += OPACITY * (table[labels[shown]] - pixels[shown])
    pixels[labels == ignored] *= 0.4
    return pixels.round().astype(np.uint8)


def plot_precision_recall(
    scores: Mapping[str, AveragePrecision], names: Sequence[str], path: Path
) -> None:
    """Precision over recall, one panel per kind of scores.

    Thin lines are categories at an overlap of 0.5, the best and worst where there are many; thick
    ones the mean over categories at 0.5, 0.75 and 0.9.

    Args:
        scores: by their kind, such as "boxes" and "masks".
        names: of the categories, in their order.
        path: the PNG file.
    """
    figure = Figure(figsize=(6.4 * len(scores), 4.6), layout="constrained")
    panels = figure.subplots(1, len(scores), squeeze=False)[0]
    for axes, (kind, found) in zip(panels, scores.items(), strict=True):
        for k in _shown_categories(found):
            curve = found.curve(0.5, found.categories[k])
            axes.plot(found.recalls, curve, lw=0.8, alpha=0.7, label=names[k])
        for threshold, style in ((0.5, "-"), (0.75, "--"), (0.9, ":")):
            label = f"mean at {threshold}: {100 * max(found.average(threshold), 0):.1f}"
            curve = found.curve(threshold)
            if (curve > -1).all():
                axes.plot(found.recalls, curve, style, color="black", lw=2, label=label)
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
        axes.set_title(f"{kind}: AP {100 * max(found.average(), 0):.1f}", fontsize=10)
        axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5))
    save_figure(figure, path)


def _shown_categories(found: AveragePrecision) -> list[int]:
    """The places of the categories with objects; of many the best and the worst."""
    values = found.per_category()
    places = [k for k, category in enumerate(found.categories) if values[category] > -1]
    if len(places) == 1:
        return []  # its curve is the mean
    places.sort(key=lambda k: -values[found.categories[k]])
    if len(places) <= MOST_CURVES:
        return places
    return places[: MOST_CURVES // 2] + places[-(MOST_CURVES // 2) :]


def image_errors(
    truth: Sequence[Mapping[str, Any]],
    found: Sequence[Mapping[str, Any]],
    *,
    threshold: float = 0.5,
    least_score: float = 0.5,
) -> float:
    """How wrong the detections of one image are: 1 - F1, from 0 (all found, no more) to 1.

    Args:
        truth: annotations of COCO with ``segmentation`` as run lengths, or with ``bbox`` alone.
        found: detections alike, with ``score``.
        threshold: of the overlap from which on an object is found.
        least_score: detections below do not count.
    """
    objects = [one for one in truth if not one.get("iscrowd")]
    found = sorted((one for one in found if one["score"] >= least_score), key=_falling)
    if not objects and not found:
        return 0.0
    key = "segmentation" if all(one.get("segmentation") for one in (*objects, *found)) else "bbox"
    ious = mask_overlaps(
        [one[key] for one in found], [one[key] for one in objects], [False] * len(objects)
    )
    free, right = set(range(len(objects))), 0
    for k, one in enumerate(found):
        same = [n for n in free if objects[n]["category_id"] == one["category_id"]]
        best = max(same, key=lambda n: ious[k, n], default=None)
        if best is not None and ious[k, best] >= threshold:
            free.remove(best)
            right += 1
    return 1 - 2 * right / (len(objects) + len(found))


def _falling(one: Mapping[str, Any]) -> float:
    return -one["score"]


def plot_worst(
    images: Sequence[tuple[str, np.ndarray, np.ndarray]], path: Path, columns: int = 3
) -> None:
    """A contact sheet of images, each with the truth on the left and what was found on the right.

    Args:
        images: (title, truth, found) with drawn frames, uint8 (H, W, 3).
        path: the PNG file.
        columns: pairs beside one another.
    """
    rows = max(1, math.ceil(len(images) / columns))
    figure = Figure(figsize=(5.4 * columns, 2.6 * rows), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels:
        axes.set_axis_off()
    for axes, (title, truth, found) in zip(panels, images, strict=False):
        gap = np.full((truth.shape[0], max(2, truth.shape[1] // 60), 3), 255, dtype=np.uint8)
        axes.imshow(np.concatenate((truth, gap, found), axis=1))
        axes.set_title(title, fontsize=8)
    figure.suptitle("truth | found", fontsize=9)
    save_figure(figure, path)
