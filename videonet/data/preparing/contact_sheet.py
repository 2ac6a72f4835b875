"""A picture of what the loader delivers: training and evaluation views side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from videonet.data.decode import Encoded, open_video
from videonet.data.loading.dataset import EvaluationViews, VideoDataset
from videonet.errors import DataError, DecodeError
from videonet.figures import save_figure

FRAMES = 6  # of a clip that are shown
_GAP = 4  # white pixels between two clips


def write_contact_sheet(
    path: Path,
    label: int,
    name: str,
    dataset: VideoDataset,
    views: EvaluationViews,
    *,
    videos: int = 4,
    epoch: int = 0,
) -> None:
    """Draw some videos of one class to a PNG, one a row.

    Left the clips that ``dataset`` makes for training in this epoch, right the middle one of the
    test's ``views``. A video that cannot be read is named in its row. Raises DataError for a
    class without videos.
    """
    chosen = [k for k in range(len(dataset)) if label in dataset.videos.classes_of(k)][:videos]
    if not chosen:
        raise DataError(f"{dataset.name} has no video of class {label} ({name})")
    rows = [_row(dataset, views, index, epoch) for index in chosen]
    title = f"{label} {name}: {dataset.make_clips.count} training clip(s) | test view"
    names = [Path(dataset.paths[index]).name for index in chosen]
    write_rows(path, title, list(zip(names, rows, strict=True)))


def write_rows(path: Path, title: str, rows: Sequence[tuple[str, np.ndarray | str]]) -> None:
    """Draw named pictures (H, W, 3), or what is said in the place of one, below one another."""
    figure = Figure(figsize=(14, 1.6 * len(rows) + 0.6), layout="constrained")
    axes = figure.subplots(len(rows), 1, squeeze=False)
    figure.suptitle(title)
    for axis, (name, row) in zip(axes[:, 0], rows, strict=True):
        axis.set_axis_off()
        axis.set_title(name, fontsize=7, loc="left")
        if isinstance(row, str):
            axis.text(0, 0.5, row, fontsize=7, wrap=True)
        else:
            axis.imshow(row)
    save_figure(figure, path, dpi=110)


def strip_of(video: Encoded, start: float, end: float | None, side: int = 128) -> np.ndarray | str:
    """Frames of a part of a video beside one another, or why it cannot be read.

    Args:
        video: a path, bytes, an open file.
        start: seconds.
        end: seconds; None for the end of the video.
        side: the short side of a frame in pixels.
    """
    try:
        with open_video(video, short_side=side) as reader:
            until = reader.times[-1] if end is None else end
            first, last = np.searchsorted(reader.times, [start - 1e-6, until + 1e-6])
            last = max(last - 1, first)
            count = min(FRAMES, last - first + 1)
            numbers = np.linspace(first, last, count).round().astype(int)
            frames = reader.frames_at(numbers.clip(0, reader.info.frames - 1))  # (n, H, W, 3)
    except DecodeError as error:
        return str(error)
    return np.concatenate(list(frames.numpy()), axis=1)


def _row(dataset: VideoDataset, views: EvaluationViews, index: int, epoch: int) -> np.ndarray | str:
    """Training clips and the middle test view of a video as one picture ``(H, W, 3)``."""
    video = dataset.paths[index]
    try:
        training = dataset.make_clips(video, (dataset.seed, epoch, index)).clips
        test = views(video).clips
    except DecodeError as error:
        return str(error)
    strips = [_strip(clip) for clip in (*training, test[len(test) // 2])]
    height = max(strip.shape[0] for strip in strips)
    parts: list[np.ndarray] = []
    for strip in strips:
        padding = ((0, height - strip.shape[0]), (0, _GAP), (0, 0))
        parts.append(np.pad(strip, padding, constant_values=255))
    return np.concatenate(parts, axis=1)


def _strip(clip: Tensor) -> np.ndarray:
    """Evenly spaced frames of a clip ``(3, T, H, W)`` beside one another, ``(H, n · W, 3)``."""
    count = min(FRAMES, clip.shape[1])
    frames = clip[:, torch.linspace(0, clip.shape[1] - 1, count).round().long()]
    return np.concatenate(list(frames.permute(1, 2, 3, 0).numpy()), axis=1)


def sheet_name(label: int, name: str) -> str:
    """A file name for the sheet of a class."""
    plain = "".join(letter if letter.isalnum() else "_" for letter in name).strip("_")
    return f"{label:03d}_{plain[:60]}.png"


def chosen_classes(dataset: VideoDataset, names: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Class numbers from names or numbers; all that have videos where none is wanted."""
    if not wanted:
        return sorted(
            {label for k in range(len(dataset)) for label in dataset.videos.classes_of(k)}
        )
    numbers = {name: k for k, name in enumerate(names)} | {str(k): k for k in range(len(names))}
    unknown = [name for name in wanted if name not in numbers]
    if unknown:
        raise DataError(f"there is no class {unknown[0]!r} in {dataset.name}")
    return [numbers[name] for name in wanted]
