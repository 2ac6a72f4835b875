"""Runs that are killed, stopped, damaged or out of space, and what they end with."""

import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch

from tests.engine import subprocess_helpers
from tests.engine.subprocess_helpers import run
from videonet.checkpoint import checkpoint_dir, read_checkpoint
from videonet.checkpoint.checkpoint_dir import (
    checkpoint_folder,
    newest_checkpoint,
    saved_checkpoints,
)
from videonet.engine import signals, train
from videonet.engine.metric_logger import read_log
from videonet.engine.signals import StopSignals
from videonet.engine.train import Trainer
from videonet.errors import CheckpointError, Interrupted, TrainingError

# Everything that draws random numbers or carries state from step to step.
EVERYTHING = (
    *("MODEL.DROPOUT_RATE", 0.5, "MODEL.DROPPATH_RATE", 0.3, "MIXUP.ENABLE", True),
    *("SOLVER.EMA_DECAY", 0.9, "TRAIN.CHECKPOINT_STEPS", 1, "TRAIN.EVAL_PERIOD", 2),
)


def final(cfg) -> dict:
    return read_checkpoint(saved_checkpoints(cfg.OUTPUT_DIR)[-1])


def assert_same(found: dict, expected: dict) -> None:
    assert (found["epoch"], found["batch"], found["step"]) == (
        *(expected["epoch"], expected["batch"], expected["step"]),
    )
    for key in ("model_state", "ema_state"):
        assert found[key].keys() == expected[key].keys()
        for name, tensor in expected[key].items():
            assert torch.equal(found[key][name], tensor), f"{key} {name}"
    for index, values in expected["optimizer_state"]["state"].items():
        for name, tensor in values.items():
            assert torch.equal(found["optimizer_state"]["state"][index][name], tensor), name


@pytest.fixture(scope="module")
def uninterrupted(tiny_in, tmp_path_factory):
    """The end of a run that nothing disturbed."""
    cfg = tiny_in(tmp_path_factory.mktemp("whole"), *EVERYTHING, "SOLVER.MAX_EPOCH", 2)
    run(cfg)
    return final(cfg)


@pytest.fixture
def disturbed(tiny):
    return tiny(*EVERYTHING, "SOLVER.MAX_EPOCH", 2)


@pytest.mark.parametrize(
    "child",
    [
        subprocess_helpers.killed_between_steps,
        subprocess_helpers.killed_while_writing,
        subprocess_helpers.killed_before_old_ones_go,
        subprocess_helpers.killed_in_validation,
    ],
)
def test_a_killed_run_ends_as_if_nothing_had_happened(child, uninterrupted, disturbed):
    assert subprocess_helpers.exit_code(child, disturbed) == -signal.SIGKILL
    run(disturbed)
    assert_same(final(disturbed), uninterrupted)
    assert not list(checkpoint_folder(disturbed.OUTPUT_DIR).glob(".*"))
    records = read_log(Path(disturbed.OUTPUT_DIR) / "log.jsonl")
    assert [r["step"] for r in records if r["kind"] == "train"] == list(range(1, 9))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_twenty_kills_at_random_moments(workers, tiny, tmp_path):
    options = (*EVERYTHING, "SOLVER.MAX_EPOCH", 12, "DATA_LOADER.NUM_WORKERS", workers)
    whole = tiny(*options, "OUTPUT_DIR", tmp_path / "whole")
    run(whole)
    cfg, rng, kills = tiny(*options), random.Random(0), 0
    while kills < 20:
        before = saved_checkpoints(cfg.OUTPUT_DIR)
        child = subprocess_helpers.start(run, cfg)
        while child.is_alive() and saved_checkpoints(cfg.OUTPUT_DIR) == before and before:
            time.sleep(0.002)  # so that every life gets a step further
        child.join(timeout=rng.uniform(0, 0.3))
        child.kill()
        child.join()
        kills += child.exitcode == -signal.SIGKILL
        if child.exitcode == 0:  # finished before 20 kills: check, and once more from the start
            assert_same(final(cfg), final(whole))
            cfg = tiny(*options, "OUTPUT_DIR", tmp_path / f"again{kills}")
    run(cfg)
    assert_same(final(cfg), final(whole))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("moment", ["_train_step", "_validate"])
