"""Batches of clips: which videos, in which order, on which rank, from which batch on."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Generator, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from fvcore.common.config import CfgNode
from torch.utils.data import Sampler

from videonet.data.loading.batching import SharedMemoryBatcher, in_background, read_bad_list
from videonet.data.loading.build import Annotate, build_dataset
from videonet.data.loading.dataset import Batch, Failure, VideoDataset, annotations_of, collate
from videonet.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

BAD_LIST = "bad_videos.csv"  # in OUTPUT_DIR: the videos that ended or hung a worker process


def build_loader(
    cfg: CfgNode,
    split: str,
    *,
    annotate: Annotate = annotations_of,
    rank: int = 0,
    world_size: int = 1,
) -> VideoLoader:
    """The batches of this rank of a split: ``train``, ``val`` or ``test``.

    ``annotate`` gives of a list what the targets of its videos are made from, as a task wants them.

    Raises ConfigError and DataError as :func:`videonet.data.loading.build.build_dataset` does.
    """
    dataset = build_dataset(cfg, split, annotate)
    if cfg.TRAIN.BATCH_SIZE % world_size and split != "test":
        raise ConfigError(
            f"TRAIN.BATCH_SIZE is {cfg.TRAIN.BATCH_SIZE}, expected a multiple of the "
            f"{world_size} processes"
        )
    sampler: TrainingBatches | EvaluationBatches
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
        timeout=cfg.DATA_LOADER.VIDEO_TIMEOUT,
        bad_list=Path(cfg.OUTPUT_DIR, BAD_LIST),
    )


class TrainingBatches(Sampler[list[tuple[int, int]]]):
    """Batches of ``(epoch, index)``, shuffled anew each epoch.

    The order depends on seed and epoch only; a rank takes the videos at its :func:`positions` of
    each batch, so the ranks together see the same batches whatever their number. The last
    incomplete batch is dropped, unless the whole set is smaller than a batch.
    """

    def __init__(
        self, videos: int, batch_size: int, seed: int, *, rank: int = 0, world_size: int = 1
    ):
        if videos < world_size:
            raise DataError(f"{videos} training videos are too few for {world_size} processes")
        self.videos, self.batch_size, self.seed = videos, min(batch_size, videos), seed
        self.positions = positions(self.batch_size, world_size)[rank]
        self.videos_per_batch = len(self.positions)  # of this rank
        self.epoch, self.start = 0, 0

    def __len__(self) -> int:
        return self.videos // self.batch_size

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch = self.epoch
        order = np.random.default_rng((self.seed, epoch)).permutation(self.videos).tolist()
        for batch in range(self.start, len(self)):
            whole = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield [(epoch, whole[position]) for position in self.positions]


def positions(batch_size: int, world_size: int) -> list[list[int]]:
    """The places in a batch that each rank takes, ascending.

    Place k and its mirror image ``batch_size - 1 - k``, which mixing joins, lie on one rank, or
    where ranks have odd numbers of videos, on two neighbours.
    """
    pairs = [place for k in range(batch_size) for place in (k, batch_size - 1 - k)][:batch_size]
    ends = [-(-batch_size * rank // world_size) for rank in range(world_size + 1)]
    return [sorted(pairs[start:end]) for start, end in itertools.pairwise(ends)]


class EvaluationBatches(Sampler[list[tuple[int, int]]]):
    """Batches of ``(0, index)`` in the order of the list; each one on one rank.

    The batches are the same whatever the number of ranks, so that the scores are too, to the last
    bit.
    """

    def __init__(self, videos: int, batch_size: int, *, rank: int = 0, world_size: int = 1):
        self.videos, self.batch_size = videos, batch_size
        self.numbers = range(rank, -(-videos // batch_size), world_size)
        self.videos_per_batch = min(batch_size, videos)
        self.epoch, self.start = 0, 0

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for number in self.numbers[self.start :]:
            first = number * self.batch_size
            yield [(0, index) for index in range(first, min(first + self.batch_size, self.videos))]


class VideoLoader:
    """Iterates over the :class:`~videonet.data.loading.dataset.Batch` es of an epoch.

    Without :meth:`set_position`, each iteration runs the epoch after the one before. Raises
    DataError when more than ``max_bad_share`` of the training videos turn out to be unreadable.

    ``workers``: processes that read the videos; 0: this process does, and then nothing stops a
    decoder that hangs. ``timeout``: seconds that a worker may take for one video; 0: no limit.
    ``bad_list``: CSV file of the videos that ended or hung a worker, which are not read again.
    """

    def __init__(
        self,
        dataset: VideoDataset,
        sampler: TrainingBatches | EvaluationBatches,
        *,
        workers: int = 0,
        pin_memory: bool = False,
        max_bad_share: float = 1.0,
        timeout: float = 0.0,
        bad_list: Path | None = None,
    ):
        self.dataset, self._sampler = dataset, sampler
        self.failures: dict[int, Failure] = {}  # every video met that could not be read
        self._workers, self._timeout, self._bad_list = workers, timeout, bad_list
        self._pin_memory, self._max_bad_share = pin_memory, max_bad_share
        self._epoch, self._start = 0, 0
        self._batcher: SharedMemoryBatcher | None = None
        if bad_list is not None:
            dataset.bad.update(read_bad_list(bad_list, dataset.paths))
        self._bad = set(dataset.bad)  # and those met later
        self._check_share(next(iter(dataset.bad.values()), ""))

    def __len__(self) -> int:
        """Batches per epoch on this rank."""
        return len(self._sampler)

    def set_position(self, epoch: int, batch: int = 0) -> None:
        """Let the next iteration run ``epoch`` from batch number ``batch`` on."""
        self._epoch, self._start = epoch, batch

    def __iter__(self) -> Generator[Batch, None, None]:
        self._sampler.epoch, self._sampler.start = self._epoch, self._start
        self.set_position(self._epoch + 1)
        for batch in self._batches():
            self._note_failures(batch)
            yield batch

    def close(self) -> None:
        """End the worker processes; the next iteration starts others."""
        if self._batcher is not None:
            self._batcher.close()
            self._batcher = None

    def _batches(self) -> Iterator[Batch]:
        if not self._workers:
            for positions in self._sampler:
                batch = collate([self.dataset[position] for position in positions])
                batch = self.dataset.fit(batch)
                yield batch.pin_memory() if self._pin_memory else batch
            return
        batcher = self._batcher
        if batcher is None:
            batcher = self._batcher = SharedMemoryBatcher(
                self.dataset,
                self._workers,
                videos=self._sampler.videos_per_batch,
                timeout=self._timeout,
                bad_list=self._bad_list,
                pin_memory=self._pin_memory,
            )
        yield from in_background(partial(batcher.batches, iter(self._sampler)))

    def _note_failures(self, batch: Batch) -> None:
        for failure in batch.failures:
            if failure.index not in self.failures:
                self.failures[failure.index] = failure
                logger.warning("%s", failure.reason)
                self._bad.add(failure.index)
                self._check_share(failure.reason)

    def _check_share(self, last: str) -> None:
        """Stop a training with too many unreadable videos; an evaluation reports them."""
        bad, total = self._bad, len(self.dataset)
        if self.dataset.replace and len(bad) > self._max_bad_share * total:
            raise DataError(
                f"{self.dataset.name}: {len(bad)} of {total} videos cannot be read, more than "
                f"DATA.MAX_BAD_SHARE = {self._max_bad_share:g} allows; the last: {last}"
            )
