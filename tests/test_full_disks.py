"""Disks that are full and folders that cannot be written to: one sentence, nothing lost."""

import resource
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from videonet.checkpoint import write_checkpoint
from videonet.config import default_config, save_config
from videonet.data.feature_store import FeatureWriter, VideoFeatures, read_features
from videonet.data.preparing.manifest import write_manifest
from videonet.data.preparing.synthetic import write_demo_dataset
from videonet.data.tables import write_table
from videonet.errors import CheckpointError, WriteError
from videonet.figures import save_figure
from videonet.inference.rendering import write_heat_video
from videonet.inference.result_files import open_results

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc takes no files")
NOISE = np.random.default_rng(0).integers(0, 255, (8, 64, 64, 3), dtype=np.uint8)


def features(folder):
    rng = np.random.default_rng(0)
    with FeatureWriter(folder, {"classes": []}) as writer:
        for k in range(3):
            rows = rng.random((50, 40), dtype=np.float32)
            writer.add(VideoFeatures(f"{k}.mp4", rows, rows[:, :2]))


def picture(folder):
    figure = Figure()
    figure.subplots().imshow(NOISE[0])
    save_figure(figure, folder / "a.png")


WRITERS = {
    "features": features,
    "picture": picture,
    "video": lambda folder: write_heat_video(
        NOISE, np.zeros((8, 64, 64)), [("a", 0.5)], 4.0, folder / "a.mp4"
    ),
    "table": lambda folder: write_table(folder / "a.csv", ["a"], [["text"]] * 2000),
    "manifest": lambda folder: write_manifest(folder / "a.json", [], "x" * 5000),
    "configuration": lambda folder: save_config(default_config(), folder / "a.yaml"),
    "demo data": lambda folder: write_demo_dataset(folder, train_clips=2, val_clips=1, size=64),
    "checkpoint": lambda folder: write_checkpoint(folder / "a.pyth", {"a": torch.rand(5000)}),
    "tensors": lambda folder: write_checkpoint(folder / "a.safetensors", {"a": torch.rand(5000)}),
}


@pytest.fixture
def full():
    """A limit on the size of files stands for a full disk: what fits is written."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))

    yield fill
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("what", WRITERS)
def test_a_full_disk(what, tmp_path, full):
    full(1000)
    with pytest.raises((WriteError, CheckpointError), match="cannot write .*[Ff]ile too large"):
        WRITERS[what](tmp_path)
    full(resource.RLIM_INFINITY)
    assert not [p for p in tmp_path.rglob("*") if p.name.startswith(".part")]
    assert not list(tmp_path.rglob("a.*")), "half of a file has the name of a whole one"
    WRITERS[what](tmp_path)  # and once there is room, the same goes on


@pytest.mark.parametrize("what", WRITERS)
def test_a_folder_that_takes_no_files(what, tmp_path):
    with pytest.raises((WriteError, CheckpointError), match="cannot write .*/proc/"):
        WRITERS[what](Path("/proc/1/videonet"))


def test_features_written_before_stay(tmp_path, full):
    features(tmp_path)
    (tmp_path / "index.jsonl").write_text(
        "".join((tmp_path / "index.jsonl").read_text().splitlines(keepends=True)[:2])
    )
    full(1000)
    with pytest.raises(WriteError):
        features(tmp_path)
    full(resource.RLIM_INFINITY)
    assert [video.video for video in read_features(tmp_path)] == ["0.mp4", "1.mp4"]


def test_results_in_a_folder_that_takes_no_files(tmp_path):
    for name in ("x.jsonl", "x.csv", "x.txt"):
        with pytest.raises(WriteError, match="cannot write /proc/1/videonet"):
            open_results(Path("/proc/1/videonet", name), None, sys.stdout)
