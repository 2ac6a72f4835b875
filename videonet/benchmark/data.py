"""How many clips per second the loader delivers, what they cost, and how that compares.

Three candidates take turns over the same videos on the same number of processes: videonet's
loader with the whole training recipe; decord alone, which only decodes the frames of the same
clips at full size; and pytorchvideo's LabeledVideoDataset with the same augmentation.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import statistics
import time
from collections.abc import Callable, Hashable, Iterator, Sequence

import numpy as np
import torch
from fvcore.common.config import CfgNode
from torch import Tensor

from videonet.choices import BENCHMARK_PEERS
from videonet.config import load_config
from videonet.data.loading.build import build_dataset
from videonet.data.loading.dataset import TrainingClips, VideoDataset
from videonet.data.loading.loader import TrainingBatches, VideoLoader
from videonet.data.loading.workers import WorkerPool
from videonet.data.transforms.views import read_frames, to_batch
from videonet.errors import ConfigError, DecodeError

logger = logging.getLogger(__name__)

STAGES = ("open", "decode", "crop", "augment", "collate")


def run(args: argparse.Namespace) -> str:
    """Measure, and return the report as text. Raises ConfigError and DataError as the loader."""
    cfg = load_config(args.cfg, args.overrides)
    result = benchmark(
        cfg, workers=args.workers, rounds=args.rounds, peers=args.peer or BENCHMARK_PEERS
    )
    result["verdict"], result["needed"] = verdict(result, args.needed), args.needed
    if args.output:
        args.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return report(result)


def benchmark(
    cfg: CfgNode, *, workers: int, rounds: int, peers: Sequence[str] = BENCHMARK_PEERS
) -> dict:
    """Clips per second of every candidate in every round, and the cost of the stages.

    A round is one epoch of the training list. The processes of all candidates are started and
    warm before the first round, and only one candidate works at a time.
    """
    if workers < 1:
        raise ConfigError(f"the number of workers is {workers}, expected at least 1")
    dataset = build_dataset(cfg, "train")
    runners: dict[str, Callable[[int], int]] = {}
    closing: list[Callable[[], None]] = []
    for name in ("videonet", *peers):
        make = {"videonet": _videonet, "decord": _decord, "pytorchvideo": _pytorchvideo}[name]
        runners[name], close = make(cfg, dataset, workers)
        closing.append(close)
    rates: dict[str, list[float]] = {name: [] for name in runners}
    try:
        for number in range(-1, rounds):
            for name, epoch in runners.items():
                start = time.perf_counter()
                clips = epoch(number + 1)
                rate = clips / (time.perf_counter() - start)
                logger.info("round %d: %s %.2f clips/s", number + 1, name, rate)
                if number >= 0:  # the first one warms up
                    rates[name].append(rate)
    finally:
        for close in closing:
            close()
    return {
        "videos": len(dataset),
        "clips_per_video": dataset.make_clips.count,
        "workers": workers,
        "clips_per_second": rates,
        "milliseconds_per_clip": stage_costs(dataset),
    }


def training_recipe(dataset: VideoDataset) -> TrainingClips:
    """How a data set of training makes its clips."""
    assert isinstance(dataset.make_clips, TrainingClips)  # else it is one of evaluation
    return dataset.make_clips


def stage_costs(dataset: VideoDataset, videos: int = 64) -> dict[str, float]:
    """Milliseconds per clip of every stage, in this process, over the first ``videos``."""
    make = training_recipe(dataset)
    spent = dict.fromkeys(STAGES, 0.0)
    clips_made = 0
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    room = dataset.empty(make.count)
    for index in range(min(videos, len(dataset))):
        rngs = [np.random.default_rng((dataset.seed, 0, index, k)) for k in range(make.count)]
        try:
            _time_stages(dataset, index, rngs, room, spent)
        except DecodeError as error:
            logger.warning("%s", error)
            continue
        clips_made += make.count
    torch.set_num_threads(threads)
    return {stage: 1e3 * seconds / max(clips_made, 1) for stage, seconds in spent.items()}


def _time_stages(
    dataset: VideoDataset,
    index: int,
    rngs: list[np.random.Generator],
    room: Tensor,
    spent: dict[str, float],
) -> None:
    """Make the clips of one video step by step, as the loader does, and add up the times."""
    make = training_recipe(dataset)
    known = dataset.manifest.info(index) if dataset.manifest else None
    marks = [time.perf_counter()]

    def mark(stage: str) -> None:
        marks.append(time.perf_counter())
        spent[stage] += marks[-1] - marks[-2]

    with make.open(dataset.paths[index], known) as reader:
        mark("open")
        frames, rows = read_frames(reader, make.choose(reader, rngs))
    mark("decode")
    clips = []
    for row in rows:
        clip = make.crop(frames, rows=row)
        mark("crop")
        clips.append(make.augment(clip))
        mark("augment")
    to_batch(clips, room)
    room.clone()
    mark("collate")


def _videonet(cfg: CfgNode, dataset: VideoDataset, workers: int):
    sampler = TrainingBatches(len(dataset), cfg.TRAIN.BATCH_SIZE, cfg.RNG_SEED)
    loader = VideoLoader(dataset, sampler, workers=workers)

    def epoch(number: int) -> int:
        loader.set_position(number)
        return sum(len(batch.clips) for batch in loader)

    return epoch, loader.close


def _decord(cfg: CfgNode, dataset: VideoDataset, workers: int):
    pool: WorkerPool[int, tuple[str, tuple[int, ...]], int | str] = WorkerPool(
        DecordAlone(training_recipe(dataset)), workers
    )
    sampler = TrainingBatches(len(dataset), cfg.TRAIN.BATCH_SIZE, cfg.RNG_SEED)
    paths: dict[Hashable, str] = dict(enumerate(dataset.paths))  # by the keys of the pool

    def epoch(number: int) -> int:
        sampler.epoch, clips = number, 0
        for positions in sampler:
            for _, index in positions:
                pool.submit(index, (dataset.paths[index], (dataset.seed, number, index)))
        while (done := pool.result()) is not None:
            key, made = done
            if isinstance(made, int):
                clips += made
            else:
                logger.warning("decord alone: %s: %s", paths[key], made)
        return clips

    return epoch, pool.close


class DecordAlone:
    """What a worker does: decode the frames of a video's clips with decord, and nothing else."""

    def __init__(self, make_clips: TrainingClips):
        self._make_clips = make_clips

    def __call__(self, task: tuple[str, tuple[int, ...]]) -> int | str:
        """The number of clips, or why decord cannot read the file."""
        import decord

        path, key = task
        sampler, count = self._make_clips.sampler, self._make_clips.count
        try:
            reader = decord.VideoReader(path, num_threads=1)
            frames, fps = len(reader), reader.get_avg_fps()
            rngs = [np.random.default_rng((*key, k)) for k in range(count)]
            indices = np.unique([sampler.random(frames, fps, rng) for rng in rngs])
            reader.get_batch(indices).asnumpy()
        except (RuntimeError, decord.DECORDError) as error:
            return (str(error).splitlines() or ["unknown"])[0]
        return count


