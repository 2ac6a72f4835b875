"""Labelled videos as clips: one item is one video, read once.

Every draw is made by a generator seeded with the run's seed, the epoch, the video and the number
of the clip, so an item is the same whichever worker makes it and whatever was made before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from videonet.data.datasets.arrays import MultiHot, PathArray
from videonet.data.datasets.lists import VideoList
from videonet.data.decode import FRAMES_FPS, Encoded, VideoInfo, VideoReader, open_video
from videonet.data.loading.padding import trimmed
from videonet.data.preparing.manifest import Manifest
from videonet.data.targets import Annotations, ClipFrames, TargetMaker, Targets
from videonet.data.transforms.geometry import Size
from videonet.data.transforms.sampling import ClipSampler
from videonet.data.transforms.views import read_frames, to_batch, video_views
from videonet.data.video.frame_store import FrameStore
from videonet.errors import DataError, DecodeError
from videonet.terminal import ShortRepr

if TYPE_CHECKING:  # of training and dense tasks, and need torchvision
    from torchvision.transforms import v2

    from videonet.data.transforms.clip import InceptionCrop, JitterCrop
    from videonet.data.transforms.dense import PictureCrop, WholePicture
    from videonet.data.transforms.patches import PatchCut


@dataclass(frozen=True)
class Failure:
    """A video that could not be read, and why.

    Attributes:
        index: of the video in its list.
        path: its file.
        reason: one sentence.
    """

    index: int
    path: str
    reason: str


@dataclass(repr=False)
class Batch(ShortRepr):
    """Clips of some videos, all clips of a video after one another.

    Attributes:
        clips: uint8 (N, 3, T, H, W).
        targets: of the clips, by name.
        videos: index of each clip's video, (N,) int64.
        failures: the videos that could not be read on the way.
    """

    clips: Tensor
    targets: Targets
    videos: Tensor
    failures: list[Failure] = field(default_factory=list)

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory."""
        clips, videos = self.clips.pin_memory(), self.videos.pin_memory()
        return Batch(clips, self.targets.pin_memory(), videos, self.failures)


class Sample(NamedTuple):
    """Clips of one video.

    Attributes:
        clips: uint8 (N, 3, T, H, W).
        targets: of each clip, by name; empty where the data set has none.
    """

    clips: Tensor
    targets: list[dict[str, Tensor]]


