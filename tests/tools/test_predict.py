"""tools/predict.py and its neighbours on folders in which not every file is a video."""

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch

import videonet
from videonet.config import load_config
from videonet.data.preparing.synthetic import write_demo_dataset

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    write_demo_dataset(folder, train_clips=16, val_clips=8, size=32, num_frames=8, seed=0)
    return folder


@pytest.fixture(scope="module")
def checkpoint(data, tmp_path_factory):
    cfg = load_config("DEMO/MVITv2_XS.yaml", ["DATA.TEST_CROP_SIZE", "32", "DEVICE", "cpu"])
    torch.manual_seed(0)
    model = videonet.create_model("mvit_v2_xs", num_classes=8, num_frames=8, crop_size=48)
    path = tmp_path_factory.mktemp("run") / "weights.pyth"
    names = (data / "classes.txt").read_text().split()
    content = {"model_state": model.state_dict(), "cfg": cfg.dump(), "class_names": names}
    torch.save(content, path)
    return path


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs a tool in this process; returns its exit code, stdout and stderr."""

    def start(tool, *args):
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr(sys, "argv", [tool, *map(str, args)])
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(str(ROOT / "tools" / tool), run_name="__main__")
        captured = capsys.readouterr()
        return stopped.value.code, captured.out, captured.err

    return start


def test_a_folder_with_a_broken_file(run, data, checkpoint, tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    for k, path in enumerate(sorted((data / "val").rglob("*.mp4"))[:3]):
        (videos / f"{k}.mp4").symlink_to(path)
    (videos / "1b.mp4").write_text("no video")
    output = tmp_path / "out" / "all.jsonl"
    arguments = (videos, "--checkpoint", checkpoint, "--output", output, "--quiet")
    code, _, errors = run("predict.py", *arguments)
    assert code == 3
    assert [line for line in errors.splitlines() if "1b.mp4" in line], errors
    records = [json.loads(line) for line in output.read_text().splitlines()]
    assert [Path(r["video"]).name for r in records] == ["0.mp4", "1.mp4", "1b.mp4", "2.mp4"]
    assert "1b.mp4" in records[2]["error"] and len(records[3]["top"]) == 5

    (videos / "1b.mp4").unlink()
    (videos / "1b.mp4").symlink_to(videos / "0.mp4")
    before = output.stat().st_ino
    code, _, _ = run("predict.py", *arguments)
    again = [json.loads(line) for line in output.read_text().splitlines()]
    assert code == 0 and before != output.stat().st_ino
    assert again[:3] == [records[0], records[1], records[3]]  # not scored again
    assert Path(again[3]["video"]).name == "1b.mp4" and again[3]["top"] == records[0]["top"]


def test_a_long_video_goes_on_in_the_middle(run, data, checkpoint, tmp_path):
    video = sorted((data / "val").rglob("*.mp4"))[0]
    output = tmp_path / "all.jsonl"
    options = ("--checkpoint", checkpoint, "--window", 0.2, "--stride", 0.1, "--quiet")
    assert run("predict.py", video, *options, "--output", output)[0] == 0
    whole = output.read_text()
    lines = whole.splitlines(keepends=True)
    assert len(lines) >= 5
    output.write_text("".join(lines[:2]) + lines[2][:30])
    assert run("predict.py", video, *options, "--output", output)[0] == 0
    for one, other in zip(lines, output.read_text().splitlines(), strict=True):
        one, other = json.loads(one), json.loads(other)
        assert one.keys() == other.keys()
        assert [name for name, _ in one["top"]] == [name for name, _ in other["top"]]


def test_the_table_and_the_pictures(run, data, checkpoint, tmp_path):
    video = sorted((data / "val").rglob("*.mp4"))[0]
    pictures = {
        **{name: tmp_path / f"{name}.png" for name in ("picture", "timeline")},
        **{name: tmp_path / f"{name}.mp4" for name in ("overlay", "explain")},
    }
    flags = [part for name, path in pictures.items() for part in (f"--{name}", path)]
    options = ("--window", 0.2, "--on", 0.1, "--off", 0.05, "--top-k", 2, "--quiet")
    code, out, _ = run("predict.py", video, "--checkpoint", checkpoint, *options, *flags)
    lines = out.splitlines()
    assert code == 0 and lines[0] == str(video) and len(lines) >= 4 and " s  " in lines[3]
    from videonet.data import open_video

    for path in pictures.values():
        assert path.stat().st_size > 1000
    with open_video(pictures["overlay"]) as overlay, open_video(video) as original:
        assert overlay.info.frames == original.info.frames == 8
        assert abs(overlay.info.fps - original.info.fps) < 0.1
    with open_video(pictures["explain"]) as explained:
        assert explained.info.frames == 8 and explained.info.width == 2 * explained.info.height


def test_usage_errors(run, data, checkpoint, tmp_path):
    video = sorted((data / "val").rglob("*.mp4"))[0]
    for flags, named in (
        (("--overlay", tmp_path / "x.gif"), ".mp4"),
        (("--stride", 0), "stride"),
        (("--on", 0.1), "off <= on"),
        (("--aggregate", "attention"), "head"),
    ):
        code, _, errors = run("predict.py", video, "--checkpoint", checkpoint, *flags, "--quiet")
        assert code == 2 and named in errors.splitlines()[-1], errors
    code, _, errors = run("predict.py", tmp_path, "--checkpoint", checkpoint)
    assert code == 1 and "no video file" in errors.splitlines()[-1]


def test_features_probe_and_head(run, data, checkpoint, tmp_path):
    for split in ("train", "val"):
        arguments = (data / f"{split}.csv", "--checkpoint", checkpoint, "--frames", "--quiet")
        assert run("extract_features.py", *arguments, "--output", tmp_path / split)[0] == 0
    assert len(list((tmp_path / "train").glob("*.safetensors"))) == 16
    both = ("--train", tmp_path / "train", "--val", tmp_path / "val")
    code, out, _ = run("probe.py", *both)
    assert code == 0 and json.loads(out)["train_videos"] == 16
    code, out, _ = run(
        "train_head.py",
        *("--cfg", "configs/DEMO/video_head.yaml", *both, "OUTPUT_DIR", tmp_path / "head"),
        *("VIDEO_HEAD.LEVELS", 2, "SOLVER.MAX_EPOCH", 2, "TRAIN.BATCH_SIZE", 8),
    )
    assert code == 0 and json.loads(out)["head"].endswith("video_head.safetensors")
    video = sorted((data / "val").rglob("*.mp4"))[0]
    head = ("--aggregate", "attention", "--head", tmp_path / "head", "--quiet")
    for window in ((), ("--window", 0.2)):
        code, out, _ = run("predict.py", video, "--checkpoint", checkpoint, *head, *window)
        assert code == 0 and len(out.splitlines()) >= 6


@pytest.mark.slow
@pytest.mark.parametrize("windows", [(), ("--sliding",)])
def test_every_file_of_the_collection(run, checkpoint, shared_dir, tmp_path, windows):
    output = tmp_path / "all.jsonl"
    folder = shared_dir / "data/decode"
    arguments = (folder, "--checkpoint", checkpoint, "--output", output, "--quiet", *windows)
    code, _, errors = run("predict.py", *arguments)
    records = [json.loads(line) for line in output.read_text().splitlines()]
    failed = {Path(r["video"]).name for r in records if "error" in r}
    scored = {r["video"] for r in records if "top" in r and "window" not in r}
    assert code == 3 and len(scored) == 65
    assert failed == {
        *("corrupted.mp4", "chunk_out_of_range.mp4", "invalid_userdata.mp4"),
        *("no_timescale.mp4", "zero_empty_stsc.mp4"),
    }
    for name in failed:
        assert len([line for line in errors.splitlines() if name in line]) == 1
