"""Labelled videos as clips: one item is one video, read once.

Every draw is made by a generator seeded with the run's seed, the epoch, the video and the number
of the clip, so an item is the same whichever worker makes it and whatever was made before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2

from videonet.data.decode import FRAMES_FPS, VideoInfo, VideoReader, open_video
from videonet.data.lists import MultiHot, PathArray, VideoList
from videonet.data.manifest import Manifest
from videonet.data.sampling import ClipSampler
from videonet.data.transforms import InceptionCrop, JitterCrop
from videonet.data.views import read_frames, to_batch, video_views
from videonet.errors import DataError, DecodeError


@dataclass(frozen=True)
class Failure:
    """A video that could not be read, and why."""

    index: int
    path: str
    reason: str


@dataclass
class Batch:
    """Clips uint8 ``(N, 3, T, H, W)``; of each its label and its video's index, ``(N,)`` int64.

    Labels of a multi-label list are rows of zeros and ones, ``(N, classes)`` float32.
    """

    clips: Tensor
    labels: Tensor
    videos: Tensor
    failures: list[Failure] = field(default_factory=list)

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory."""
        tensors = (t.pin_memory() for t in (self.clips, self.labels, self.videos))
        return Batch(*tensors, self.failures)


@dataclass(frozen=True)
class TrainingClips:
    """Makes ``count`` random clips of a video; their frames are decoded once."""

    sampler: ClipSampler
    crop: JitterCrop | InceptionCrop
    augment: v2.Compose
    count: int = 1
    backend: str = "auto"
    frames_fps: float = FRAMES_FPS

    @property
    def clip_shape(self) -> tuple[int, int, int, int]:
        return 3, self.sampler.num_frames, self.crop.size, self.crop.size

    def __call__(
        self,
        path: str,
        key: tuple[int, ...],
        known: VideoInfo | None = None,
        out: Tensor | None = None,
    ) -> Tensor:
        """Clips uint8 ``(count, 3, T, H, W)``, the same for the same path and key.

        ``known`` is what a manifest says of the video; ``out`` receives the clips.
        """
        rngs = [np.random.default_rng((*key, sample)) for sample in range(self.count)]
        with self.open(path, known) as reader:
            frames, rows = self.read(reader, rngs)
        return to_batch(self.change(frames, rows, rngs), out)

    def read(self, reader: VideoReader, rngs: list[np.random.Generator]) -> tuple[Tensor, Tensor]:
        """The frames ``(distinct, 3, H, W)`` of a clip for every generator, and which it takes."""
        info, times = reader.info, reader.times
        return read_frames(
            reader,
            np.stack([self.sampler.random(info.frames, info.fps, rng, times) for rng in rngs]),
        )

    def open(self, path: str, known: VideoInfo | None = None) -> VideoReader:
        """The video at about the size that its clips are cropped from."""
        return open_video(
            path,
            self.backend,
            self.crop.decode_side,
            allow_larger=True,
            known=known,
            frames_fps=self.frames_fps,
        )

    def change(self, frames: Tensor, rows: Tensor, rngs: list[np.random.Generator]) -> list[Tensor]:
        """Crop and augment every clip ``frames[row]`` with the draws of its generator."""
        clips = []
        with torch.random.fork_rng(devices=[]):
            for row, rng in zip(rows, rngs, strict=True):
                torch.manual_seed(int(rng.integers(2**63)))
                clips.append(self.augment(self.crop(frames, row)))
        return clips


@dataclass(frozen=True)
class EvaluationViews:
    """Makes all ``temporal · spatial`` views of a video.

    ``crop_ratio``: the crop's share of the short side.
    """

    sampler: ClipSampler
    crop_size: int
    temporal: int = 1
    spatial: int = 1
    backend: str = "auto"
    frames_fps: float = FRAMES_FPS
    crop_ratio: float = 1.0

    @property
    def count(self) -> int:
        return self.temporal * self.spatial

    @property
    def short_side(self) -> int:
        """Of the frames that the crops are taken from."""
        return round(self.crop_size / self.crop_ratio)

    @property
    def clip_shape(self) -> tuple[int, int, int, int]:
        return 3, self.sampler.num_frames, self.crop_size, self.crop_size

    def __call__(
        self,
        path: str,
        key: tuple[int, ...] = (),
        known: VideoInfo | None = None,
        out: Tensor | None = None,
    ) -> Tensor:
        """Views uint8 ``(temporal · spatial, 3, T, H, W)``; nothing is random, ``key`` unused."""
        with self.open(path, known) as reader:
            views = self.of(reader)
        return views if out is None else out.copy_(views)

    def open(self, path: str, known: VideoInfo | None = None) -> VideoReader:
        """The video at the size that its views are cropped from."""
        return open_video(
            path, self.backend, self.short_side, known=known, frames_fps=self.frames_fps
        )

    def of(self, reader: VideoReader) -> Tensor:
        """The views of an open video."""
        return video_views(
            reader,
            self.sampler,
            crop_size=self.crop_size,
            temporal=self.temporal,
            spatial=self.spatial,
            short_side=self.short_side,
        )


class VideoDataset(Dataset):
    """Videos of a list as :class:`Batch` items, indexed by ``(epoch, index)``.

    ``replace``: a video that cannot be read gives way to another one, drawn by the same seed
    (training); without it the item has no clips (evaluation). Both are named in ``failures``.
    ``manifest``: what ``tools/data.py verify`` found; bad videos are not opened then.
    """

    MOST_IN_A_ROW = 20

    def __init__(
        self,
        videos: VideoList,
        make_clips: TrainingClips | EvaluationViews,
        *,
        seed: int = 0,
        replace: bool = False,
        manifest: Manifest | None = None,
    ):
        self.videos, self.make_clips = videos, make_clips
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
                clips = self.make_clips(*request.arguments())
            except DecodeError as error:
                request.fail(str(error))
            else:
                return self.batch(clips, [request])
        return self.batch(self.empty(0), [request])

    def empty(self, clips: int) -> Tensor:
        """Room for so many clips."""
        return torch.empty((clips, *self.make_clips.clip_shape), dtype=torch.uint8)

    def batch(self, clips: Tensor, requests: list[SampleRequest]) -> Batch:
        """The batch of the clips of some videos, all clips of a video after one another."""
        videos = [request.video for request in requests if request.video is not None]
        videos = np.repeat(np.array(videos, dtype=np.int64), self.make_clips.count)
        if self.videos.is_multi_label:
            rows = [self.labels[index] for index in videos]
            labels = np.stack(rows) if rows else np.empty((0, self.labels.num_classes), np.float32)
        else:
            labels = self.labels[videos]
        failures = [failure for request in requests for failure in request.failures]
        return Batch(clips, torch.from_numpy(labels), torch.from_numpy(videos), failures)


class SampleRequest:
    """An item under way: the video that is tried, and those that failed before it.

    ``video`` is None when none is left to try.
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

    def arguments(self) -> tuple[str, tuple[int, ...], VideoInfo | None]:
        """What ``make_clips`` needs for the present video."""
        dataset, video = self._dataset, self.video
        known = dataset.manifest.info(video) if dataset.manifest else None
        return dataset.paths[video], (dataset.seed, self._epoch, video), known

    def fail(self, reason: str) -> None:
        """Note why the present video cannot be read, and go on to the next one.

        Raises DataError where too many in a row have failed.
        """
        dataset = self._dataset
        while True:
            self.failures.append(Failure(self.video, dataset.paths[self.video], reason))
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
        torch.cat([item.labels for item in items]),
        torch.cat([item.videos for item in items]),
        [failure for item in items for failure in item.failures],
    )
