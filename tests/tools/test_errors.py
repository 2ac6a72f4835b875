"""Bad input ends a tool in one sentence, with exit code 2 for usage and 1 for failure."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import videonet
from videonet.data.synthetic import write_demo_dataset

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    write_demo_dataset(folder, train_clips=10, val_clips=10, size=32, num_frames=8, seed=0)
    return folder


def run(tool, *args):
    command = [sys.executable, str(ROOT / "tools" / tool), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)


def last_line(result):
    assert "Traceback" not in result.stderr
    return result.stderr.strip().splitlines()[-1]


@pytest.fixture
def train(data, tmp_path):
    def start(lines=None, *overrides):
        if lines is not None:
            (tmp_path / "train.csv").write_text(lines)
        return run(
            "run_net.py",
            *("--cfg", "configs/DEMO/MVITv2_XS.yaml", "DATA.PATH_TO_DATA_DIR", data),
            *("DATA.TRAIN_LIST", tmp_path / "train.csv", "OUTPUT_DIR", tmp_path / "run"),
            *("DATA.TRAIN_CROP_SIZE", 32, "DATA.TEST_CROP_SIZE", 32),
            *("DATA.TRAIN_JITTER_SCALES", "[32, 32]", "DATA_LOADER.NUM_WORKERS", 0),
            *overrides,
        )

    return start


CASES = {
    "missing list": (None, "train.csv"),
    "empty list": ("", "train.csv"),
    "no label": ("a.mp4\n", "line 1"),
    "label too high": ("{good} 10\n", "10"),
    "no such video": ("nowhere.mp4 0\n", "nowhere.mp4"),
    "not a video": ("{text} 0\n", "text.mp4"),
}


@pytest.mark.parametrize("case", sorted(CASES))
def test_list_that_cannot_be_used(case, train, data, tmp_path):
    lines, named = CASES[case]
    good = data / (data / "train.csv").read_text().split()[0]
    (tmp_path / "text.mp4").write_text("this is no video")
    if lines is not None:
        lines = lines.format(good=good, text=tmp_path / "text.mp4")
    result = train(lines)
    assert result.returncode == 1
    assert last_line(result).startswith("error: ") and named in last_line(result)


def test_unknown_key_is_a_usage_error(train):
    result = train("", "SOLVER.BASE_LRR", "1")
    assert result.returncode == 2
    assert "SOLVER.BASE_LRR" in last_line(result)
    assert "did you mean SOLVER.BASE_LR" in last_line(result)


def test_checkpoint_of_another_model(data, tmp_path):
    path = tmp_path / "other.pyth"
    other = videonet.create_model("mvit_v1_b", num_classes=10, depth=4, embed_dim=16)
    torch.save({"model_state": other.state_dict()}, path)
    clip = data / (data / "val.csv").read_text().split()[0]
    arguments = (clip, "--cfg", "configs/DEMO/MVITv2_XS.yaml", "--checkpoint")
    result = run("predict.py", *arguments, path)
    assert result.returncode == 1
    assert "other.pyth" in last_line(result)
    result = run("predict.py", *arguments, tmp_path / "nothing.pyth")
    assert result.returncode == 1
    assert "nothing.pyth" in last_line(result)