def _pytorchvideo(cfg: CfgNode, dataset: VideoDataset, workers: int):
    from pytorchvideo.data import LabeledVideoDataset
    from pytorchvideo.data.clip_sampling import RandomMultiClipSampler

    make = training_recipe(dataset)
    seconds = make.sampler.num_frames * make.sampler.rate / (make.sampler.target_fps or 30)
    paths = [(path, {"label": k}) for k, path in enumerate(dataset.paths)]
    peer = LabeledVideoDataset(
        paths,
        RandomMultiClipSampler(seconds, make.count),
        transform=SameRecipe(make),
        decode_audio=False,
    )
    loader = torch.utils.data.DataLoader(
        peer,
        batch_size=cfg.TRAIN.BATCH_SIZE,
        num_workers=workers,
        persistent_workers=True,
        drop_last=True,
    )
    iterator: list[Iterator] = []

    def epoch(number: int) -> int:
        iterator[:] = [iter(loader)]
        return sum(batch["video"].shape[0] * batch["video"].shape[1] for batch in iterator[0])

    return epoch, iterator.clear


class SameRecipe:
    """The training recipe as a transform of pytorchvideo: clips to uint8 ``(N, 3, T, H, W)``."""

    def __init__(self, make_clips: TrainingClips):
        self._make_clips = make_clips
        self._calls = 0

    def __call__(self, item: dict) -> dict:
        make, self._calls = self._make_clips, self._calls + 1
        clips = []
        for k, clip in enumerate(item["video"]):  # (3, T, H, W) float, at the video's rate
            picked = torch.linspace(0, clip.shape[1] - 1, make.sampler.num_frames).long()
            frames = clip[:, picked].to(torch.uint8).transpose(0, 1)
            rng = np.random.default_rng((self._calls, k))
            ((clip, _),) = make.change(frames, torch.arange(len(frames))[None], [rng], [{}])
            clips.append(clip)
        return {"video": to_batch(clips), "label": item["label"]}


def verdict(result: dict, needed: float | None = None) -> str:
    """``fed`` where the loader keeps up with ``needed`` clips/s, else what it spends most on."""
    rate = statistics.median(result["clips_per_second"]["videonet"])
    if needed is not None and rate >= needed:
        return "fed"
    cost = result["milliseconds_per_clip"]
    decoding = cost["open"] + cost["decode"]
    return "decode-bound" if decoding >= cost["crop"] + cost["augment"] else "augmentation-bound"


def supply(result: dict, needed: float | None = None) -> str:
    """What one process delivers, and how many a model needs that takes ``needed`` clips/s."""
    each = statistics.median(result["clips_per_second"]["videonet"]) / result["workers"]
    text = f"a process delivers {each:.2f} clips/s"
    if needed is None or not each:
        return text
    return f"{text}: {needed:g} clips/s take {math.ceil(needed / each)} processes with a core each"


def report(result: dict) -> str:
    """The result as a table for people."""
    rates = result["clips_per_second"]
    ours = rates["videonet"]
    lines = [
        f"{result['videos']} videos, {result['clips_per_video']} clip(s) each, "
        f"{result['workers']} process(es), {len(ours)} round(s)",
        f"{'':14}{'clips/s':>9}{'from':>9}{'to':>9}   videonet is",
    ]
    for name, values in rates.items():
        ratios = [a / b for a, b in zip(ours, values, strict=True) if b]
        ratio = statistics.median(ratios) if ratios else float("nan")
        middle = statistics.median(values)
        lines.append(
            f"{name:14}{middle:9.2f}{min(values):9.2f}{max(values):9.2f}"
            + (f"   {ratio:.2f} x as fast" if name != "videonet" else "")
        )
    costs = result["milliseconds_per_clip"]
    total = sum(costs.values()) or 1.0
    lines.append("cost of a clip in one process:")
    for stage, cost in costs.items():
        lines.append(f"{stage:14}{cost:9.2f} ms{100 * cost / total:6.0f} %")
    lines.append(supply(result, result.get("needed")))
    lines.append(f"verdict: {result['verdict']}")
    return "\n".join(lines)
