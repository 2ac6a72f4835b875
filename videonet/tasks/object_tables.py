"""What an evaluation of objects leaves on disk: detections as JSON, tables and pictures."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from videonet.data.datasets.objects import Frames
from videonet.data.decode import open_video
from videonet.data.tables import write_table
from videonet.errors import DecodeError
from videonet.files import replacing_text
from videonet.tasks.dense_plots import (
    DrawnObject,
    draw_objects,
    image_errors,
    plot_precision_recall,
    plot_worst,
)
from videonet.tasks.object_evaluation import ObjectEvaluation
from videonet.tasks.object_scores import ObjectRecord, Track, image_tables, video_tables

logger = logging.getLogger(__name__)

PICTURES = 6  # of the worst images, and of examples
DRAWN_SCORE = 0.5  # from which on detections are drawn


def write_objects(
    folder: Path, evaluation: ObjectEvaluation, paths: Sequence[str], names: Sequence[str]
) -> None:
    """Write the tables and pictures of an evaluation.

    ``detections.json`` (as results of COCO, or of YouTube-VIS where there are videos; categories
    are counted from 1 in the order of the classes), ``per_class.csv``, ``precision_recall.png``,
    ``examples.png`` and ``worst.png``: images evenly spread over the data set, and those with the
    most errors, each with the truth on the left.

    Raises:
        WriteError: a file cannot be written.
    """
    _write_detections(folder / "detections.json", evaluation)
    scores = evaluation.scores
    kinds = {kind: found.per_category() for kind, found in scores.items()}
    rows = [
        [name, *(round(100 * of[k], 3) if of[k] >= 0 else "" for of in kinds.values())]
        for k, name in enumerate(names)
    ]
    write_table(folder / "per_class.csv", ["class", *(f"{kind}_AP" for kind in kinds)], rows)
    plot_precision_recall(scores, names, folder / "precision_recall.png")
    places = _frames_by_error(evaluation.records)
    spread = sorted(places, key=lambda one: one[1:])
    step = max(1, len(spread) // PICTURES)
    for file, chosen in (
        ("worst.png", places[:PICTURES]),
        ("examples.png", spread[::step][:PICTURES]),
    ):
        drawn = [pair for one in chosen if (pair := _drawn(evaluation, paths, names, *one))]
        if drawn:
            plot_worst(drawn, folder / file, columns=2)


def _write_detections(path: Path, evaluation: ObjectEvaluation) -> None:
    num_classes, records = evaluation.task.num_outputs, evaluation.records
    if any(record.length > 1 or record.start for record in records):
        _, found = video_tables(records, num_classes)
        found = [{k: v for k, v in one.items() if k != "iscrowd"} for one in found]
    else:
        _, found = image_tables(records, num_classes)
        videos = [record.video for record in records]
        found = [
            {k: v for k, v in one.items() if k != "iscrowd"}
            | {"image_id": videos[one["image_id"] - 1]}
            for one in found
        ]
    with replacing_text(path) as file:
        json.dump([one | {"category_id": one["category_id"] + 1} for one in found], file)


def _frames_by_error(records: Sequence[ObjectRecord]) -> list[tuple[float, int, int]]:
    """(error, record, frame) of every frame, the worst first; one frame of each record."""
    found = []
    for number, record in enumerate(records):
        frame = record.length // 2
        truth = [_one(t, frame) for t in record.truth if t.boxes[frame] is not None]
        given = [_one(t, frame) for t in record.found if t.boxes[frame] is not None]
        found.append((image_errors(truth, given), number, frame))
    return sorted(found, key=lambda one: (-one[0], one[1]))


def _one(track: Track, frame: int) -> dict[str, Any]:
    return {
        "bbox": track.boxes[frame],
        "segmentation": track.masks[frame] if track.masks else None,
        "category_id": track.label,
        "iscrowd": track.crowd,
        "score": track.scores[frame] if track.scores else track.score,
    }


def _drawn(
    evaluation: ObjectEvaluation,
    paths: Sequence[str],
    names: Sequence[str],
    error: float,
    number: int,
    frame: int,
) -> tuple[str, np.ndarray, np.ndarray] | None:
    """The title, truth and detections of a frame; None where it cannot be read any more."""
    record, path = evaluation.records[number], paths[int(evaluation.videos[number])]
    picture = frame_of(path, record.frames, record.start, frame)
    if picture is None:
        return None
    name = f"{Path(path).name} {record.start + frame}" if record.frames else Path(path).name
    truth = draw_objects(picture, drawn_tracks(record.truth, frame, names, scores=False))
    found = draw_objects(picture, drawn_tracks(record.found, frame, names))
    return f"{name}: error {error:.2f}", truth, found


def frame_of(path: str, frames: Frames, start: int, place: int) -> np.ndarray | None:
    """A frame of a video or image, uint8 (H, W, 3); None where it cannot be read.

    Args:
        path: of the file or folder.
        frames: see :class:`ObjectRecord`.
        start: the place of the first of the frames in the video, where they are counted.
        place: the place of the frame among them.
    """
    try:
        with open_video(path, frames=frames) as reader:
            index = place if frames is not None else min(start + place, reader.info.frames - 1)
            picture: np.ndarray = reader.frames_at([index])[0].numpy()
            return picture
    except DecodeError as error:
        logger.warning("no picture of %s: %s", path, error)
        return None


def drawn_tracks(
    tracks: Iterable[Track],
    frame: int,
    names: Sequence[str],
    *,
    scores: bool = True,
    least_score: float = DRAWN_SCORE,
) -> list[DrawnObject]:
    """What :func:`draw_objects` draws of the tracks in a frame, the best first.

    Args:
        tracks: true ones, or those that were found.
        frame: its place.
        names: of the classes.
        scores: write the scores, and leave out what is below `least_score`.
    """
    several = len(names) > 1
    found: list[tuple[float, DrawnObject]] = []
    for track in tracks:
        box = track.boxes[frame]
        score = track.scores[frame] if track.scores else track.score
        if box is None or (scores and score < least_score):
            continue
        words = [names[track.label]] if several else []
        if scores:
            words.append(f"{score:.2f}")
        x, y, width, height = box
        mask = track.masks[frame] if track.masks else None
        drawn = DrawnObject((x, y, x + width, y + height), " ".join(words), mask, track.number)
        found.append((score, drawn))
    return [one for _, one in sorted(found, key=lambda pair: -pair[0])]
