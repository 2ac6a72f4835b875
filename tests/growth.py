"""How time and memory grow with the number of videos and classes.

    python -m tests.growth [--only verify ...] [--scale 0.1] [--folder /dev/shm]

prints a table (Markdown). Each kind is a process of its own; CPU is the time that this process
computed, memory the most that it held, with about 0.8 GB for torch. Nothing is decoded: videos are
empty files, and what a worker says of them and the model's scores are made up, in this process; all
else is real.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import torch

from videonet.benchmark.machine import PeakMemory, describe
from videonet.config import load_config
from videonet.data import Batch
from videonet.data.datasets.lists import VideoList, read_list
from videonet.data.loading.batching import read_bad_list
from videonet.data.loading.build import build_dataset
from videonet.data.loading.dataset import Sample
from videonet.data.loading.loader import EvaluationBatches, TrainingBatches, VideoLoader
from videonet.data.preparing import verify
from videonet.data.preparing.manifest import Manifest, read_manifest
from videonet.data.tables import write_table
from videonet.data.targets import LABELS, Targets
from videonet.engine.distributed import Process
from videonet.engine.evaluate import evaluate
from videonet.engine.results import write_results
from videonet.errors import DecodeError
from videonet.tasks.classification import Classification
from videonet.terminal import progress_bar

PER_FOLDER = 1000  # files
VIEWS = 2
BAD = 100  # one in so many videos cannot be read
ROWS = {  # what is measured: (videos, classes)
    "verify": ((100_000, 400), (1_000_000, 400)),
    "evaluation": ((1000, 10_000), (10_000, 10_000)),
    "evaluation of several labels": ((1000, 10_000), (10_000, 10_000)),
    "failures": ((10_000, 400), (100_000, 400)),
}


class MadeUp(verify.Examiner):
    """Says of every video what a real one may have, without a look into it."""

    def __call__(self, path: str) -> dict:
        number = int(os.path.basename(path)[:-4])
        row = verify._row(path, reason="cut at 2.1 of 10 s" if number % BAD == 0 else "")
        video = {
            **{"frames": 300, "fps": 29.97, "width": 320, "height": 240, "rotation": 0},
            **{"duration": 10.01, "codec": "h264", "pixels": "yuv420p", "container": "mp4"},
            **{"open_gop": False, "even": True, "mirrored": False, "counted": ""},
        }
        return row if row["reason"] else {**row, **video}


class InThisProcess:
    """Stands for a pool of workers, whose time is not measured."""

    def __init__(self, work: Callable, workers: int, timeout: float):
        self._work, self._tasks = work, deque()

    def submit(self, key: str, task: str) -> None:
        self._tasks.append((key, task))

    def result(self) -> tuple[str, dict] | None:
        if not self._tasks:
            return None
        key, task = self._tasks.popleft()
        return key, self._work(task)

    def close(self) -> None:
        pass


def write_list(folder: Path, videos: int, classes: int) -> Path:
    """Empty files in folders, and a list of them."""
    for first in range(0, videos, PER_FOLDER):
        place = folder / str(first // PER_FOLDER)
        place.mkdir()
        for number in range(first, min(first + PER_FOLDER, videos)):
            os.close(os.open(place / f"{number}.mp4", os.O_CREAT))
    lines = (f"{k // PER_FOLDER}/{k}.mp4 {k % classes}\n" for k in range(videos))
    (folder / "train.csv").write_text("".join(lines))
    return folder / "train.csv"


def measure_verify(folder: Path, videos: int, classes: int) -> Iterator[str]:
    """A first run, one that finds all but the bad ones known, and what the loader makes of it."""
    path = write_list(folder, videos, classes)
    yield ""
    listed = read_list(path, classes)
    yield "reading the list"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verify, "Examiner", MadeUp)
        patch.setattr(verify, "WorkerPool", InThisProcess)
        patch.setattr(verify, "progress_bar", partial(progress_bar, show=False))
        _, mark, rows = verify.verify(listed, workers=1)
        yield "verify, every video new"
        bad = [row for row in rows if row["reason"]]
        assert len(rows) == videos and len(bad) == -(-videos // BAD)
        del rows
        for row in bad:
            os.utime(folder / row["path"], (1, 1))
        yield ""
        again = verify.verify(listed, workers=1)
        assert again[1] == mark
    yield "verify again, one in 100 changed"
    manifest = read_manifest(listed)
    assert isinstance(manifest, Manifest) and len(manifest.bad) == len(bad)
    yield "reading the manifest for training"


class MadeUpScores(torch.nn.Module):
    """Logits that a clip's first pixels draw."""

    def __init__(self, classes: int):
        super().__init__()
        self.classes = classes

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        seeds = (clips.flatten(1)[:, :3] * 255).round() @ torch.tensor([65536.0, 256.0, 1.0])
        generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
        return torch.stack([torch.randn(self.classes, generator=g) for g in generators])


class MadeUpBatches:
    """Batches of tiny clips whose first pixels number them."""

    def __init__(self, videos: VideoList):
        self.videos = videos

    def __iter__(self) -> Iterator[Batch]:
        for first in range(0, len(self.videos), 8):
            numbers = torch.arange(first, min(first + 8, len(self.videos)))
            numbers = numbers.repeat_interleave(VIEWS)
            clips = torch.zeros(len(numbers), 3, 1, 1, 1, dtype=torch.uint8)
            for place, shift in enumerate((16, 8, 0)):
                clips[:, place, 0, 0, 0] = (numbers >> shift) & 255
            labels = [torch.as_tensor(self.videos.labels[int(number)]) for number in numbers]
            yield Batch(clips, Targets({LABELS: torch.stack(labels)}), numbers)


