"""What a run needs is looked at before its first step."""

import logging
import os
import shutil

import pytest

from videonet.engine import train as training
from videonet.engine.distributed import process
from videonet.engine.train import Trainer
from videonet.errors import CheckpointError, DataError


@pytest.fixture
def copied(demo_folder, tmp_path):
    return shutil.copytree(demo_folder, tmp_path / "data")


@pytest.fixture
def begin(tiny, copied, monkeypatch):
    """A function of overrides that builds a trainer, without a step."""

    def refuse(*_):
        raise AssertionError("a step was made")

    monkeypatch.setattr(training.Trainer, "_train_step", refuse)

    def make(*overrides):
        with process("cpu") as this:
            return Trainer(tiny("DATA.PATH_TO_DATA_DIR", copied, *overrides), this)

    return make


def only(folder, split, lines):
    (folder / f"{split}.csv").write_text("".join(f"{line}\n" for line in lines))


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_split_without_a_readable_video(split, workers, begin, copied):
    for k in range(3):
        (copied / f"broken{k}.mp4").write_text("this is no video")
    only(copied, split, [f"broken{k}.mp4 0" for k in range(3)])
    said = rf"{split}.csv: none of the 3 videos of the {split} data can be read; .*broken0.mp4"
    with pytest.raises(DataError, match=said):
        begin("DATA_LOADER.NUM_WORKERS", workers, "TRAIN.BATCH_SIZE", 1)


def test_one_readable_video_is_enough(begin, copied):
    (copied / "broken.mp4").write_text("this is no video")
    good = (copied / "val.csv").read_text().splitlines()[-1]
    only(copied, "val", ["broken.mp4 0", good])
    begin()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("TEST.DATASET", "folder", "DATA.TEST_LIST", "missing"), "TEST.DATASET is folder"),
        (("TEST.DATASET", "ssv2", "DATA.TEST_LIST", "missing.json"), "TEST.DATASET is ssv2"),
        (("DATA.TEST_LIST", "missing.csv"), "missing.csv: there is no such list"),
        (("DATA.VAL_LIST", "missing.csv"), "missing.csv: there is no such list"),
    ],
)
def test_a_split_that_is_not_there(overrides, said, begin):
    with pytest.raises(DataError, match=said):
        begin(*overrides)


def test_what_the_run_does_not_need_may_be_missing(begin, copied):
    begin("DATA.TEST_LIST", "missing.csv", "TEST.ENABLE", False)
    os.remove(copied / "val.csv")
    begin("TEST.ENABLE", False, "TRAIN.EVAL_PERIOD", 0)


def test_the_checkpoint_to_test_exists(begin):
    with pytest.raises(CheckpointError, match="TEST.CHECKPOINT_FILE_PATH none.pyth does not exist"):
        begin("TEST.CHECKPOINT_FILE_PATH", "none.pyth")


def copies(folder, lines):
    """The videos of these lines under other names."""
    for k, line in enumerate(lines):
        path, label = line.rsplit(" ", 1)
        shutil.copy(folder / path, folder / f"copy{k}.mp4")
        yield f"copy{k}.mp4 {label}"


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("how", ["path", "content"])
def test_videos_that_are_trained_on_are_told(how, split, begin, copied, caplog):
    lines = (copied / "train.csv").read_text().splitlines()[:4]
    other = (copied / "val.csv").read_text().splitlines()[:2]
    only(copied, split, [*(lines if how == "path" else copies(copied, lines)), *other])
    with caplog.at_level(logging.WARNING, logger="videonet"):
        begin()
    said = f"4 of the 6 videos of the {split} data"
    assert said in caplog.text and f"training videos too, by their {how}" in caplog.text


@pytest.mark.parametrize(("shift", "told"), [(0, False), (1, True)], ids=["same", "other"])
def test_a_video_with_two_labels_is_told(shift, told, begin, copied, caplog):
    lines = (copied / "train.csv").read_text().splitlines()
    path, label = lines[0].rsplit(" ", 1)
    only(copied, "train", [*lines, f"{path} {(int(label) + shift) % 8}"])
    with caplog.at_level(logging.WARNING, logger="videonet"):
        begin()
    assert ("has 1 videos more than once, with other labels" in caplog.text) == told


def test_folders_of_frames_are_compared_too(tmp_path, caplog):
    from videonet.data.datasets.lists import read_list
    from videonet.engine.data_check import _warn_of_overlap

    for name in ("a", "b", "same_as_a"):
        (tmp_path / name).mkdir()
        for k in range(3):
            (tmp_path / name / f"{k}.jpg").write_bytes(bytes([k, name in ("a", "same_as_a")]) * 50)
    only(tmp_path, "train", ["a 0"])
    only(tmp_path, "val", ["same_as_a 0", "b 0"])
    train, val = (read_list(tmp_path / f"{split}.csv", 8) for split in ("train", "val"))
    _warn_of_overlap(train, val, "val")
    assert "1 of the 2 videos" in caplog.text and "same_as_a" in caplog.text


def test_different_videos_are_not_told(begin, caplog):
    with caplog.at_level(logging.WARNING, logger="videonet"):
        begin()
    assert "training videos too" not in caplog.text


def test_pipes_are_not_opened(tmp_path, caplog):
    from videonet.data.datasets.lists import read_list
    from videonet.engine.data_check import _warn_of_overlap

    os.mkfifo(tmp_path / "a.mp4")
    os.mkfifo(tmp_path / "b.mp4")
    only(tmp_path, "train", ["a.mp4 0"])
    only(tmp_path, "val", ["b.mp4 0"])
    train, val = (read_list(tmp_path / f"{split}.csv", 8) for split in ("train", "val"))
    _warn_of_overlap(train, val, "val")
    assert not caplog.records
