"""A checkpoint's head is kept for the same classes alone, in the order of the model's."""

from __future__ import annotations

import csv

import pytest
import torch

from videonet.checkpoint import load_checkpoint, load_trained
from videonet.config import load_config
from videonet.data.synthetic import write_demo_dataset
from videonet.engine.distributed import process
from videonet.engine.multiview import run_multiview_test
from videonet.engine.train import Trainer
from videonet.errors import CheckpointError
from videonet.heads.aggregation import VideoAttentionHead
from videonet.models import create_model, list_models
from videonet.tasks.clip_head import load_video_head

NAMES = ["walk", "eat", "run", "sit", "jump"]
ORDER = [3, 1, 4, 0, 2]
REORDERED = [NAMES[index] for index in ORDER]
OTHERS = ["walk", "eat", "run", "sit", "swim"]
NUMBERS = ["0", "1", "2", "3", "4"]


def build(family="mvit_v2_xs", seed=0):
    torch.manual_seed(seed)
    model = create_model(family, num_classes=5)
    with torch.no_grad():
        model.head.projection.bias.normal_()
    return model.eval()


def saved(names, family="mvit_v2_xs"):
    return {"model_state": build(family).state_dict(), "class_names": names}


@pytest.mark.parametrize("family", list_models("*_xs"))
def test_rows_change_places_with_the_names(family):
    clip = torch.randn(2, 3, 8, 48, 48)
    model = build(family, seed=1)
    report = load_trained(model, saved(NAMES, family), class_names=REORDERED)
    with torch.no_grad():
        assert torch.allclose(model(clip), build(family)(clip)[:, ORDER], atol=1e-5)
    assert "rows in the order of this model's classes" in {e.reason for e in report.target}


@pytest.mark.parametrize("family", list_models("*_xs"))
def test_other_classes_get_a_new_head_though_the_number_fits(family):
    model = build(family, seed=1)
    before = model.head.projection.weight.clone()
    report = load_checkpoint(model, saved(NAMES, family), class_names=OTHERS)
    assert report.reinitialised == ["head.projection.weight", "head.projection.bias"]
    assert "'jump'" in str(report) and "'swim'" in str(report)
    assert torch.equal(model.head.projection.weight, before)
    with pytest.raises(CheckpointError, match="not trained for the classes.*'jump'.*'swim'"):
        load_trained(model, saved(NAMES, family), class_names=OTHERS)


@pytest.mark.parametrize(
    ("there", "here", "noted"),
    [
        (NAMES, NAMES, False),
        (NUMBERS, NAMES, True),
        (None, NAMES, True),
        (NAMES, NUMBERS, True),
        (NAMES, None, False),
        (NUMBERS, NUMBERS, False),
    ],
)
def test_without_names_on_both_sides_the_head_is_kept_and_that_is_told(there, here, noted):
    model = build(seed=1)
    report = load_trained(model, saved(there), class_names=here)
    assert torch.equal(model.head.projection.weight, build().head.projection.weight)
    assert any("same order" in note for note in report.notes) == noted


def test_a_new_head_is_not_reported_as_loaded():
    model = build(seed=1)
    before = model.head.projection.weight.clone()
    report = load_checkpoint(model, saved(NAMES), class_names=NAMES, new_head=True)
    assert report.reinitialised == ["head.projection.weight", "head.projection.bias"]
    assert "new head was asked for" in str(report)
    assert not any(name.startswith("head.") for name in report.loaded)
    assert torch.equal(model.head.projection.weight, before)


@pytest.mark.parametrize("names", [5, "abcde", [1, 2, 3, 4, 5], ["a"], [""] * 5, {"a": 1}])
def test_odd_names_are_refused(names):
    model = build(seed=1)
    with pytest.raises(CheckpointError, match="class") as caught:
        load_trained(model, saved(names), class_names=NAMES)
    assert "\n" not in str(caught.value)


def test_heads_over_clips_follow_the_names_too(tmp_path):
    from videonet.checkpoint import write_checkpoint

    arguments = {"dim": 6, "num_classes": 5}
    head = VideoAttentionHead(**arguments).eval()
    content = {"model_state": head.state_dict(), "video_head": arguments, "class_names": NAMES}
    path = tmp_path / "head.safetensors"
    write_checkpoint(path, content)
    clips = torch.randn(2, 3, 6)
    found = load_video_head(path, 6, REORDERED)
    assert torch.allclose(found(clips), head(clips)[:, ORDER])
    with pytest.raises(CheckpointError, match="trained for other classes"):
        load_video_head(path, 6, OTHERS)
    write_checkpoint(path, content | {"video_head": arguments | {"hidden": 10**9}})
    with pytest.raises(CheckpointError, match="describes a model of"):
        load_video_head(path, 6, NAMES)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    write_demo_dataset(folder, train_clips=8, val_clips=8, size=32, num_frames=8, seed=0)
    return folder