@dataclass(frozen=True)
class TrainingClips:
    """Makes random clips of a video, whose frames are decoded once.

    Attributes:
        sampler: draws the frames of a clip.
        crop: draws the crop of a clip.
        augment: what follows the crop.
        count: the number of clips.
        backend: see :func:`~videonet.data.decode.open_video`.
        frames_fps: frame rate of pictures.
        maker: of the clips' targets; None for none.
        canvas: height and width that ``augment`` pads clips to; None where ``crop`` cuts all of
            them to one size.
        multiple: a batch is cut to its largest picture, up to a multiple of this; 0 leaves it.
        store: keeps decoded frames; None decodes them for every clip.
    """

    sampler: ClipSampler
    crop: JitterCrop | InceptionCrop | PictureCrop | PatchCut
    augment: v2.Compose
    count: int = 1
    backend: str = "auto"
    frames_fps: float = FRAMES_FPS
    maker: TargetMaker | None = None
    canvas: Size | None = None
    multiple: int = 0
    store: FrameStore | None = None

    @property
    def clip_shape(self) -> tuple[int, int, int, int]:
        return 3, self.sampler.num_frames, *(self.canvas or self.crop.shape)

    def __call__(
        self,
        path: str,
        key: tuple[int, ...],
        known: VideoInfo | None = None,
        annotation: Any = None,
        out: Tensor | None = None,
    ) -> Sample:
        """Clips uint8 (count, 3, T, H, W) and targets, the same for the same path and key.

        Args:
            path: of the video.
            key: seed of all draws.
            known: what a manifest says of the video.
            annotation: what the targets are made from; None for no targets.
            out: receives the clips.

        Raises:
            DecodeError: the video cannot be read.
        """
        rngs = [np.random.default_rng((*key, sample)) for sample in range(self.count)]
        with self.open(path, known, _frames_of(self, annotation)) as reader:
            indices = self.choose(reader, rngs)
            targets = [
                _make_targets(self, annotation, reader, (*key, sample), row)
                for sample, row in enumerate(indices)
            ]
            frames, rows = read_frames(reader, indices)
        changed = self.change(frames, rows, rngs, targets)
        clips = to_batch([clip for clip, _ in changed], out)
        return Sample(clips, _finish_targets(self, annotation, [moved for _, moved in changed]))

    def choose(self, reader: VideoReader, rngs: list[np.random.Generator]) -> np.ndarray:
        """Numbers of the frames of a clip for every generator, (clips, T)."""
        info, times = reader.info, reader.times
        return np.stack([self.sampler.random(info.frames, info.fps, rng, times) for rng in rngs])

    def open(
        self,
        path: str,
        known: VideoInfo | None = None,
        frames: Sequence[str] | Sequence[int] | None = None,
    ) -> VideoReader:
        """The video at about the size that its clips are cropped from."""
        opened = partial(
            open_video,
            path,
            self.backend,
            self.crop.decode_side,
            allow_larger=True,
            known=known,
            frames_fps=self.frames_fps,
            frames=frames,
        )
        if self.store is None or frames is not None:
            return opened()
        return self.store.open(path, (self.backend, self.crop.decode_side), opened)

    def change(
        self,
        frames: Tensor,
        rows: Tensor,
        rngs: list[np.random.Generator],
        targets: list[dict[str, Tensor]],
    ) -> list[tuple[Tensor, dict[str, Tensor]]]:
        """Crop and augment every clip with the draws of its generator.

        Args:
            frames: the decoded frames, uint8 (distinct, 3, H, W).
            rows: which of them each clip takes, (clips, T).
            rngs: one generator per clip.
            targets: of each clip, with places in whole frames.

        Returns:
            Each clip (T, 3, crop, crop) with its targets, moved as its pixels.
        """
        samples = []
        with torch.random.fork_rng(devices=[]):
            for row, rng, of_clip in zip(rows, rngs, targets, strict=True):
                # That of the CPU alone: torch.manual_seed touches every kind of device.
                torch.default_generator.manual_seed(int(rng.integers(2**63)))
                samples.append(self.augment(*self.crop(frames, of_clip, rows=row)))
        return samples


@dataclass(frozen=True)
class EvaluationViews:
    """Makes all views of a video: clips at `temporal` times, each cropped `spatial` times.

    Attributes:
        sampler: chooses the frames of the clips.
        crop_size: pixels.
        temporal: the number of clips over time.
        spatial: the number of crops of a clip, 1 or 3.
        backend: see :func:`~videonet.data.decode.open_video`.
        frames_fps: frame rate of pictures.
        crop_ratio: the crop's share of the short side.
        interpolation: of the resizing; bilinear is done by the decoder.
        maker: of the views' targets; None for none.
        whole: what becomes of a clip instead of crops; None for crops.
        multiple: as that of :class:`TrainingClips`.
    """

    sampler: ClipSampler
    crop_size: int
    temporal: int = 1
    spatial: int = 1
    backend: str = "auto"
    frames_fps: float = FRAMES_FPS
    crop_ratio: float = 1.0
    interpolation: str = "bilinear"
    maker: TargetMaker | None = None
    whole: WholePicture | PatchCut | None = None
    multiple: int = 0

    @property
    def count(self) -> int:
        return self.temporal * self.spatial

    @property
    def short_side(self) -> int:
        """Of the frames that the crops are taken from."""
        return round(self.crop_size / self.crop_ratio)

    @property
    def clip_shape(self) -> tuple[int, int, int, int]:
        shape = (self.crop_size, self.crop_size) if self.whole is None else self.whole.shape
        return 3, self.sampler.num_frames, *shape

    def __call__(
        self,
        path: str,
        key: tuple[int, ...] = (),
        known: VideoInfo | None = None,
        annotation: Any = None,
        out: Tensor | None = None,
    ) -> Sample:
        """Views uint8 (temporal * spatial, 3, T, H, W) and their targets; nothing is random.

        The arguments are those of :meth:`TrainingClips.__call__`.
        """
        with self.open(path, known, _frames_of(self, annotation)) as reader:
            views, targets = self.of(reader, annotation, key)
        return Sample(views if out is None else out.copy_(views), targets)

    def open(
        self,
        path: Encoded,
        known: VideoInfo | None = None,
        frames: Sequence[str] | Sequence[int] | None = None,
    ) -> VideoReader:
        """The video at the size that its views are cropped from."""
        by_decoder = self.whole is None and self.interpolation == "bilinear"
        side = self.short_side if by_decoder else None
        return open_video(
            path, self.backend, side, known=known, frames_fps=self.frames_fps, frames=frames
        )

    def of(self, reader: VideoReader, annotation: Any = None, key: tuple[int, ...] = ()) -> Sample:
        """The views of an open video."""
        views, targets = video_views(
            reader,
            self.sampler,
            crop_size=self.crop_size,
            temporal=self.temporal,
            spatial=self.spatial,
            short_side=self.short_side,
            targets_of=partial(_make_targets, self, annotation, reader, key),
            interpolation=self.interpolation,
            whole=self.whole,
        )
        return Sample(views, _finish_targets(self, annotation, targets))


