"""Runs that go on with other settings, data or classes than they began with."""

import logging
import shutil
from functools import cache
from pathlib import Path

import pytest
import torch

from tests.engine import subprocess_helpers
from videonet.checkpoint import read_checkpoint
from videonet.checkpoint.checkpoint_dir import saved_checkpoints
from videonet.engine.distributed import process
from videonet.engine.resume import resume
from videonet.engine.train import Trainer
from videonet.errors import CheckpointError

ADAMW = ("SOLVER.OPTIMIZING_METHOD", "adamw", "SOLVER.WEIGHT_DECAY", 0.05)
SGD = ("SOLVER.OPTIMIZING_METHOD", "sgd", "SOLVER.NESTEROV", False)
START = ("SOLVER.MAX_EPOCH", 1, "TRAIN.EVAL_PERIOD", 0, "SOLVER.BASE_LR", 1e-3)


@pytest.fixture(scope="module")
def begun(tiny_in, tmp_path_factory):
    """A function of settings: the folder of a run of one epoch; tests change nothing of it."""

    @cache
    def make(before) -> Path:
        folder = tmp_path_factory.mktemp("begun")
        subprocess_helpers.run(tiny_in(folder, *START, *before))
        return folder

    return make


@pytest.fixture
def resumed(begun, tiny, tmp_path, caplog):
    """A function of settings before and after: the trainer that is about to go on."""

    def make(before, after) -> Trainer:
        shutil.copytree(begun(before), tmp_path / "run")
        with process("cpu") as this, caplog.at_level(logging.INFO, logger="videonet"):
            trainer = Trainer(tiny(*START, *before, "SOLVER.MAX_EPOCH", 2, *after), this)
            trainer.run()
        return trainer

    return make


def settings(trainer, key):
    return {group[key] for group in trainer.state.optimizer.param_groups}


@pytest.mark.parametrize(
    ("kind", "key", "value", "name", "expected"),
    [
        (ADAMW, "SOLVER.WEIGHT_DECAY", 0.2, "weight_decay", {0.0, 0.2}),
        (ADAMW, "SOLVER.WEIGHT_DECAY", 0.0, "weight_decay", {0.0}),  # other groups
        (ADAMW, "SOLVER.ZERO_WD_1D_PARAM", False, "weight_decay", {0.0, 0.05}),
        (ADAMW, "SOLVER.BETAS", "[0.5, 0.9]", "betas", {(0.5, 0.9)}),
        (ADAMW, "SOLVER.LAYER_DECAY", 0.5, "lr_scale", {0.5**k for k in range(6)}),
        (SGD, "SOLVER.MOMENTUM", 0.5, "momentum", {0.5}),
        (SGD, "SOLVER.DAMPENING", 0.1, "dampening", {0.1}),
        ((*SGD, "SOLVER.MOMENTUM", 0.0), "SOLVER.MOMENTUM", 0.9, "momentum", {0.9}),
        (("SOLVER.NESTEROV", True, *SGD[:2]), "SOLVER.NESTEROV", False, "nesterov", {False}),
    ],
)
def test_new_settings_of_the_optimiser_hold(kind, key, value, name, expected, resumed, caplog):
    trainer = resumed(kind, (key, value))
    found = settings(trainer, name)
    assert found <= expected and (len(found) > 1 or found == expected)
    assert f"{key} is" in caplog.text and "from here on" in caplog.text
    moments = [state for state in trainer.state.optimizer.state.values() if "step" in state]
    assert {int(state["step"]) for state in moments} <= {8}  # they went on, not anew


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("SOLVER.BASE_LR", 2e-3), ("TRAIN.BATCH_SIZE", 4), ("SOLVER.EMA_DECAY", 0.9)),
        *(
            pytest.param(key, value, marks=pytest.mark.slow)
            for key, value in (
                *(("SOLVER.WARMUP_EPOCHS", 0.0), ("SOLVER.COSINE_END_LR", 1e-4), ("RNG_SEED", 7)),
                *(("MODEL.DROPOUT_RATE", 0.1), ("MIXUP.ENABLE", True)),
                ("SOLVER.CLIP_GRAD_L2NORM", 2.0),
            )
        ),
    ],
)
def test_other_new_settings_hold_and_are_logged(key, value, resumed, caplog):
    trainer = resumed(ADAMW, (key, value))
    assert f"{key} is {value} from here on; until checkpoint_epoch_00001.pyth" in caplog.text
    assert trainer.position.epoch == 2


def test_the_same_settings_say_nothing(resumed, caplog):
    resumed(ADAMW, ())
    said = [r.getMessage() for r in caplog.records if "from here on" in r.getMessage()]
    assert said == [
        "SOLVER.MAX_EPOCH is 2 from here on; until checkpoint_epoch_00001.pyth it was 1"
    ]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        *(("sgd", "adamw"), ("adamw", "sgd"), ("adam", "adamw")),
        *(
            pytest.param(before, after, marks=pytest.mark.slow)
            for before, after in (("sgd", "adam"), ("adam", "sgd"), ("adamw", "adam"))
        ),
    ],
)
def test_another_optimiser_is_refused_before_the_first_step(before, after, resumed, tmp_path):
    method = "SOLVER.OPTIMIZING_METHOD"
    if (before == "sgd") == (after == "sgd"):
        resumed((method, before), (method, after))
        return
    with pytest.raises(CheckpointError, match="belongs to another optimiser .* choose another"):
        resumed((method, before), (method, after))
    assert len(saved_checkpoints(tmp_path / "run")) == 1


