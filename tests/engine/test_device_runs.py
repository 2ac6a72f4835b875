"""The shipped recipe on a device: ten steps on video files, interrupted, tested, predicted."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import SHARED
from videonet.data.preparing.synthetic import write_demo_dataset
from videonet.engine.metric_logger import read_log

pytestmark = pytest.mark.cuda

ROOT = Path(__file__).resolve().parents[2]
REAL = ("imageio/cockatoo.mp4", "mmaction2/demo.mp4", "mmaction2/test.mp4",
        "intel/bottle-detection.mp4")  # fmt: skip
STEPS = 5  # of an epoch


def videos(folder: Path) -> list[Path]:
    """Real videos where there are some, else drawn ones of Kinetics' size."""
    real = [SHARED / "data" / "decode" / name for name in REAL]
    if all(path.exists() for path in real):
        return real
    write_demo_dataset(folder, train_clips=8, val_clips=8, size=256, num_frames=90, fps=30)
    return sorted(folder.glob("train/*/*.mp4"))


def run_tool(name: str, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / f"{name}.py"), *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def recipe(tmp_path_factory, device) -> list[str]:
    """Arguments of tools/run_net.py: K400/MVITv2_S on a few files; on the CPU with small batches.

    One file is listed more than once to fill the steps.
    """
    folder = tmp_path_factory.mktemp("lists")
    files = videos(folder / "drawn")
    batch = 16 if device.type == "cuda" else 1
    for split, count in (("train", STEPS * batch), ("val", len(files))):
        lines = [f"{files[k % len(files)]} {k % len(files)}\n" for k in range(count)]
        (folder / f"{split}.csv").write_text("".join(lines))
    return [
        *("--cfg", "configs/K400/MVITv2_S.yaml"),
        *("DATA.PATH_TO_DATA_DIR", folder, "OUTPUT_DIR", folder / "run"),
        *("TRAIN.BATCH_SIZE", batch, "TEST.BATCH_SIZE", 5 * len(files)),
        *("DEVICE", device.type, "DATA_LOADER.NUM_WORKERS", min(8, os.cpu_count() or 1)),
        *("LOG_PERIOD", 1, "SOLVER.WARMUP_EPOCHS", 1, "TRAIN.EVAL_PERIOD", 1),
    ]


def losses(folder: Path) -> list[float]:
    records = read_log(folder / "log.jsonl")
    return [record["loss"] for record in records if record["kind"] == "train"]


def test_ten_steps_resumed_tested_and_predicted(recipe, device):
    folder = Path(recipe[recipe.index("OUTPUT_DIR") + 1])
    run_tool("run_net", *recipe, "SOLVER.MAX_EPOCH", 1, "TEST.ENABLE", False)
    assert len(losses(folder)) == STEPS
    out = run_tool("run_net", *recipe, "SOLVER.MAX_EPOCH", 2)
    found = losses(folder)
    assert len(found) == 2 * STEPS, "the second run did not go on where the first one ended"
    assert all(torch.isfinite(torch.tensor(found)))
    results = json.loads((folder / "results.json").read_text())
    assert results == json.loads(out)
    with (folder / "scores.csv").open(newline="") as file:
        assert sum(1 for _ in csv.reader(file)) > 1
    line = (folder.parent / "val.csv").read_text().splitlines()[0]
    video = line.rpartition(" ")[0]
    out = run_tool(
        "predict", video, "--cfg", folder / "config.yaml", "--checkpoint", folder, "--quiet"
    )
    assert Path(video).name in out
