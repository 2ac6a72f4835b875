"""Boxes, masks and label maps of the frames of an upload."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from videonet.inference.dense import DensePredictor, class_tracks, whole_tracks
from videonet.inference.dense_files import CocoContent
from videonet.inference.predictor import Predictor
from videonet.serving.decoding import CHUNK_BYTES, Facts, Frames
from videonet.serving.jobs import Jobs
from videonet.serving.limits import Refusal
from videonet.serving.results import KEPT_BYTES
from videonet.serving.schemas import FoundObject, ModelResult, Score
from videonet.serving.uploads import Upload
from videonet.tasks.object_scores import Track
from videonet.tasks.tracks import TrackJoiner


def finds(model: Predictor | DensePredictor) -> str:
    """What a model finds: "labels" of videos, "objects" or "label_maps" of frames."""
    if isinstance(model, Predictor):
        return "labels"
    return "objects" if model.finds_objects else "label_maps"


@dataclass
class _Found:
    """What was found so far.

    Attributes:
        joiner: knows the tracks.
        times: of the frames in seconds.
        lengths: frames of each piece.
        tracks: of each piece.
        size: bytes of the masks.
    """

    joiner: TrackJoiner = field(default_factory=TrackJoiner)
    times: list[float] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    tracks: list[list[Track]] = field(default_factory=list)
    size: int = 0

    def take(
        self, predictor: DensePredictor, frames: Sequence[tuple[float, np.ndarray]], fps: float
    ) -> None:
        """Run the model on some more frames (seconds, picture)."""
        pictures = (picture for _, picture in frames)
        for piece in predictor.pieces_of(pictures, fps, self.joiner, len(self.times)):
            tracks = piece.tracks
            if piece.label_maps is not None:
                tracks = class_tracks(piece.label_maps)
            self.lengths.append(len(piece.frames))
            self.tracks.append(tracks)
            self.size += sum(len(m["counts"]) for t in tracks for m in t.masks if m is not None)
        self.times += [round(time, 6) for time, _ in frames]


async def dense_result(
    jobs: Jobs, upload: Upload, facts: Facts, name: str, min_score: float, top_k: int, token: str
) -> ModelResult:
    """What a detector or segmenter finds in an upload.

    Args:
        jobs: has the models, and decodes.
        upload: the video or picture.
        facts: about it.
        name: of the model.
        min_score: objects below are left out.
        top_k: the most that are named as the best.
        token: of the request.

    Raises:
        Refusal, DecodeError, ScoreError: it cannot be answered, and why.
    """
    predictor, most = jobs.dense[name], jobs.limits.max_frames
    if facts.frames > most:
        raise Refusal(
            422,
            f"{upload.name} has {facts.frames:,} frames, more than {most:,.0f}, the limit of this "
            f"server for a model that sees every frame",
        )
    count = _frames_of_a_step(predictor, facts)
    path, found = str(upload.path), _Found()
    async with jobs.steps(lambda first: Frames(path, first, count), count) as groups:
        async for frames in groups:
            await jobs.compute(found.take, predictor, frames, facts.fps)
            jobs.note(token, "scoring", len(found.times), facts.frames)
            if found.size > KEPT_BYTES:
                raise Refusal(
                    422,
                    f"the masks of {upload.name} take more than {KEPT_BYTES // 2**20} MiB, the "
                    "limit of this server: send fewer frames",
                )
    return await jobs.compute(_result, jobs, upload, facts, name, min_score, top_k, found)


def _frames_of_a_step(predictor: DensePredictor, facts: Facts) -> int:
    """Frames that are decoded together: whole batches of the model, or at least whole pieces."""
    length = predictor.cfg.DATA.NUM_FRAMES
    room = CHUNK_BYTES // (3 * facts.width * facts.height)
    for unit in (length * predictor.cfg.TEST.BATCH_SIZE, length):
        if unit <= room:
            return room // unit * unit
    return length


def _result(
    jobs: Jobs, upload: Upload, facts: Facts, name: str, min_score: float, top_k: int, found: _Found
) -> ModelResult:
    predictor = jobs.dense[name]
    maps, names = not predictor.finds_objects, predictor.class_names
    tracks = whole_tracks(found.tracks, found.lengths)
    if not maps:
        tracks = [track for track in tracks if track.score >= min_score]
    content = CocoContent(names)
    content.add(
        1, upload.name, tracks, size=(facts.height, facts.width), length=len(found.times),
        fps=facts.fps, video=not facts.is_picture, maps=maps,
    )  # fmt: skip
    kept = jobs.results.keep({"json": json.dumps(content.as_json())})
    return ModelResult(
        model=name,
        classes=names,
        top=[Score(label=names[t.label], score=round(t.score, 4)) for t in tracks[:top_k]],
        windows=[],
        segments=[],
        times=found.times,
        objects=[_object(track, names) for track in tracks],
        coco=f"/api/results/{kept}.json",
    )


def _object(track: Track, names: Sequence[str]) -> FoundObject:
    boxes = [None if b is None else tuple(round(value, 2) for value in b) for b in track.boxes]
    return FoundObject(
        number=track.number,
        label=names[track.label],
        score=round(track.score, 4),
        scores=[round(score, 4) for score in track.scores],
        boxes=boxes,
        masks=[None if mask is None else mask["counts"] for mask in track.masks],
    )
