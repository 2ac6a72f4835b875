"""A check of all data that a run will need, before its first step."""

from __future__ import annotations

import hashlib
import logging
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

from fvcore.common.config import CfgNode

from videonet.checkpoint.hub import HUB
from videonet.data.datasets.lists import VideoList
from videonet.data.loading.build import build_dataset
from videonet.data.loading.dataset import VideoDataset
from videonet.data.loading.workers import WorkerFailure, WorkerPool
from videonet.engine.distributed import Process
from videonet.errors import CheckpointError, DataError, DecodeError, VideonetError
from videonet.models.weights import is_name

logger = logging.getLogger(__name__)

TRIES = 10  # videos of a split that are tried until one can be read
COMPARED = 5000  # videos of a split whose contents are compared, spread over its list
EDGE = 1 << 16  # bytes at both ends of a file that stand for its content


def check_data(cfg: CfgNode, process: Process) -> None:
    """Read the list of every split that the run needs, open a video of each, and compare them.

    Called by all processes together; the first one does the work. Videos of validation and test
    that are training videos too are logged as a warning.

    Args:
        cfg: the configuration.
        process: this process.

    Raises:
        DataError: a list cannot be used, or none of its first videos can be read.
        CheckpointError: ``TEST.CHECKPOINT_FILE_PATH`` does not exist.
    """
    problem: VideonetError | None = None
    if process.is_main:
        try:
            _check(cfg)
        except VideonetError as error:
            problem = error
    problem = process.gather(problem)[0]
    if problem is not None:
        raise problem


def _check(cfg: CfgNode) -> None:
    checkpoint = cfg.TEST.CHECKPOINT_FILE_PATH
    named = is_name(checkpoint) or "://" in checkpoint or checkpoint.startswith(HUB)
    if cfg.TEST.ENABLE and checkpoint and not named and not Path(checkpoint).exists():
        raise CheckpointError(f"TEST.CHECKPOINT_FILE_PATH {checkpoint} does not exist")
    sets = {"train": build_dataset(cfg, "train")}
    if cfg.TRAIN.EVAL_PERIOD > 0:
        sets["val"] = build_dataset(cfg, "val")
    if cfg.TEST.ENABLE:
        try:
            sets["test"] = build_dataset(cfg, "test")
        except DataError as error:
            raise DataError(
                f"{error}; the test after the training needs it (TEST.DATASET is "
                f"{cfg.TEST.DATASET}; without a test: TEST.ENABLE False)"
            ) from error
    _open_one_of_each(sets, cfg)
    _warn_of_contradictions(sets["train"].videos)
    compared: set[str] = set()
    for split in ("val", "test"):
        if split in sets and sets[split].name not in compared:
            compared.add(sets[split].name)
            _warn_of_overlap(sets["train"].videos, sets[split].videos, split)


class _Opener:
    """Tries to read a video as a split does, in a worker process."""

    def __init__(self, sets: Mapping[str, VideoDataset]):
        self._make_clips = {split: dataset.make_clips for split, dataset in sets.items()}

    def __call__(self, task: tuple[str, str]) -> str | None:
        """None, or why the video cannot be read."""
        split, path = task
        try:
            self._make_clips[split](path, (0,))
        except DecodeError as error:
            return str(error)
        return None


def _open_one_of_each(sets: Mapping[str, VideoDataset], cfg: CfgNode) -> None:
    opener = _Opener(sets)
    if not cfg.DATA_LOADER.NUM_WORKERS:
        for split, dataset in sets.items():
            _open_one(split, dataset, lambda split, path: opener((split, path)))
        return
    pool: WorkerPool[str, tuple[str, str], str | None] = WorkerPool(
        opener, 1, cfg.DATA_LOADER.VIDEO_TIMEOUT
    )

    def ask(split: str, path: str) -> str | None:
        pool.submit(path, (split, path))
        done = pool.result()
        assert done is not None  # without a limit on patience there is a result of every task
        _, outcome = done
        return (
            f"cannot read {path}: {outcome.reason}"
            if isinstance(outcome, WorkerFailure)
            else outcome
        )

    try:
        for split, dataset in sets.items():
            _open_one(split, dataset, ask)
    finally:
        pool.close()