def test_a_signal_saves_and_stops(number, moment, uninterrupted, disturbed, monkeypatch):
    method, calls = getattr(Trainer, moment), []

    def signalled(trainer, *args):
        calls.append(1)
        if len(calls) == (3 if moment == "_train_step" else 1):
            signal.raise_signal(number)
        return method(trainer, *args)

    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, moment, signalled)
        with pytest.raises(Interrupted, match=f"{number.name} after .* goes on from") as stopped:
            run(disturbed)
    assert stopped.value.exit_code == 128 + number
    assert signal.getsignal(number) == before
    steps = 3 if moment == "_train_step" else 8
    assert final(disturbed)["step"] == steps
    run(disturbed)
    assert_same(final(disturbed), uninterrupted)
    assert [r["epoch"] for r in read_log(Path(disturbed.OUTPUT_DIR) / "log.jsonl")][-2:] == [2, 2]


def test_a_later_signal_does_not_wait(monkeypatch):
    monkeypatch.setattr(signals, "SAME_REQUEST", 0.05)
    with StopSignals() as stop, pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)  # torchrun's echo of the first
        assert stop.received == signal.SIGTERM
        time.sleep(0.06)
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1  # one bit of a weight: torch.load reads it without complaint
    path.write_bytes(content)


def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(uninterrupted, disturbed, caplog):
    run(disturbed)
    *_, before, newest = saved_checkpoints(disturbed.OUTPUT_DIR)
    damage(newest)
    assert newest_checkpoint(disturbed.OUTPUT_DIR) == before
    assert f"{newest} is damaged" in caplog.text
    run(disturbed)
    assert_same(final(disturbed), uninterrupted)


def test_nothing_but_damaged_checkpoints_is_an_error(disturbed):
    run(disturbed)
    for path in saved_checkpoints(disturbed.OUTPUT_DIR):
        damage(path)
    with pytest.raises(CheckpointError, match="all 3 checkpoints in .* are damaged; to start anew"):
        run(disturbed)


def test_no_flipped_byte_goes_unnoticed(tmp_path):
    path = checkpoint_dir.checkpoint_path(tmp_path, 1)
    path.parent.mkdir(parents=True)
    content = {"model_state": {"a": torch.arange(300.0)}, "epoch": 1}
    torch.save(content, path)
    whole, rng, noticed = path.read_bytes(), random.Random(0), 0
    for place in rng.sample(range(len(whole)), 300):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            newest_checkpoint(tmp_path)
            found = read_checkpoint(path)
        except CheckpointError:
            noticed += 1
        else:  # padding between the records
            assert torch.equal(found["model_state"]["a"], content["model_state"]["a"])
            assert found["epoch"] == 1
    assert noticed > 100


def test_a_full_disk_stops_the_run_and_leaves_the_checkpoints(
    uninterrupted, disturbed, monkeypatch
):
    write = train.write_checkpoint

    def write_on_a_full_disk(path, content):
        if content["step"] == 3:
            path.with_name(f".{path.name}.{os.getpid()}.tmp").symlink_to("/dev/full")
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(train, "write_checkpoint", write_on_a_full_disk)
        with pytest.raises(CheckpointError, match="No space left on device"):
            run(disturbed)
    assert [read_checkpoint(p)["step"] for p in saved_checkpoints(disturbed.OUTPUT_DIR)] == [1, 2]
    run(disturbed)
    assert_same(final(disturbed), uninterrupted)


def test_a_log_that_cannot_be_written_is_one_sentence(disturbed):
    folder = Path(disturbed.OUTPUT_DIR)
    folder.mkdir(parents=True)
    (folder / "log.jsonl").symlink_to("/dev/full")
    with pytest.raises(TrainingError, match="cannot go on: .*No space left on device"):
        run(disturbed)


def test_middle_of_an_epoch_of_another_length_is_refused(disturbed, tiny):
    run(disturbed)
    saved_checkpoints(disturbed.OUTPUT_DIR)[-1].unlink()
    with pytest.raises(CheckpointError, match="3 of the 4 steps of an epoch, but .* has 10 steps"):
        run(tiny(*EVERYTHING, "SOLVER.MAX_EPOCH", 2, "TRAIN.BATCH_SIZE", 2))
