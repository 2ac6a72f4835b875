"""Made-up facts of videos, and small folders of drawn clips."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from videonet.data.preparing.synthetic import write_demo_dataset
from videonet.finetuning import setup
from videonet.finetuning.choices import Machine, StartingWeights
from videonet.finetuning.facts import DataFacts, Look, VideoFacts
from videonet.finetuning.plan import SMALL
from videonet.finetuning.probe_plan import ProbeSpeed

CPU = Machine("cpu", cores=4)
GPU = Machine("cuda", "some GPU", 24.0, 16)
NONE = StartingWeights("", SMALL, 0, 0)


def data_facts(classes=4, train=30, val=8, names=(), **changes) -> DataFacts:
    """Facts of videos of 3 s at 30 frames per second, unless `changes` say something else."""
    counts = train if isinstance(train, list) else [train] * classes
    count = sum(counts) + classes * val
    usual = {
        "classes": names or [f"class {k}" for k in range(classes)],
        "train": counts,
        "val": [val] * classes,
        "seconds": [3.0] * count,
        "rates": [30.0] * count,
        "frames": [90] * count,
        "shapes": [(640, 480)] * count,
        "moving": 0.1,
        "border": 0.0,
    }
    return DataFacts(**usual | changes)


def look(seed: int, *, noise: int = 0) -> Look:
    """A made-up look; the same seed gives the same scene but for the noise."""
    rng = np.random.default_rng(seed)
    scene = rng.integers(0, 256, 16 * 16 * 3)
    course = rng.integers(0, 256, 4 * 8 * 8)
    other = np.random.default_rng(1000 + noise)
    scene = scene + noise * other.integers(-5, 6, len(scene))
    return Look(0.1, 0.3, 0.0, scene.tolist(), (course + noise).tolist())


def video(path: str, label: int = 0, **changes) -> VideoFacts:
    """Facts of one video."""
    usual = {"frames": 90, "fps": 30.0, "seconds": 3.0, "width": 640, "height": 480}
    return VideoFacts(path, label, **usual | {"digest": path} | changes)


@pytest.fixture(scope="session")
def drawn(tmp_path_factory) -> Path:
    """Drawn clips, in a folder for each of eight classes."""
    folder = tmp_path_factory.mktemp("drawn")
    write_demo_dataset(folder, train_clips=40, val_clips=8, size=32, num_frames=8, seed=0)
    return folder / "train"


@pytest.fixture
def small(drawn, tmp_path) -> Path:
    """Three classes of five clips, with names that say whose they are."""
    folder = tmp_path / "my videos"
    for source in sorted(drawn.iterdir())[:3]:
        (folder / source.name).mkdir(parents=True)
        for k, clip in enumerate(sorted(source.iterdir())):
            shutil.copy(clip, folder / source.name / f"person{k % 4:02}_take{k}.mp4")
    return folder


@pytest.fixture
def one_thread_and_the_loggers_before(monkeypatch):
    threads, root = torch.get_num_threads(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    torch.set_num_threads(1)
    monkeypatch.setattr(setup, "seconds_per_clip", lambda *_: 0.01)
    monkeypatch.setattr(setup, "probe_speed", lambda *_: ProbeSpeed(0.01, 64, 32, 1e-5))
    yield
    torch.set_num_threads(threads)
    root.handlers[:] = handlers
    root.setLevel(level)
