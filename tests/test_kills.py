"""Kills at random moments: every job, begun again until it is finished, ends as an undisturbed one.

VIDEONET_KILLS says how many there are in all; each job has its share of them.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import videonet
from tests import killing
from tests.killing import Job, kill_at_random
from videonet.checkpoint import read_checkpoint
from videonet.checkpoint.checkpoint_dir import checkpoint_folder, saved_checkpoints
from videonet.config import load_config
from videonet.data.feature_store import INDEX, read_features
from videonet.data.loading.loader import BAD_LIST
from videonet.data.preparing.synthetic import write_demo_dataset

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="children are found in /proc"),
]
KILLS = int(os.environ.get("VIDEONET_KILLS", "200"))
SHARE = {
    "train": 40, "train_with_workers": 25, "train_in_two": 20, "predict_jsonl": 30,
    "predict_csv": 20, "features": 20, "prepare": 15, "verify": 15, "demo_data": 15,
}  # fmt: skip
SMALL = (
    *("DATA.NUM_FRAMES", "4", "DATA.TRAIN_CROP_SIZE", "32", "DATA.TEST_CROP_SIZE", "32"),
    *("DATA.TRAIN_JITTER_SCALES", "[32, 36]", "DEVICE", "cpu"),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    write_demo_dataset(folder, train_clips=24, val_clips=8, size=32, num_frames=8, seed=0)
    return folder


@pytest.fixture(scope="module")
def checkpoint(data, tmp_path_factory) -> Path:
    cfg = load_config("DEMO/MVITv2_XS.yaml", list(SMALL))
    torch.manual_seed(0)
    model = videonet.create_model("mvit_v2_xs", num_classes=8, num_frames=4, crop_size=32)
    path = tmp_path_factory.mktemp("run") / "weights.pyth"
    names = (data / "classes.txt").read_text().split()
    torch.save({"model_state": model.state_dict(), "cfg": cfg.dump(), "class_names": names}, path)
    return path


def run(
    name: str, make: Callable[[Path], Job], content: Callable[[Path], object], tmp_path: Path
) -> None:
    """Kill the job that writes to a folder; `content` is what has to be the same at the end."""
    whole, place = tmp_path / "whole", tmp_path / "disturbed"
    log = str(tmp_path / "log.txt")
    seconds = replace(make(whole), log=log).finish()
    expected = content(whole)

    def check() -> None:
        assert content(place) == expected
        shutil.rmtree(place)

    kills = max(1, round(SHARE[name] * KILLS / sum(SHARE.values())))
    done = kill_at_random(replace(make(place), log=log), seconds, kills, random.Random(name), check)
    with open(tmp_path.parent / "kills.txt", "a") as file:
        file.write(f"{name}: {dict(done)}, {seconds:.1f} s undisturbed\n")


def files(folder: Path) -> dict[str, bytes]:
    """Everything that a job left, but for locks and for descriptions that name the folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (".prepare.lock", "prepared.json")
    }


def end_of_training(folder: Path) -> list:
    assert not (folder / BAD_LIST).exists(), (folder / BAD_LIST).read_text()
    assert not list(checkpoint_folder(folder).glob(".*"))
    content = read_checkpoint(saved_checkpoints(folder)[-1])
    states = [content["model_state"], content["ema_state"], content["optimizer_state"]["state"]]
    return [content["step"], str([_exact(state) for state in states])]


def _exact(value):
    """Tensors as their bytes, in text that two runs can be compared by."""
    if isinstance(value, dict):
        return [(key, _exact(value[key])) for key in sorted(value, key=str)]
    return value.contiguous().numpy().tobytes().hex() if isinstance(value, torch.Tensor) else value


def training(data: Path, target: Callable[..., None], *options, port: bool = False):
    def make(folder: Path) -> Job:
        cfg = load_config(
            "DEMO/MVITv2_XS.yaml",
            [
                *SMALL,
                *("DATA.PATH_TO_DATA_DIR", str(data), "OUTPUT_DIR", str(folder)),
                *("TRAIN.BATCH_SIZE", "6", "SOLVER.MAX_EPOCH", "3", "SOLVER.WARMUP_EPOCHS", "1"),
                *("TRAIN.CHECKPOINT_STEPS", "1", "TRAIN.EVAL_PERIOD", "2", "MIXUP.ENABLE", "True"),
                *("SOLVER.EMA_DECAY", "0.9", "MODEL.DROPOUT_RATE", "0.5", "LOG_PERIOD", "1"),
                *("TENSORBOARD.ENABLE", "False", *map(str, options)),
            ],
        )
        return Job(target, (cfg.dump(), _free_port()) if port else (cfg.dump(),))

    return make


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_training(data, tmp_path):
    make = training(data, killing.train, "DATA_LOADER.NUM_WORKERS", 0)
    run("train", make, end_of_training, tmp_path)


def test_training_with_workers(data, tmp_path):
    make = training(data, killing.train, "DATA_LOADER.NUM_WORKERS", 2)
    run("train_with_workers", make, end_of_training, tmp_path)


def test_training_in_two_processes(data, tmp_path):
    make = training(data, killing.train_in_two, "DATA_LOADER.NUM_WORKERS", 0, port=True)
    run("train_in_two", make, end_of_training, tmp_path)


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_predict(kind, data, checkpoint, tmp_path):
    def make(folder: Path) -> Job:
        options = ("--window", "0.2", "--stride", "0.05") if kind == "jsonl" else ()
        arguments = (data / "train.csv", "--checkpoint", checkpoint, "--quiet", *options)
        output = folder / f"all.{kind}"
        return Job(killing.run_main, ("predict", *arguments, "--output", output))

    run(f"predict_{kind}", make, files, tmp_path)


def test_features(data, checkpoint, tmp_path):
    def make(folder: Path) -> Job:
        arguments = (data / "train.csv", "--checkpoint", checkpoint, "--quiet", "--frames")
        return Job(killing.run_main, ("extract_features", *arguments, "--output", folder))

    def content(folder: Path):
        videos = [json.loads(line)["video"] for line in (folder / INDEX).read_text().splitlines()]
        assert len(videos) == len(set(videos)) == 24 == len(read_features(folder))
        return files(folder)

    run("features", make, content, tmp_path)


def test_prepare(data, tmp_path):
    def make(folder: Path) -> Job:
        cfg = ("--cfg", "DEMO/MVITv2_XS.yaml", "--split", "train", "--workers", "2")
        where = ("--output", folder, "--short-side", "24", "DATA.PATH_TO_DATA_DIR", data)
        return Job(killing.run_main, ("data", "prepare", *cfg, *where))

    run("prepare", make, files, tmp_path)


def test_verify(data, tmp_path):
    def content(folder: Path):
        found = json.loads((folder / "train.csv.manifest.json").read_text())
        reasons = [row[found["columns"].index("reason")] for row in found["videos"]]
        assert reasons == [""] * 24
        return sorted(found.pop("videos")), found, sorted(files(folder))

    def make(folder: Path) -> Job:
        return Job(killing.verify_list, (str(folder), str(data)))

    run("verify", make, content, tmp_path)


def test_demo_data(tmp_path):
    run("demo_data", lambda folder: Job(killing.write_demo, (str(folder),)), files, tmp_path)
