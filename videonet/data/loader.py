"""Batches of clips: which videos, in which order, on which rank, from which batch on."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
import torch
from fvcore.common.config import CfgNode
from torch.utils.data import DataLoader, Sampler

from videonet.data.build import build_dataset
from videonet.data.dataset import Batch, VideoDataset, collate
from videonet.errors import ConfigError, DataError

logger = logging.getLogger(__name__)


def build_loader(cfg: CfgNode, split: str, *, rank: int = 0, world_size: int = 1) -> VideoLoader:
    """The batches of this rank of a split: ``train``, ``val`` or ``test``.

    Raises ConfigError and DataError as :func:`videonet.data.build.build_dataset` does.
    """
    dataset = build_dataset(cfg, split)
    if cfg.TRAIN.BATCH_SIZE % world_size and split != "test":
        raise ConfigError(
            f"TRAIN.BATCH_SIZE is {cfg.TRAIN.BATCH_SIZE}, expected a multiple of the "
            f"{world_size} processes"
        )
    if split == "train":
        sampler = TrainingBatches(
            len(dataset), cfg.TRAIN.BATCH_SIZE, cfg.RNG_SEED, rank=rank, world_size=world_size
        )
    else:
        size = max(1, cfg.TEST.BATCH_SIZE // dataset.make_clips.count)
        sampler = EvaluationBatches(len(dataset), size, rank=rank, world_size=world_size)
    return VideoLoader(
        dataset,
        sampler,
        workers=cfg.DATA_LOADER.NUM_WORKERS,
        pin_memory=cfg.DATA_LOADER.PIN_MEMORY and torch.cuda.is_available(),
        max_bad_share=cfg.DATA.MAX_BAD_SHARE,
    )


class TrainingBatches(Sampler[list[tuple[int, int]]]):
    """Batches of ``(epoch, index)``, shuffled anew each epoch.

    The order depends on seed and epoch only; a rank takes every ``world_size``-th video of each
    batch, so the ranks together see the same batches whatever their number. The last incomplete
    batch is dropped, unless the whole set is smaller than a batch.
    """

    def __init__(
        self, videos: int, batch_size: int, seed: int, *, rank: int = 0, world_size: int = 1
    ):
        if videos < world_size:
            raise DataError(f"{videos} training videos are too few for {world_size} processes")
        self.videos, self.batch_size, self.seed = videos, min(batch_size, videos), seed
        self.rank, self.world_size = rank, world_size
        self.epoch, self.start = 0, 0

    def __len__(self) -> int:
        return self.videos // self.batch_size

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch = self.epoch
        order = np.random.default_rng((self.seed, epoch)).permutation(self.videos).tolist()
        for batch in range(self.start, len(self)):
            whole = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield [(epoch, index) for index in whole[self.rank :: self.world_size]]


class EvaluationBatches(Sampler[list[tuple[int, int]]]):
    """Batches of ``(0, index)`` in the order of the list; each one on one rank.

    The batches are the same whatever the number of ranks, so that the scores are too, to the last
    bit.
    """

    def __init__(self, videos: int, batch_size: int, *, rank: int = 0, world_size: int = 1):
        self.videos, self.batch_size = videos, batch_size
        self.numbers = range(rank, -(-videos // batch_size), world_size)
        self.epoch, self.start = 0, 0

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for number in self.numbers[self.start :]:
            first = number * self.batch_size
            yield [(0, index) for index in range(first, min(first + self.batch_size, self.videos))]


class VideoLoader:
    """Iterates over the :class:`~videonet.data.dataset.Batch` es of an epoch.

    Without :meth:`set_position`, each iteration runs the epoch after the one before. Raises
    DataError when more than ``max_bad_share`` of the training videos turn out to be unreadable.
    """

    def __init__(
        self,
        dataset: VideoDataset,
        sampler: TrainingBatches | EvaluationBatches,
        *,
        workers: int = 0,
        pin_memory: bool = False,
        max_bad_share: float = 1.0,
    ):
        self.dataset, self._sampler = dataset, sampler
        self._max_bad_share, self._bad = max_bad_share, set()
        self._epoch, self._start = 0, 0
        self._loader = DataLoader(
            dataset,
            batch_sampler=sampler,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=pin_memory,
            collate_fn=collate,
            generator=torch.Generator(),  # its own: the global one is the training's
        )

    def __len__(self) -> int:
        """Batches per epoch on this rank."""
        return len(self._sampler)

    def set_position(self, epoch: int, batch: int = 0) -> None:
        """Let the next iteration run ``epoch`` from batch number ``batch`` on."""
        self._epoch, self._start = epoch, batch

    def __iter__(self) -> Iterator[Batch]:
        self._sampler.epoch, self._sampler.start = self._epoch, self._start
        self.set_position(self._epoch + 1)
        for batch in self._loader:
            self._note_failures(batch)
            yield batch

    def _note_failures(self, batch: Batch) -> None:
        for failure in batch.failures:
            if failure.index not in self._bad:
                self._bad.add(failure.index)
                logger.warning("%s", failure.reason)
        bad, total = len(self._bad), len(self.dataset)
        if self.dataset.replace and bad > self._max_bad_share * total:
            raise DataError(
                f"{self.dataset.name}: {bad} of {total} videos cannot be read, more than "
                f"DATA.MAX_BAD_SHARE = {self._max_bad_share:g} allows; the last: "
                f"{batch.failures[-1].reason}"
            )