def measure_evaluation(
    folder: Path, videos: int, classes: int, *, several: bool = False
) -> Iterator[str]:
    """Every view's scores, the figures of merit, and all tables and pictures."""
    path = write_list(folder, videos, classes)
    kind = ("MODEL.LOSS_FUNC", "bce_logit", "TRAIN.DATASET", "multilabel") if several else ()
    cfg = load_config(None, ["MODEL.NAME", "mvit_v2_xs", "MODEL.NUM_CLASSES", str(classes), *kind])
    task = Classification(cfg, [f"class {k}" for k in range(classes)])
    listed = read_list(path, classes, multi_label=several)
    yield ""
    evaluation = evaluate(
        MadeUpScores(classes),
        MadeUpBatches(listed),
        Process(rank=0, world_size=1, device=torch.device("cpu")),
        task,
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
        max_clips=64,
    )
    yield "scores of all views, joined"
    evaluation.measures()
    yield "figures of merit"
    out = folder / "results"
    results = write_results(out, evaluation, task, paths=listed.paths, details={})
    assert results["videos"] == videos
    yield "results.json, tables and pictures"


class Unreadable:
    """Makes clips of no video."""

    count, clip_shape = 1, (3, 1, 1, 1)

    def __call__(self, path: str, *_: object) -> Sample:
        raise DecodeError(f"cannot read {path}: it is empty")


def measure_failures(folder: Path, videos: int, classes: int) -> Iterator[str]:
    """A loader all of whose videos fail in evaluation, and a fourth of them in training."""
    path = write_list(folder, videos, classes)
    bad_list = folder / "bad_videos.csv"
    listed = read_list(path, classes)
    write_table(
        bad_list, ["path", "reason"], ([listed.paths[k], "it hangs"] for k in range(0, videos, 2))
    )
    cfg = load_config(
        None,
        [
            *("MODEL.NAME", "mvit_v2_xs", "MODEL.NUM_CLASSES", str(classes)),
            *("DATA.PATH_TO_DATA_DIR", str(folder)),
        ],
    )
    dataset = build_dataset(cfg, "train")
    dataset.make_clips, dataset.replace = Unreadable(), False
    yield ""
    loader = VideoLoader(dataset, EvaluationBatches(videos, 16))
    assert sum(len(batch.failures) for batch in loader) == videos == len(loader.failures)
    yield "evaluation, every video fails"
    assert len(read_bad_list(bad_list, dataset.paths)) == -(-videos // 2)
    yield "reading bad_videos.csv, half of the videos"
    dataset = build_dataset(cfg, "train")
    dataset.make_clips, dataset.annotations = Mostly(), None
    loader = VideoLoader(dataset, TrainingBatches(videos, 16, 0))
    for _ in loader:
        pass
    assert len(loader.failures) > 0.9 * videos / 4
    yield "training epoch, every fourth video fails"


class Mostly(Unreadable):
    """Makes clips of three videos of four."""

    def __call__(self, path: str, *rest: object) -> Sample:
        if int(os.path.basename(path)[:-4]) % 4 == 0:
            return super().__call__(path, *rest)
        return Sample(torch.zeros(1, *self.clip_shape, dtype=torch.uint8), [{}])


def several_labels(folder: Path, videos: int, classes: int) -> Iterator[str]:
    """The evaluation of videos that may have several labels."""
    return measure_evaluation(folder, videos, classes, several=True)


MEASURES: dict[str, Callable[[Path, int, int], Iterator[str]]] = {
    "verify": measure_verify,
    "evaluation": measure_evaluation,
    "evaluation of several labels": several_labels,
    "failures": measure_failures,
}


def measured(
    name: str, videos: int, classes: int, place: str | None = None
) -> list[tuple[str, float, float, float]]:
    """(step, seconds, seconds of CPU, GB) of one row; steps without a name prepare others."""
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    steps, memory = [], PeakMemory("cpu")
    with tempfile.TemporaryDirectory(dir=place) as folder:
        begun, used = time.perf_counter(), time.process_time()
        for step in MEASURES[name](Path(folder), videos, classes):
            spent = time.perf_counter() - begun, time.process_time() - used
            steps += [(step, *spent, (memory.peak() + memory.floor) / 1e9)] if step else []
            memory.restart()
            begun, used = time.perf_counter(), time.process_time()
    return steps


def table(names: list[str], scale: float = 1.0, place: str | None = None) -> str:
    """The measurements, each in a process of its own."""
    lines = ["| | videos | classes | s | s of CPU | GB at most |", f"|---{5 * '|---:'}|"]
    for name in names:
        for videos, classes in ROWS[name]:
            sizes = max(100, int(videos * scale)), max(10, int(classes * scale))
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(1, mp_context=context) as pool:
                for step, *spent, memory in pool.submit(measured, name, *sizes, place).result():
                    numbers = (*(f"{n:,}" for n in sizes), *(f"{t:.1f}" for t in spent))
                    lines.append(f"| {name}: {step} | {' | '.join(numbers)} | {memory:.2f} |")
                    print(lines[-1], file=sys.stderr, flush=True)
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="time and memory over videos and classes")
    parser.add_argument("--only", nargs="+", default=list(ROWS), choices=ROWS, metavar="NAME")
    parser.add_argument("--scale", type=float, default=1.0, help="of all numbers (default 1)")
    parser.add_argument("--folder", help="for the files (default: that of the system)")
    arguments = parser.parse_args()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    print(f"{describe('cpu')['cpu']}, {memory:.0f} GB")
    print(table(arguments.only, arguments.scale, arguments.folder))


if __name__ == "__main__":
    main()