def _frames_of(
    make_clips: TrainingClips | EvaluationViews, annotation: Any
) -> Sequence[str] | Sequence[int] | None:
    """The frames of a video that its annotation is about; None for all."""
    maker = make_clips.maker
    if maker is None or maker.frames is None or annotation is None:
        return None
    return maker.frames(annotation)


def _make_targets(
    make_clips: TrainingClips | EvaluationViews,
    annotation: Any,
    reader: VideoReader,
    seed: tuple[int, ...],
    indices: np.ndarray,
) -> dict[str, Tensor]:
    """The targets of the frames ``indices`` (T,), with places in whole frames."""
    if make_clips.maker is None or annotation is None:
        return {}
    frames = ClipFrames(reader.info, indices, reader.times[indices], seed)
    return dict(make_clips.maker.make(annotation, frames))


def _finish_targets(
    make_clips: TrainingClips | EvaluationViews,
    annotation: Any,
    targets: Iterable[dict[str, Tensor]],
) -> list[dict[str, Tensor]]:
    """The targets of each clip as batches hold them."""
    if make_clips.maker is None or annotation is None:
        return []
    return [make_clips.maker.finish(found, make_clips.clip_shape) for found in targets]


def annotations_of(videos: VideoList) -> Annotations:
    """Those that a list comes with, else its labels."""
    if videos.annotations is not None:
        return videos.annotations
    return Annotations.of_labels(videos.labels)


