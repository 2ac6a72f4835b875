"""Bulk runs on the machines of a Ray cluster, or of Ray on this machine.

Two pools of actors: some decode, each with a worker process that may crash or hang, the others hold
the model. Ray gives the work of a process or machine that is lost to another; what arrives twice is
written once by :class:`~videonet.inference.rows.Parts`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import torch

from videonet.inference.bulk import failed_row, located_rows
from videonet.inference.clips import ClipReader
from videonet.inference.decoding import Decoder, Job, Pause, Unreadable
from videonet.inference.many import Speed
from videonet.inference.options import Options
from videonet.inference.predictor import Predictor
from videonet.inference.rows import Parts, as_table, scored_row
from videonet.inference.scoring import CPU_BATCH, Scorer
from videonet.terminal import logs_above_bars, progress_bar

logger = logging.getLogger(__name__)

FILES = 16  # that an actor decodes between two looks at what else there is to do
MOST_BLOCKS = 4096  # of the list of files
_PLACE = ("path", "fingerprint", "window", "start", "end", "last")


class DecodeFiles:
    """An actor that decodes."""

    def __init__(self, reader: ClipReader, timeout: float):
        self._sliding = reader.sliding
        self._clips = reader.crops if reader.sliding else reader.views.count  # of a row
        self._shape = (self._clips, *reader.views.clip_shape)
        self._decoder = Decoder(reader, 1, timeout=timeout)

    def __call__(self, batch: dict[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        """The rows of files, without scores but with clips; nothing but the reason if it fails."""
        pairs = zip(batch["path"].tolist(), batch["first"].tolist(), strict=True)
        jobs = [Job(k, path, first) for k, (path, first) in enumerate(pairs)]
        reached = {job.number: job.first for job in jobs}
        for entry in self._decoder.pieces(jobs):
            if isinstance(entry, Pause):
                continue
            job, piece = entry
            if isinstance(piece, Unreadable):
                row = failed_row(job.path, reached[job.number], piece.reason)
                yield _columns([row], np.zeros((1, *self._shape), dtype=np.uint8))
            elif piece.span.times:
                rows = located_rows(job.path, piece, self._sliding)
                reached[job.number] += len(rows)
                yield _columns(rows, piece.clips.numpy().reshape(len(rows), *self._shape))


def _columns(rows: Sequence[dict[str, Any]], clips: np.ndarray) -> dict[str, np.ndarray]:
    defaults = {"fingerprint": "", "start": 0.0, "end": 0.0, "error": ""}
    full = [defaults | row for row in rows]
    return {name: np.array([row[name] for row in full]) for name in (*_PLACE, "error")} | {
        "clips": clips
    }


class ScoreClips:
    """An actor with a model."""

    def __init__(self, model: tuple[Any, ...], top_k: int, device: str, threads: int):
        if threads:
            torch.set_num_threads(threads)
        network, cfg, task, origin = model
        cfg = cfg.clone()
        cfg.defrost()
        cfg.DEVICE = device
        cfg.freeze()
        self._predictor = Predictor(network, cfg, task)
        self._predictor.origin = origin
        self._scorer, self._top_k = Scorer(self._predictor), top_k

    def __call__(self, batch: dict[str, np.ndarray]) -> pa.Table:
        """The rows with their scores."""
        clips = torch.from_numpy(np.array(batch["clips"]))  # (B, N, 3, T, S, S)
        each = clips.shape[1]
        parts = [self._scorer.compute([p]) for p in clips.flatten(0, 1).split(self._scorer.size)]
        outputs, embeddings, _ = map(torch.cat, zip(*parts, strict=True))
        rows = []
        places = {name: batch[name].tolist() for name in (*_PLACE, "error")}
        groups = zip(outputs.split(each), embeddings.split(each), strict=True)
        for k, (of_clips, vectors) in enumerate(groups):
            row = {name: places[name][k] for name in _PLACE}
            if places["error"][k]:
                row = failed_row(row["path"], row["window"], places["error"][k])
            else:
                row |= scored_row(self._predictor, of_clips, vectors, self._top_k)
            rows.append(row)
        return as_table(rows)


def bulk_on_ray(
    predictor: Predictor,
    paths: Sequence[str],
    parts: Parts,
    options: Options,
    *,
    address: str | None = None,
    models: int | None = None,
    decoders: int | None = None,
    threads: int = 0,
    progress: bool = True,
) -> int:
    """Write the rows of all files that `parts` does not hold, with Ray.

    Args:
        predictor: scores the files; its model is sent to the actors.
        paths: of the files, as every machine can read them.
        parts: takes the rows.
        options: which clips of a file.
        address: of the cluster, "auto" for the one that this machine belongs to; None for Ray on
            this machine alone.
        models: copies of the model; None for one per GPU, or one where there is none.
        decoders: the most actors that decode; None for as many as there are cores left.
        threads: of a model on a CPU; 0 for torch's choice.
        progress: show a progress bar.

    Returns:
        The number of files that failed.
    """
    todo = [path for path in paths if path not in parts.done]
    if not todo:
        return 0
    if not ray.is_initialized():
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
    files = pa.table({"path": todo, "first": [parts.following.get(path, 0) for path in todo]})
    pools = _Pools.of_cluster(models, decoders, threads)
    failed = 0
    bar = progress_bar(
        total=len(paths),
        initial=len(paths) - len(todo),
        show=progress,
        desc="videos",
        unit="files",
    )
    speed = Speed(bar)
    with logs_above_bars(), bar:
        scored = _scored(predictor, files, options, pools)
        tables: Any = scored.iter_batches(batch_size=None, batch_format="pyarrow")
        for table in tables:
            finished, bad, seconds = parts.add(table)
            failed += bad
            speed.video(seconds)
            for _ in range(finished):
                speed.file()
    return failed


@dataclass(frozen=True)
class _Pools:
    """How many actors there are, and of what kind; see :func:`bulk_on_ray`."""

    models: int
    decoders: int
    threads: int
    on_gpus: bool

    @classmethod
    def of_cluster(cls, models: int | None, decoders: int | None, threads: int) -> _Pools:
        """Those that are asked for, or as many as the cluster has room for."""
        have = ray.cluster_resources()
        gpus, cpus = int(have.get("GPU", 0)), int(have.get("CPU", 1))
        models = models or max(1, gpus)
        return cls(models, decoders or max(1, cpus - models), threads, gpus > 0)


def _scored(
    predictor: Predictor, files: pa.Table, options: Options, pools: _Pools
) -> ray.data.Dataset:
    """The rows of files as they are computed: one pool of actors decodes, the other has the model.

    Args:
        files: path and first window of each.
    """
    test = predictor.cfg.TEST
    size = test.BATCH_SIZE if pools.on_gpus else min(test.BATCH_SIZE, CPU_BATCH)
    reader = ClipReader.of(predictor.cfg, options, size, marks=True)
    rows_each = max(1, size // (reader.crops if options.sliding else reader.views.count))
    step = max(FILES, -(-len(files) // MOST_BLOCKS))
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.use_ray_tqdm = False
    network = (predictor.model.cpu(), predictor.cfg, predictor.task, predictor.origin)
    device = "cuda" if pools.on_gpus else "cpu"
    return (
        ray.data.from_arrow([files.slice(start, step) for start in range(0, len(files), step)])
        .map_batches(
            DecodeFiles,
            fn_constructor_args=(reader, predictor.cfg.DATA_LOADER.VIDEO_TIMEOUT),
            batch_size=FILES,
            batch_format="numpy",
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=pools.decoders),
            num_cpus=1,
        )
        .map_batches(
            ScoreClips,
            fn_constructor_args=(network, options.top_k, device, pools.threads),
            batch_size=rows_each,
            batch_format="numpy",
            compute=ray.data.ActorPoolStrategy(size=pools.models),
            num_gpus=1 if pools.on_gpus else None,
            num_cpus=None if pools.on_gpus else 1,
        )
    )
