"""Pictures of one and of several runs."""

import json
import runpy
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "plot_run.py"


@pytest.fixture
def draw(monkeypatch, capsys):
    def start(*arguments):
        monkeypatch.setattr(sys, "argv", ["plot_run.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(str(TOOL), run_name="__main__")
        said = capsys.readouterr()
        return stopped.value.code, said.out.strip(), said.err.strip()

    return start


def write_run(folder):
    folder.mkdir(parents=True)
    lines = [
        {"kind": "train", "step": 1, "epoch": 0.5, "loss": 2.0, "lr": 0.1, "clips_per_second": 3.0},
        {"kind": "val", "step": 1, "epoch": 1, "loss": 1.0, "top1": 50.0, "top5": 100.0},
    ]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_one_run_and_several(draw, tmp_path):
    runs = [write_run(tmp_path / name / "run") for name in "ab"]
    assert draw(runs[0]) == (0, str(runs[0] / "learning_curve.png"), "")
    assert draw(*runs, "--smoothing", 5) == (0, str(runs[0] / "comparison.png"), "")
    assert draw(*runs, "--output", tmp_path / "x.png") == (0, str(tmp_path / "x.png"), "")
    assert (tmp_path / "x.png").stat().st_size > 0


def test_a_folder_without_a_run_is_named(draw, tmp_path):
    code, _, said = draw(tmp_path)
    assert code == 1 and said.startswith(f"error: {tmp_path}/log.jsonl does not exist")