def _open_one(split: str, dataset: VideoDataset, ask: Callable[[str, str], str | None]) -> None:
    """Have `ask` open videos of a split, by its name and their path, until it can read one."""
    first, tried = "", 0
    for index in range(len(dataset)):
        reason: str | None
        if index in dataset.bad:
            reason = dataset.bad[index]
        elif tried == TRIES:
            break
        else:
            tried += 1
            reason = ask(split, dataset.paths[index])
        if reason is None:
            return
        first = first or reason
    found = f"none of the first {tried}" if tried == TRIES else f"none of the {len(dataset)}"
    raise DataError(
        f"{dataset.name}: {found} videos of the {split} data can be read; the first: {first}"
    )


def _warn_of_contradictions(videos: VideoList) -> None:
    """Warn of a list that gives the same video several times, with other labels."""
    labels: dict[str, list[int]] = {}
    found = {
        path
        for index, path in enumerate(videos.paths)
        if labels.setdefault(path, videos.classes_of(index)) != videos.classes_of(index)
    }
    if found:
        logger.warning(
            "%s has %d videos more than once, with other labels; the first is %s",
            *(videos.name, len(found), min(found)),
        )


def _warn_of_overlap(train: VideoList, other: VideoList, split: str) -> None:
    """Warn of videos of `other` that are trained on too, by path or by content."""
    paths = {os.path.abspath(path) for path in train.paths}
    same = [path for path in other.paths if os.path.abspath(path) in paths]
    how = "path"
    if not same:
        same, how = _same_contents(train, other), "content"
    if same:
        part = f" of {COMPARED} compared" if how == "content" and len(other) > COMPARED else ""
        logger.warning(
            "%d of the %d videos of the %s data (%s)%s are training videos too, by their %s, so "
            "their scores say little about others; the first is %s",
            *(len(same), len(other), split, other.name, part, how, same[0]),
        )


def _same_contents(train: VideoList, other: VideoList) -> list[str]:
    """Videos of `other` with the size, the beginning and the end of a training video."""
    sizes: dict[int, list[str]] = {}
    for path in _spread(train):
        if (size := _size(path)) is not None:
            sizes.setdefault(size, []).append(path)
    digests: dict[str, bytes] = {}

    def digest(path: str) -> bytes:
        if path not in digests:
            digests[path] = _edges(path)
        return digests[path]

    found = []
    for path in _spread(other):
        alike = sizes.get(_size(path) or 0, ())
        if alike and digest(path) in {digest(candidate) for candidate in alike}:
            found.append(path)
    return found


def _spread(videos: VideoList) -> list[str]:
    step = max(1, len(videos) / COMPARED)
    return [videos.paths[int(k * step)] for k in range(min(len(videos), COMPARED))]


def _size(path: str) -> int | None:
    """Bytes of a file, or of all pictures of a folder; None for what is neither, or empty."""
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            return sum(entry.stat().st_size for entry in os.scandir(path)) or None
        return (status.st_size or None) if stat.S_ISREG(status.st_mode) else None
    except OSError:
        return None


def _edges(path: str) -> bytes:
    """A hash of both ends of a file, or of the first picture of a folder and all their names."""
    digest = hashlib.sha256()
    try:
        if os.path.isdir(path):
            names = sorted(entry.name for entry in os.scandir(path) if entry.is_file())
            digest.update("\0".join(names).encode(errors="surrogateescape"))
            path = os.path.join(path, names[0])
        with open(path, "rb") as file:
            digest.update(file.read(EDGE))
            file.seek(max(0, os.path.getsize(path) - EDGE))
            digest.update(file.read(EDGE))
    except (OSError, IndexError):
        digest.update(os.fsencode(path))  # like nothing else; reading it later says why
    return digest.digest()