class VideoDataset(Dataset):
    """Videos of a list as :class:`Batch` items, indexed by (epoch, index).

    Args:
        videos: the list.
        make_clips: makes the clips of a video.
        seed: of all draws, with the epoch and the video.
        replace: a video that cannot be read gives way to another one, drawn by the same seed
            (training); without it the item has no clips (evaluation). Either is named in the
            batch's ``failures``.
        annotations: what ``make_clips.maker`` makes the targets from; None for none.
        manifest: what ``videonet data verify`` found; bad videos are not opened then.
    """

    MOST_IN_A_ROW = 20

    def __init__(
        self,
        videos: VideoList,
        make_clips: TrainingClips | EvaluationViews,
        *,
        seed: int = 0,
        replace: bool = False,
        annotations: Annotations | None = None,
        manifest: Manifest | None = None,
    ):
        self.videos, self.make_clips = videos, make_clips
        self.annotations = annotations
        self.seed, self.replace = seed, replace
        self.manifest = manifest
        self.bad: dict[int, str] = dict(manifest.bad) if manifest else {}  # not opened, and why

    @property
    def name(self) -> str:
        return self.videos.name

    @property
    def paths(self) -> PathArray:
        return self.videos.paths

    @property
    def labels(self) -> np.ndarray | MultiHot:
        return self.videos.labels

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, position: tuple[int, int]) -> Batch:
        request = SampleRequest(self, *position)
        while request.video is not None:
            try:
                sample = self.make_clips(*request.arguments())
            except DecodeError as error:
                request.fail(str(error))
            else:
                return self.batch(sample.clips, self.stack(sample.targets), [request])
        return self.batch(self.empty(0), self.stack([]), [request])

    def empty(self, clips: int) -> Tensor:
        """Room for so many clips."""
        return torch.empty((clips, *self.make_clips.clip_shape), dtype=torch.uint8)

    def stack(self, targets: list[dict[str, Tensor]]) -> Targets:
        """The targets of some clips as a batch holds them."""
        specs = {} if self.annotations is None else self.annotations.maker.specs
        return Targets.stack(targets, specs, self.make_clips.clip_shape)

    def fit(self, batch: Batch) -> Batch:
        """A batch of pictures of several sizes without the padding that all of them have."""
        if not self.make_clips.multiple or self.annotations is None:
            return batch
        specs, multiple = self.annotations.maker.specs, self.make_clips.multiple
        clips, targets = trimmed(batch.clips, batch.targets, specs, multiple)
        return replace(batch, clips=clips, targets=targets)

    def batch(self, clips: Tensor, targets: Targets, requests: list[SampleRequest]) -> Batch:
        """The batch of the clips of some videos, all clips of a video after one another."""
        read = [request.video for request in requests if request.video is not None]
        videos = torch.tensor(read, dtype=torch.int64).repeat_interleave(self.make_clips.count)
        failures = [failure for request in requests for failure in request.failures]
        return Batch(clips, targets, videos, failures)


class SampleRequest:
    """An item under way: the video that is tried, and those that failed before it.

    Attributes:
        video: the index of the video; None when none is left to try.
        failures: those before it.
    """

    def __init__(self, dataset: VideoDataset, epoch: int, index: int):
        self._dataset, self._epoch = dataset, epoch
        self.failures: list[Failure] = []
        self.video: int | None = index
        self._others = self._draw_others(index)
        if index in dataset.bad:
            self.fail(dataset.bad[index])

    def _draw_others(self, index: int) -> Iterator[int]:
        dataset = self._dataset
        if dataset.replace:
            rng = np.random.default_rng((dataset.seed, self._epoch, index))
            yield from rng.integers(len(dataset), size=dataset.MOST_IN_A_ROW - 1).tolist()

    @property
    def present(self) -> int:
        """The video that is tried; nobody asks when none is left."""
        if self.video is None:
            raise RuntimeError("no video is left to try")
        return self.video

    def arguments(self) -> tuple[str, tuple[int, ...], VideoInfo | None, Any]:
        """What ``make_clips`` needs for the present video."""
        dataset, video = self._dataset, self.present
        known = dataset.manifest.info(video) if dataset.manifest else None
        annotation = dataset.annotations.rows[video] if dataset.annotations else None
        return dataset.paths[video], (dataset.seed, self._epoch, video), known, annotation

    def fail(self, reason: str) -> None:
        """Note why the present video cannot be read, and go on to the next one.

        Raises:
            DataError: too many in a row have failed.
        """
        dataset = self._dataset
        while True:
            self.failures.append(Failure(self.present, dataset.paths[self.present], reason))
            self.video = next(self._others, None)
            if self.video not in dataset.bad:
                break
            reason = dataset.bad[self.video]
        if self.video is None and dataset.replace:
            raise DataError(
                f"{dataset.name}: {len(self.failures)} videos in a row cannot be read, "
                f"the last: {reason}"
            )


def collate(items: list[Batch]) -> Batch:
    """One batch of the items' clips, in their order."""
    return Batch(
        torch.cat([item.clips for item in items]),
        Targets.join([item.targets for item in items]),
        torch.cat([item.videos for item in items]),
        [failure for item in items for failure in item.failures],
    )
