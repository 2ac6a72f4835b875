"""Bad input ends a tool in one sentence, with exit code 2 for usage and 1 for failure."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import videonet
from videonet.data.preparing.synthetic import write_demo_dataset

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    write_demo_dataset(folder, train_clips=10, val_clips=10, size=32, num_frames=8, seed=0)
    return folder


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs a tool in this process; returns its exit code and the last line on stderr."""

    def start(tool, *args):
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr(sys, "argv", [tool, *map(str, args)])
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(str(ROOT / "tools" / tool), run_name="__main__")
        return stopped.value.code, capsys.readouterr().err.strip().splitlines()[-1]

    return start


@pytest.fixture
def train(run, data, tmp_path):
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
    "label too high": ("{good} 8\n", "8"),
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
    code, message = train(lines)
    assert code == 1
    assert message.startswith("error: ") and named in message


def test_unknown_key_is_a_usage_error(train):
    code, message = train("", "SOLVER.BASE_LRR", "1")
    assert code == 2
    assert "SOLVER.BASE_LRR" in message and "did you mean SOLVER.BASE_LR" in message


def test_checkpoint_of_another_model(run, data, tmp_path):
    path = tmp_path / "other.pyth"
    other = videonet.create_model("mvit_v1_b", num_classes=8, depth=4, embed_dim=16)
    torch.save({"model_state": other.state_dict()}, path)
    clip = data / (data / "val.csv").read_text().split()[0]
    arguments = (clip, "--cfg", "configs/DEMO/MVITv2_XS.yaml", "--checkpoint")
    code, message = run("predict.py", *arguments, path)
    assert code == 1 and "other.pyth" in message
    code, message = run("predict.py", *arguments, tmp_path / "nothing.pyth")
    assert code == 1 and "nothing.pyth" in message


def test_a_process_of_its_own_shows_no_traceback(tmp_path):
    command = [sys.executable, "tools/run_net.py", "--cfg", "configs/DEMO/MVITv2_XS.yaml"]
    command += ["DATA.PATH_TO_DATA_DIR", str(tmp_path), "OUTPUT_DIR", str(tmp_path / "run")]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert result.stderr.strip().splitlines()[-1].startswith("error: ")
