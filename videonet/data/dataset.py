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

from videonet.data.decode import open_video
from videonet.data.lists import PathArray, VideoList
from videonet.data.sampling import ClipSampler
from videonet.data.transforms import InceptionCrop, JitterCrop
from videonet.data.views import read_clips, to_batch, video_views
from videonet.errors import DataError, DecodeError


@dataclass(frozen=True)
class Failure:
    """A video that could not be read, and why."""

    index: int
    path: str
    reason: str


@dataclass
class Batch:
    """Clips uint8 ``(N, 3, T, H, W)``; of each its label and its video's index, ``(N,)`` int64."""

    clips: Tensor
    labels: Tensor
    videos: Tensor
    failures: list[Failure] = field(default_factory=list)

    def pin_memory(self) -> Batch:
        """Called by the data loader: the same batch in page-locked memory."""
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

    @property
    def clip_shape(self) -> tuple[int, int, int, int]:
        return 3, self.sampler.num_frames, self.crop.size, self.crop.size

    def __call__(self, path: str, key: tuple[int, ...]) -> Tensor:
        """Clips uint8 ``(count, 3, T, H, W)``, the same for the same path and key."""
        rngs = [np.random.default_rng((*key, sample)) for sample in range(self.count)]
        with open_video(path, self.backend, self.crop.decode_side) as reader:
            info, times = reader.info, reader.times
            indices = [self.sampler.random(info.frames, info.fps, rng, times) for rng in rngs]
            clips = read_clips(reader, np.stack(indices))
        with torch.random.fork_rng(devices=[]):
            for k, rng in enumerate(rngs):
                torch.manual_seed(int(rng.integers(2**63)))
                clips[k] = self.augment(self.crop(clips[k]))
        return to_batch(clips)


@dataclass(frozen=True)
class EvaluationViews:
    """Makes all ``temporal · spatial`` views of a video."""

    sampler: ClipSampler
    crop_size: int
    temporal: int = 1
    spatial: int = 1
    backend: str = "auto"

    @property
    def count(self) -> int:
        return self.temporal * self.spatial

    @property
    def clip_shape(self) -> tuple[int, int, int, int]:
        return 3, self.sampler.num_frames, self.crop_size, self.crop_size

    def __call__(self, path: str, key: tuple[int, ...]) -> Tensor:
        """Views uint8 ``(temporal · spatial, 3, T, H, W)``; nothing is random, ``key`` unused."""
        with open_video(path, self.backend, self.crop_size) as reader:
            return video_views(
                reader,
                self.sampler,
                crop_size=self.crop_size,
                temporal=self.temporal,
                spatial=self.spatial,
            )


class VideoDataset(Dataset):
    """Videos of a list as :class:`Batch` items, indexed by ``(epoch, index)``.

    ``replace``: a video that cannot be read gives way to another one, drawn by the same seed
    (training); without it the item has no clips (evaluation). Both are named in ``failures``.
    """

    MOST_IN_A_ROW = 20

    def __init__(
        self,
        videos: VideoList,
        make_clips: TrainingClips | EvaluationViews,
        *,
        seed: int = 0,
        replace: bool = False,
    ):
        self.videos, self.make_clips = videos, make_clips
        self.seed, self.replace = seed, replace

    @property
    def name(self) -> str:
        return self.videos.name

    @property
    def paths(self) -> PathArray:
        return self.videos.paths

    @property
    def labels(self) -> np.ndarray:
        return self.videos.labels

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, position: tuple[int, int]) -> Batch:
        epoch, index = position
        failures: list[Failure] = []
        for candidate in self._candidates(epoch, index):
            try:
                clips = self.make_clips(self.paths[candidate], (self.seed, epoch, candidate))
            except DecodeError as error:
                failures.append(Failure(candidate, self.paths[candidate], str(error)))
                continue
            return self._item(clips, candidate, failures)
        if self.replace:
            raise DataError(
                f"{self.name}: {len(failures)} videos in a row cannot be read, "
                f"the last: {failures[-1].reason}"
            )
        nothing = torch.empty((0, *self.make_clips.clip_shape), dtype=torch.uint8)
        return self._item(nothing, index, failures)

    def _candidates(self, epoch: int, index: int) -> Iterator[int]:
        yield index
        if self.replace:
            rng = np.random.default_rng((self.seed, epoch, index))
            yield from rng.integers(len(self), size=self.MOST_IN_A_ROW - 1).tolist()

    def _item(self, clips: Tensor, index: int, failures: list[Failure]) -> Batch:
        labels = torch.full((len(clips),), int(self.labels[index]))
        return Batch(clips, labels, torch.full((len(clips),), index), failures)


def collate(items: list[Batch]) -> Batch:
    """One batch of the items' clips, in their order."""
    return Batch(
        torch.cat([item.clips for item in items]),
        torch.cat([item.labels for item in items]),
        torch.cat([item.videos for item in items]),
        [failure for item in items for failure in item.failures],
    )