def test_checkpoints_without_names_of_parameters_are_resumed(tiny):
    subprocess_helpers.run(tiny(*START, *ADAMW))
    (path,) = saved_checkpoints(tiny().OUTPUT_DIR)
    content = read_checkpoint(path)
    for group in content["optimizer_state"]["param_groups"]:
        del group["param_names"]
    torch.save(content, path)
    trainer = subprocess_helpers.run(tiny(*START, *ADAMW, "SOLVER.MAX_EPOCH", 2))
    assert {int(state["step"]) for state in trainer.state.optimizer.state.values()} == {8}
    torch.save(content, path)
    saved_checkpoints(tiny().OUTPUT_DIR)[-1].unlink()
    with pytest.raises(CheckpointError, match="its groups of parameters are others"):
        subprocess_helpers.run(
            tiny(*START, *ADAMW, "SOLVER.WEIGHT_DECAY", 0.0, "SOLVER.MAX_EPOCH", 2)
        )


ODD = {
    "epoch": ("three", "its epoch is 'three', expected a number"),
    "step": (None, "its step is None, expected a number"),
    "batch": (-1, "its batch is -1, expected a number"),
    "model_state": ({"cls_token": "x"}, "cls_token is a str there and of shape"),
    "optimizer_state": ({}, "belongs to another optimiser"),
    "cfg": ("a: [", "not valid YAML"),
}


@pytest.mark.parametrize("key", ODD)
def test_a_state_with_odd_entries_is_refused_in_one_sentence(key, tiny):
    trainer = subprocess_helpers.run(tiny(*START, *ADAMW))
    (path,) = saved_checkpoints(tiny().OUTPUT_DIR)
    content, (value, message) = read_checkpoint(path), ODD[key]
    content[key] = content[key] | value if isinstance(value, dict) and value else value
    torch.save(content, path)
    facts = trainer.facts
    with process("cpu") as this, pytest.raises(CheckpointError, match=message) as caught:
        resume(trainer.cfg, trainer.state, path, facts, this)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.fixture
def copied(demo_folder, tmp_path):
    """A copy of the demo data that a test may change."""
    return shutil.copytree(demo_folder, tmp_path / "data")


def shorten(path):
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:1] + lines[2:] + lines[1:2]))


@pytest.mark.parametrize("split", ["train", "val"])
def test_other_data_are_told(split, copied, tiny, caplog):
    options = ("DATA.PATH_TO_DATA_DIR", copied, *ADAMW, "TRAIN.EVAL_PERIOD", 1)
    subprocess_helpers.run(tiny(*options, "SOLVER.MAX_EPOCH", 1))
    shorten(copied / f"{split}.csv")
    with caplog.at_level(logging.WARNING, logger="videonet"):
        subprocess_helpers.run(tiny(*options, "SOLVER.MAX_EPOCH", 2))
    assert f"the {split} data are not those that" in caplog.text


@pytest.mark.parametrize("change", ["TRAIN.BATCH_SIZE", "RNG_SEED", "list"])
def test_the_order_within_an_epoch_does_not_change(change, copied, tiny):
    options = ("DATA.PATH_TO_DATA_DIR", copied, "SOLVER.MAX_EPOCH", 1, "TRAIN.CHECKPOINT_STEPS", 1)
    options = (*options, "TRAIN.BATCH_SIZE", 7, "TRAIN.EVAL_PERIOD", 0)  # two steps an epoch
    subprocess_helpers.run(tiny(*options))
    saved_checkpoints(tiny().OUTPUT_DIR)[-1].unlink()
    if change == "list":
        shorten(copied / "train.csv")
        options = (*options, "SOLVER.MAX_EPOCH", 1)
    else:
        options = (*options, change, 8)
    with pytest.raises(CheckpointError, match="order of videos is another one here: "):
        subprocess_helpers.run(tiny(*options))


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (lambda names: names[::-1], "was trained on other classes: class 0 is"),
        (lambda names: [*names[:-1], "another"], "was trained on other classes: class 7 is"),
    ],
)
def test_other_classes_are_refused(names, said, copied, tiny):
    options = ("DATA.PATH_TO_DATA_DIR", copied, "TRAIN.EVAL_PERIOD", 0)
    subprocess_helpers.run(tiny(*options, "SOLVER.MAX_EPOCH", 1))
    path = copied / "classes.txt"
    path.write_text("\n".join(names(path.read_text().split("\n")[:8])) + "\n")
    with pytest.raises(CheckpointError, match=said):
        subprocess_helpers.run(tiny(*options, "SOLVER.MAX_EPOCH", 2))


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_another_number_of_processes_ends_alike(parallel, tiny, tmp_path):
    """With dropout and mixing: draws belong to clips."""
    options = (*ADAMW, "TRAIN.BATCH_SIZE", 8, "SOLVER.MAX_EPOCH", 3, "TRAIN.CHECKPOINT_PERIOD", 1)
    options = (
        *options,
        "MODEL.DROPOUT_RATE",
        0.5,
        "MIXUP.ENABLE",
        True,
        "TRAIN.PARALLEL",
        parallel,
    )
    whole = tiny(*options, "OUTPUT_DIR", tmp_path / "whole")
    subprocess_helpers.in_processes(2, subprocess_helpers.run, whole)
    cfg = tiny(*options)
    subprocess_helpers.in_processes(2, subprocess_helpers.run, cfg)
    saved = saved_checkpoints(cfg.OUTPUT_DIR)[-1]
    shutil.rmtree(saved) if saved.is_dir() else saved.unlink()
    subprocess_helpers.in_processes(4, subprocess_helpers.run, cfg)
    found, wanted = (read_checkpoint(saved_checkpoints(c.OUTPUT_DIR)[-1]) for c in (cfg, whole))
    for name, weight in wanted["model_state"].items():
        torch.testing.assert_close(found["model_state"][name], weight, rtol=0, atol=1e-4)
