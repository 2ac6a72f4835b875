"""Objects and label maps of every frame of videos and images."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from videonet.data.decode import PyAVReader, VideoInfo, VideoReader
from videonet.data.loading.build import evaluation_views
from videonet.data.masks import encode_masks, mask_boxes
from videonet.data.targets import Targets
from videonet.data.transforms.batch import normalize
from videonet.devices import autocast_dtype, select_device
from videonet.errors import ConfigError, DecodeError, ScoreError
from videonet.inference.inputs import Video, open_input
from videonet.inference.predictor import Predictor
from videonet.inference.pretrained import read_pretrained
from videonet.tasks import RecordTask
from videonet.tasks.instance_segmentation import InstanceSegmentation
from videonet.tasks.object_scores import Track
from videonet.tasks.semantic_segmentation import SemanticSegmentation
from videonet.tasks.tracks import TrackJoiner, tracks_of
from videonet.tasks.trained_model import TrainedModel, load_trained_model
from videonet.terminal import ShortRepr

READ = 16  # frames at a time, where they do not come one after the other


@dataclass(frozen=True, repr=False)
class Piece(ShortRepr):
    """Some consecutive frames of a video, and what is in them.

    Attributes:
        start: number of the first frame in the video.
        frames: uint8 (T, H, W, 3).
        tracks: objects, with one box and mask, or None, for each frame; their numbers are those of
            the whole video. Empty for a segmentation.
        label_maps: classes of every pixel, integers (T, H, W); None for a detector.
        fps: frames per second of the video.
    """

    start: int
    frames: np.ndarray
    tracks: list[Track]
    label_maps: Tensor | None
    fps: float


@dataclass(frozen=True, repr=False)
class DensePrediction(ShortRepr):
    """What is in the frames of a video or image.

    Attributes:
        names: of the classes.
        length, height, width: of the video: frames and pixels.
        fps: frames per second; 0 for an image.
        tracks: objects over all frames, the best first; empty for a segmentation.
        label_maps: classes of every pixel, integers (T, H, W); None for a detector.
    """

    names: list[str]
    length: int
    height: int
    width: int
    fps: float
    tracks: list[Track]
    label_maps: Tensor | None

    def annotations(self, number: int = 1) -> list[dict[str, Any]]:
        """The objects in the form of COCO for an image, of YouTube-VIS for a video; JSON.

        Args:
            number: of the image or video.
        """
        return [annotation_of(track, number, self.length, self.fps > 0) for track in self.tracks]


def annotation_of(track: Track, number: int, length: int, video: bool) -> dict[str, Any]:
    """An object as JSON: COCO's for an image, YouTube-VIS's for a video.

    ``track_id`` is the number of the object in its video; categories are counted from 1.
    """
    boxes = [None if box is None else [round(value, 2) for value in box] for box in track.boxes]
    found: dict[str, Any] = {"track_id": track.number, "category_id": track.label + 1}
    found["score"] = round(track.score, 4)
    masks: list[Any] = list(track.masks) or [None] * length
    if video:
        return {"video_id": number, **found, "bboxes": boxes, "segmentations": masks}
    return {"image_id": number, **found, "bbox": boxes[0], "segmentation": masks[0]}


class DensePredictor:
    """A detector or segmenter with all that is needed to run it on videos and images.

    Every frame is seen once: a video is cut into pieces of ``DATA.NUM_FRAMES`` frames, whose tracks
    are joined. Several threads may use one predictor.

    Args:
        model: of the task.
        cfg: how pictures are made (``DATA``, ``TEST``) and where the model runs.
        task: what the model was trained for.

    Attributes:
        task: says what is made of the model's outputs.
        class_names: of the classes.
        origin: the file that the weights come from; empty where none is known.
    """

    def __init__(self, model: nn.Module, cfg: CfgNode, task: RecordTask):
        self.device = select_device(cfg.DEVICE)
        self.model = model.to(self.device).eval()
        self.cfg, self.task, self.class_names = cfg, task, task.output_names
        self.origin = ""
        self.lock = threading.RLock()
        self._views = evaluation_views(cfg)

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: str | Path,
        *,
        cfg: str | Path | None = None,
        overrides: Sequence[str] = (),
    ) -> DensePredictor:
        """A predictor with the weights and the configuration of a checkpoint.

        Args:
            checkpoint: a checkpoint, or the folder of a run (its newest checkpoint).
            cfg: YAML file; None for the configuration stored in the checkpoint.
            overrides: ``KEY VALUE`` pairs on top of the configuration.

        Raises:
            ConfigError: the model is of another task.
            CheckpointError: the checkpoint cannot be used.
        """
        content, config, origin = read_pretrained(checkpoint, cfg, overrides)
        return cls.of(load_trained_model(content, config, origin=origin), origin)

    @classmethod
    def of(cls, trained: TrainedModel, origin: str) -> DensePredictor:
        """A predictor of a model that is loaded.

        Args:
            trained: the model and its task.
            origin: see :attr:`origin`.

        Raises:
            ConfigError: the model is of another task.
        """
        if not isinstance(trained.task, RecordTask):
            raise ConfigError(
                f"{origin} is a model of {trained.task.cfg.MODEL.TASK}, whose results are not of "
                "single frames: use videonet.Predictor, or videonet predict without --task"
            )
        predictor = cls(trained.model, trained.task.cfg, trained.task)
        predictor.origin = origin
        return predictor

    @property
    def finds_objects(self) -> bool:
        """Whether results are objects; else they are label maps."""
        return isinstance(self.task, InstanceSegmentation)

    def __call__(
        self, video: Video, *, least_score: float = 0.3, fps: float | None = None
    ) -> DensePrediction:
        """What is in the frames of a video or image, all in memory; see :meth:`pieces`.

        Args:
            video: see :class:`videonet.Predictor`.
            least_score: mean score of an object over its frames; others are left out.
            fps: frames per second of frames in memory.

        Raises:
            DecodeError: the video cannot be read.
            ScoreError: the model's numbers are not finite.
        """
        lengths, tracks, maps = list[int](), list[list[Track]](), list[Tensor]()
        size, rate = (0, 0), 0.0
        for piece in self.pieces(video, fps=fps):
            size, rate = (piece.frames.shape[1], piece.frames.shape[2]), piece.fps
            lengths.append(len(piece.frames))
            tracks.append(piece.tracks)
            if piece.label_maps is not None:
                maps.append(piece.label_maps)
        whole = [t for t in whole_tracks(tracks, lengths) if t.score >= least_score]
        joined = torch.cat(maps) if maps else None
        return DensePrediction(self.class_names, sum(lengths), *size, rate, whole, joined)

    def pieces(self, video: Video, *, fps: float | None = None) -> Iterator[Piece]:
        """What is in the frames of a video, piece by piece; memory holds a few of them.

        Args:
            video: see :class:`videonet.Predictor`.
            fps: frames per second of frames in memory.

        Raises:
            DecodeError: the video cannot be read, or its frames differ in size.
            ScoreError: the model's numbers are not finite.
        """
        with open_input(video, self._views, fps) as reader:
            yield from self.pieces_of(frames_of(reader), _rate(reader.info), TrackJoiner())

    @torch.inference_mode()
    def pieces_of(
        self, frames: Iterable[np.ndarray], fps: float, joiner: TrackJoiner, start: int = 0
    ) -> Iterator[Piece]:
        """What is in some consecutive frames of a video, piece by piece.

        Args:
            frames: uint8 (H, W, 3). Where more of the video follow in another call, a multiple of
                ``DATA.NUM_FRAMES``, so that the video is cut into the same pieces.
            fps: frames per second of the video.
            joiner: of the video; it knows the tracks of the frames before.
            start: number of the first frame in the video.

        Raises:
            DecodeError: the frames differ in size.
            ScoreError: the model's numbers are not finite.
        """
        source, length = iter(frames), self.cfg.DATA.NUM_FRAMES
        while clips := self._next_clips(source, length):
            for clip, found in zip(clips, self._run(clips, length), strict=True):
                tracks: list[Track] = []
                maps: Tensor | None = None
                if self.finds_objects:
                    tracks = joiner.join(tracks_of(found[: len(clip)]), start)
                else:
                    maps = found[: len(clip)]
                yield Piece(start, clip, tracks, maps, fps)
                start += len(clip)

    def _next_clips(self, frames: Iterator[np.ndarray], length: int) -> list[np.ndarray]:
        """The next pieces (T, H, W, 3), as many as the model sees at a time."""
        clips: list[np.ndarray] = []
        while len(clips) < self.cfg.TEST.BATCH_SIZE and (part := list(islice(frames, length))):
            sizes = {frame.shape[:2] for frame in part} | {clip.shape[1:3] for clip in clips}
            if len(sizes) > 1:
                found = " and ".join(f"{width} x {height}" for height, width in sorted(sizes))
                raise DecodeError(f"the frames of the video differ in size: {found}")
            clips.append(np.stack(part))
        return clips

    def _run(self, clips: Sequence[np.ndarray], length: int) -> list[Any]:
        """What the task makes of some clips, the last of which may be shorter than the others."""
        whole = self._views.whole
        assert whole is not None  # dense tasks see whole pictures
        shown, sizes = list[Tensor](), list[Tensor]()
        for clip in clips:
            pixels = torch.from_numpy(clip).permute(0, 3, 1, 2)  # (T, 3, H, W)
            pixels = torch.cat((pixels, pixels[-1:].expand(length - len(pixels), -1, -1, -1)))
            changed, targets = whole(pixels, {"size": torch.tensor(pixels.shape[2:])})
            shown.append(changed.transpose(0, 1))
            sizes.append(targets["size"])
        batch = torch.stack(shown).to(self.device)
        heights = torch.tensor([clip.shape[1:3] for clip in clips])
        targets = Targets({"size": torch.stack(sizes), "whole": heights})
        data, dtype = self.cfg.DATA, autocast_dtype(self.cfg, self.device)
        with (
            self.lock,
            torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None),
        ):
            found = self.task.run(self.model, normalize(batch, data.MEAN, data.STD), targets)
        if any(one is None for one in found):
            raise ScoreError(
                f"the model{f' of {self.origin}' if self.origin else ''} gives numbers that are "
                "not finite"
            )
        return found


def load_predictor(
    checkpoint: str | Path, *, overrides: Sequence[str] = ()
) -> Predictor | DensePredictor:
    """A predictor of the kind that the model of a checkpoint needs.

    Args:
        checkpoint: see :meth:`Predictor.from_pretrained`.
        overrides: ``KEY VALUE`` pairs on top of the configuration.

    Raises:
        ConfigError, CheckpointError: it cannot be fetched, read or used.
    """
    content, config, origin = read_pretrained(checkpoint, None, overrides)
    trained = load_trained_model(content, config, origin=origin)
    if isinstance(trained.task, InstanceSegmentation | SemanticSegmentation):
        return DensePredictor.of(trained, origin)
    return Predictor.of(trained, origin)


def frames_of(reader: VideoReader) -> Iterator[np.ndarray]:
    """The frames of an open video in their order, uint8 (H, W, 3)."""
    if isinstance(reader, PyAVReader):
        for _, picture in reader.forwards():
            yield np.ascontiguousarray(picture())
        return
    for start in range(0, reader.info.frames, READ):
        stop = min(start + READ, reader.info.frames)
        yield from reader.frames_at(range(start, stop)).numpy()


def _rate(info: VideoInfo) -> float:
    return info.fps if info.frames > 1 else 0.0


def whole_tracks(pieces: Sequence[Iterable[Track]], lengths: Sequence[int]) -> list[Track]:
    """The tracks of a video from those of its consecutive pieces, the best first.

    Args:
        pieces: the tracks of each, numbered for the whole video.
        lengths: frames of each.
    """
    total, first = sum(lengths), 0
    parts: dict[int, list[tuple[int, Track]]] = {}
    for tracks, length in zip(pieces, lengths, strict=True):
        for track in tracks:
            parts.setdefault(track.number, []).append((first, track))
        first += length
    whole = [_joined(number, found, total) for number, found in parts.items()]
    return sorted(whole, key=lambda track: -track.score)


def class_tracks(label_maps: Tensor) -> list[Track]:
    """The classes of label maps (T, H, W) as tracks, numbered like the classes.

    The score of a class in a frame is its share of the pixels.
    """
    count, height, width = label_maps.shape
    found: dict[int, tuple[list[Any], list[Any], list[float]]] = {}
    for t, labels in enumerate(label_maps.numpy()):
        areas = np.bincount(labels.ravel())
        for label in np.flatnonzero(areas).tolist():
            (mask,) = encode_masks((labels == label)[None])
            empty = ([None] * count, [None] * count, [0.0] * count)
            boxes, masks, shares = found.setdefault(label, empty)
            boxes[t], masks[t] = mask_boxes([mask])[0].tolist(), mask
            shares[t] = float(areas[label]) / (height * width)
    return [
        Track(
            label, label, tuple(boxes), tuple(masks), score=sum(shares) / sum(map(bool, boxes)),
            scores=tuple(shares),
        )
        for label, (boxes, masks, shares) in sorted(found.items())
    ]  # fmt: skip


def _joined(number: int, parts: Sequence[tuple[int, Track]], total: int) -> Track:
    boxes: list[Any] = [None] * total
    masks: list[Any] = [None] * total
    scores = [0.0] * total
    for first, track in parts:
        for k, box in enumerate(track.boxes):
            if box is not None:
                boxes[first + k] = box
                masks[first + k] = track.masks[k] if track.masks else None
                scores[first + k] = track.scores[k]
    present = [score for score, box in zip(scores, boxes, strict=True) if box is not None]
    with_masks = any(mask is not None for mask in masks)
    return Track(
        parts[0][1].label,
        number,
        tuple(boxes),
        tuple(masks) if with_masks else (),
        score=sum(present) / len(present),
        scores=tuple(scores),
    )
