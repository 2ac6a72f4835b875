"""A checkpoint's head is kept for classes of the same name, in the order of the model's."""

from __future__ import annotations

import csv

import pytest
import torch

from videonet.checkpoint import load_checkpoint, load_trained
from videonet.config import load_config
from videonet.data.preparing.synthetic import write_demo_dataset
from videonet.engine.distributed import process
from videonet.engine.multiview import run_multiview_test
from videonet.engine.train import Trainer
from videonet.errors import CheckpointError, DataError
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
def test_classes_of_the_same_name_keep_their_rows(family):
    model = build(family, seed=1)
    before = model.head.projection.weight.clone()
    report = load_checkpoint(model, saved(NAMES, family), class_names=OTHERS)
    rows = build(family).head.projection.weight
    assert torch.equal(model.head.projection.weight[:4], rows[:4])
    assert torch.equal(model.head.projection.weight[4], before[4])
    assert report.partial == ["head.projection.weight", "head.projection.bias"]
    assert "4 of 5 classes keep their rows of the checkpoint's 5, the others are new" in str(report)
    with pytest.raises(CheckpointError, match="not trained for the classes.*4 of 5"):
        load_trained(model, saved(NAMES, family), class_names=OTHERS)


@pytest.mark.parametrize("family", list_models("*_xs"))
def test_classes_of_other_names_get_a_new_head_though_the_number_fits(family):
    model = build(family, seed=1)
    before = model.head.projection.weight.clone()
    report = load_checkpoint(model, saved(NAMES, family), class_names=list("abcde"))
    assert report.reinitialised == ["head.projection.weight", "head.projection.bias"]
    assert "'walk'" in str(report) and "'a'" in str(report)
    assert torch.equal(model.head.projection.weight, before)
    with pytest.raises(CheckpointError, match="not trained for the classes.*'walk'.*'a'"):
        load_trained(model, saved(NAMES, family), class_names=list("abcde"))


def logits_of(names, **options):
    """Logits of a model for classes `names` with the head of `saved(NAMES)`, and of that one."""
    torch.manual_seed(1)
    model = create_model("mvit_v2_xs", num_classes=len(names)).eval()
    source = options.pop("source", saved(NAMES))
    report = load_checkpoint(model, source, class_names=names, **options)
    clip = torch.randn(2, 3, 8, 48, 48)
    with torch.no_grad():
        return model(clip), build()(clip), report


@pytest.mark.parametrize("names", [["Sit", "EAT "], ["new", "jump", "walk", "other", "a", "b"]])
def test_a_head_for_fewer_or_more_classes_keeps_what_it_can(names):
    ours, theirs, report = logits_of(names)
    kept = [
        (i, NAMES.index(n.strip().lower()))
        for i, n in enumerate(names)
        if n.strip().lower() in NAMES
    ]
    for here, there in kept:
        assert torch.allclose(ours[:, here], theirs[:, there], atol=1e-5)
    assert f"{len(kept)} of {len(names)} classes keep their rows of the checkpoint's 5" in str(
        report
    )


def test_spaces_and_underscores_and_small_and_large_letters_are_the_same():
    state = saved(["Long jump", "HIGH_JUMP", "a", "b", "c"])
    ours, theirs, _ = logits_of(["high  jump", "long_jump"], source=state)
    assert torch.allclose(ours, theirs[:, [1, 0]], atol=1e-5)


def test_names_that_only_letters_tell_apart_are_compared_as_they_are():
    state = saved(["Go", "go", "a", "b", "c"])
    ours, theirs, _ = logits_of(["go", "Go"], source=state)
    assert torch.allclose(ours, theirs[:, [1, 0]], atol=1e-5)


def test_names_may_be_given_for_the_checkpoint():
    state = {"model_state": build().state_dict()}
    ours, theirs, _ = logits_of(["sit", "eat"], source=state, source_classes=NAMES)
    assert torch.allclose(ours, theirs[:, [3, 1]], atol=1e-5)


def test_two_classes_of_one_name_stay_in_their_order():
    twice = ["crane", "eat", "crane", "sit", "jump"]
    ours, theirs, report = logits_of(twice, source=saved(twice))
    assert torch.allclose(ours, theirs, atol=1e-5) and not report.partial


def test_a_table_names_what_classes_become(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text('from,to\nwalk,"going, slowly"\nrun,going_fast\nJUMP,going fast\n')
    ours, theirs, report = logits_of(["going fast", "going, slowly", "eat"], class_table=path)
    wanted = [(theirs[:, 2] + theirs[:, 4]) / 2, theirs[:, 0], theirs[:, 1]]
    assert torch.allclose(ours, torch.stack(wanted, dim=1), atol=1e-5)
    assert "3 of 3 classes keep their rows of the checkpoint's 5" in str(report)


def test_a_table_may_say_the_numbers_of_classes_without_names():
    state = {"model_state": build().state_dict()}
    ours, theirs, _ = logits_of(["up", "down"], source=state, class_table={"4": "up", "2": "down"})
    assert torch.allclose(ours, theirs[:, [4, 2]], atol=1e-5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("walk\n", "line 1: 'walk' is no pair of classes, expected from,to"),
        ("walk,a\nwalk,b\n", "line 2: the class 'walk' has been given before"),
        ("\n", "holds no pairs of classes"),
        ("swim,a\n", "'swim', which is no class of the checkpoint"),
    ],
)
def test_a_bad_table_is_refused(tmp_path, text, said):
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises((CheckpointError, DataError), match=said):
        logits_of(["a", "b"], class_table=path)


def test_a_table_needs_the_names_here():
    with pytest.raises(CheckpointError, match="needs the names of the model's classes"):
        load_checkpoint(build(), saved(NAMES), class_table={"walk": "a"})


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


def test_a_training_takes_a_table_of_classes(demo, trained, tmp_path):
    path = trained[0] / "checkpoints" / "checkpoint_epoch_00001.pyth"
    before = torch.load(path, weights_only=True)["model_state"]["head.projection.weight"]
    names = (demo / "classes.txt").read_text().splitlines()
    (tmp_path / "classes.txt").write_text("\n".join([f"my {name}" for name in names]))
    (tmp_path / "table.csv").write_text(f"{names[2]},my {names[0]}\n")
    base = ("TRAIN.CHECKPOINT_FILE_PATH", path, "DATA.CLASS_NAMES", tmp_path / "classes.txt")
    table = ("TRAIN.CLASS_TABLE", tmp_path / "table.csv", "TRAIN.BATCH_SIZE", 4)
    with process("cpu") as this:
        trainer = Trainer(config(demo, tmp_path, *base, *table), this)
    head = trainer.model.head.projection.weight
    assert torch.equal(head[0], before[2]) and not torch.equal(head[1], before[1])