def config(folder, run, *overrides):
    base = [
        *("DATA.PATH_TO_DATA_DIR", folder, "OUTPUT_DIR", run, "DEVICE", "cpu"),
        *("DATA.NUM_FRAMES", 4, "DATA.TRAIN_CROP_SIZE", 32, "DATA.TEST_CROP_SIZE", 32),
        *("DATA_LOADER.NUM_WORKERS", 0, "TRAIN.ENABLE", False, "MODEL.NUM_CLASSES", 0),
    ]
    return load_config("DEMO/MVITv2_XS.yaml", [str(item) for item in (*base, *overrides)])


def scores(run):
    with (run / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {row.pop("path"): row for row in rows}


@pytest.fixture(scope="module")
def trained(demo, tmp_path_factory):
    """A checkpoint whose classes are in another order than the folders', and its test on lists."""
    run = tmp_path_factory.mktemp("run")
    names = (demo / "classes.txt").read_text().splitlines()
    assert names != sorted(names)
    torch.manual_seed(0)
    model = create_model("mvit_v2_xs", num_classes=8, num_frames=4, crop_size=32)
    with torch.no_grad():
        model.head.projection.weight.normal_(std=0.5)
    cfg = config(demo, run, "MODEL.NUM_CLASSES", 8)
    content = {"model_state": model.state_dict(), "cfg": cfg.dump(), "class_names": names}
    (run / "checkpoints").mkdir()
    torch.save(content, run / "checkpoints" / "checkpoint_epoch_00001.pyth")
    with process("cpu") as this:
        results = run_multiview_test(config(demo, run), this)
    return run, results, scores(run)


@pytest.mark.parametrize("named", [True, False], ids=["names in a file", "names of the folders"])
def test_lists_and_folders_give_the_same_results(demo, trained, tmp_path, named):
    run, results, before = trained
    data = tmp_path / "data"
    data.mkdir()
    for split in ("train", "val"):
        (data / split).symlink_to(demo / split)
    if named:
        (data / "classes.txt").write_text((demo / "classes.txt").read_text())
    path = run / "checkpoints" / "checkpoint_epoch_00001.pyth"
    folders = ("TEST.DATASET", "folder", "TEST.CHECKPOINT_FILE_PATH", path)
    with process("cpu") as this:
        again = run_multiview_test(config(data, tmp_path / "test", *folders), this)
    for key in ("top1", "loss", "videos"):
        assert again[key] == pytest.approx(results[key], abs=1e-4)
    found = {
        path.replace(str(data), str(demo)): row for path, row in scores(tmp_path / "test").items()
    }
    assert found.keys() == before.keys()
    for path, row in before.items():
        assert found[path].pop("label") == row["label"]
        assert {k: float(v) for k, v in found[path].items()} == pytest.approx(
            {k: float(v) for k, v in row.items() if k != "label"}, abs=1e-4
        )


def test_testing_other_classes_is_refused(demo, trained, tmp_path):
    (tmp_path / "classes.txt").write_text("\n".join(f"other {k}" for k in range(8)))
    names = ("DATA.CLASS_NAMES", tmp_path / "classes.txt")
    path = trained[0] / "checkpoints" / "checkpoint_epoch_00001.pyth"
    cfg = config(demo, tmp_path, *names, "TEST.CHECKPOINT_FILE_PATH", path)
    with (
        process("cpu") as this,
        pytest.raises(CheckpointError, match="not trained for the classes"),
    ):
        run_multiview_test(cfg, this)


@pytest.mark.parametrize(
    ("names", "overrides", "order"),
    [
        ("same", (), "as it was"),
        ("reversed", (), "reversed"),
        ("other", (), "new"),
        ("same", ("TRAIN.NEW_HEAD", True), "new"),
    ],
)
def test_a_training_starts_from_the_head_of_the_same_classes(
    demo, trained, tmp_path, names, overrides, order
):
    path = trained[0] / "checkpoints" / "checkpoint_epoch_00001.pyth"
    before = torch.load(path, weights_only=True)["model_state"]["head.projection.weight"]
    listed = (demo / "classes.txt").read_text().splitlines()
    listed = {"same": listed, "reversed": listed[::-1], "other": list("abcdefgh")}[names]
    (tmp_path / "classes.txt").write_text("\n".join(listed))
    base = ("TRAIN.CHECKPOINT_FILE_PATH", path, "DATA.CLASS_NAMES", tmp_path / "classes.txt")
    cfg = config(demo, tmp_path, "TRAIN.BATCH_SIZE", 4, *base, *overrides)
    with process("cpu") as this:
        trainer = Trainer(cfg, this)
    head = trainer.model.head.projection.weight
    assert trainer.cfg.MODEL.NUM_CLASSES == 8
    assert torch.equal(head, before) == (order == "as it was")
    assert torch.equal(head, before.flip(0)) == (order == "reversed")
