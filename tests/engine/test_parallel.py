"""The same run on one process, on two, in parts and in shards."""

import json
from pathlib import Path

import pytest
import torch

from tests.engine import subprocess_helpers
from videonet.checkpoint import read_checkpoint
from videonet.checkpoint.checkpoint_dir import newest_checkpoint, saved_checkpoints
from videonet.engine.metric_logger import read_log
from videonet.errors import CheckpointError

TWELVE_STEPS = (
    *("TRAIN.BATCH_SIZE", 8, "SOLVER.MAX_EPOCH", 6, "TRAIN.EVAL_PERIOD", 6),
    *("TRAIN.CHECKPOINT_PERIOD", 3, "SOLVER.EMA_DECAY", 0.9, "SOLVER.CLIP_GRAD_VAL", 0.05),
    # Everything that draws random numbers; draws belong to clips, not to processes.
    *("MODEL.DROPOUT_RATE", 0.5, "MODEL.DROPPATH_RATE", 0.3, "MVIT.DROPOUT_RATE", 0.1),
    *("MIXUP.ENABLE", True, "AUG.NUM_SAMPLE", 2),
)


@pytest.fixture(scope="module")
def odd(demo_folder, tmp_path_factory):
    """Overrides for nine videos to validate and test on."""
    lines = [line for line in (demo_folder / "val.csv").read_text().splitlines() if line][-9:]
    path = tmp_path_factory.mktemp("odd") / "odd.csv"
    path.write_text("".join(f"{demo_folder}/{line}\n" for line in lines))
    return "DATA.VAL_LIST", path, "DATA.TEST_LIST", path


@pytest.fixture(scope="module")
def alone(tiny_in, odd, tmp_path_factory):
    """The configuration of the run on one process, when it is done; tests change nothing of it."""
    cfg = tiny_in(tmp_path_factory.mktemp("alone"), *TWELVE_STEPS, *odd)
    subprocess_helpers.run(cfg)
    return cfg


def records(cfg, kind, key):
    found = read_log(Path(cfg.OUTPUT_DIR) / "log.jsonl")
    return torch.tensor([r[key] for r in found if r["kind"] == kind], dtype=torch.float64)


def assert_same_run(cfg, expected) -> None:
    wanted = records(expected, "train", "loss")
    assert len(wanted) == 12 and wanted[0] != wanted[-1]
    torch.testing.assert_close(records(cfg, "train", "loss"), wanted, rtol=0, atol=1e-5)
    wanted = records(expected, "train", "grad_norm")
    torch.testing.assert_close(records(cfg, "train", "grad_norm"), wanted, rtol=1e-3, atol=0)
    for kind in ("val", "val_ema"):
        wanted = records(expected, kind, "loss")
        torch.testing.assert_close(records(cfg, kind, "loss"), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param((), id="ddp"),
        pytest.param(("TRAIN.PARALLEL", "fsdp"), id="fsdp"),
        pytest.param(("TRAIN.GRAD_ACCUM_STEPS", 2), id="ddp in parts", marks=pytest.mark.slow),
        pytest.param(
            ("TRAIN.PARALLEL", "fsdp", "TRAIN.GRAD_ACCUM_STEPS", 2),
            id="fsdp in parts",
            marks=pytest.mark.slow,
        ),
        pytest.param(("MODEL.ACT_CHECKPOINT", True), id="recomputed", marks=pytest.mark.slow),
    ],
)
def test_two_processes_train_as_one_does(options, alone, tiny, odd, tmp_path):
    cfg = tiny(*TWELVE_STEPS, *odd, *options, "OUTPUT_DIR", tmp_path / "two")
    subprocess_helpers.in_processes(2, subprocess_helpers.run, cfg)
    assert_same_run(cfg, alone)
    if "fsdp" not in options:
        return
    # The shards put together are the weights, the averages and the optimiser's state.
    path = saved_checkpoints(cfg.OUTPUT_DIR)[-1]
    assert path.is_dir()
    found, wanted = read_checkpoint(path), read_checkpoint(newest_checkpoint(alone.OUTPUT_DIR))
    for key in ("model_state", "ema_state"):
        assert found[key].keys() == wanted[key].keys()
        for name, weight in wanted[key].items():
            torch.testing.assert_close(found[key][name], weight, rtol=0, atol=1e-3)
    moments = found["optimizer_state"]["state.cls_token.exp_avg"]
    assert moments.shape == wanted["model_state"]["cls_token"].shape and moments.any()


@pytest.mark.parametrize(("videos", "processes"), [(6, 3), (7, 3), (3, 3), (8, 2), (5, 2)])
def test_the_partner_of_a_clip_is_the_one_at_the_other_end_of_the_step(videos, processes, tmp_path):
    """On whichever process it lies."""
    subprocess_helpers.in_group(processes, subprocess_helpers.find_partners, videos, str(tmp_path))
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(processes)]
    rows = torch.cat([rows for rows, _ in found])
    partners = torch.cat([partners for _, partners in found])
    assert sorted(rows.tolist()) == list(range(2 * videos))
    assert torch.equal(partners, 2 * videos - 1 - rows)


@pytest.mark.parametrize("processes", [2, pytest.param(1, marks=pytest.mark.slow)])
def test_a_run_in_shards_is_resumed(processes, tiny, odd, tmp_path):
    """By as many processes bit for bit; the same state is read by one, for prediction."""
    options = (*TWELVE_STEPS, *odd, "TRAIN.PARALLEL", "fsdp", "MODEL.DROPOUT_RATE", 0.5)
    whole = tiny(*options, "OUTPUT_DIR", tmp_path / "whole")
    subprocess_helpers.in_processes(2, subprocess_helpers.run, whole)
    *_, middle, last = saved_checkpoints(whole.OUTPUT_DIR)
    expected = read_checkpoint(last)
    shard = next(last.glob("*.safetensors"))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    assert newest_checkpoint(whole.OUTPUT_DIR) == middle
    if processes == 1:
        with pytest.raises(CheckpointError, match="was written in shards and this run keeps"):
            subprocess_helpers.run(whole)
        return
    subprocess_helpers.in_processes(2, subprocess_helpers.run, whole)
    found = read_checkpoint(last)
    for key in ("model_state", "ema_state", "optimizer_state"):
        for name, value in expected[key].items():
            same = torch.equal(found[key][name], value) if torch.is_tensor(value) else True
            assert same, f"{key} {name}"


@pytest.mark.parametrize("clips", [6, 60])
def test_two_processes_score_every_video_as_one_does(clips, alone, tmp_path):
    """To the last bit of what is written, for an odd number of videos and batches."""
    results = []
    for processes in (1, 2):
        cfg = alone.clone()
        cfg.defrost()
        cfg.TEST.BATCH_SIZE = clips
        cfg.TEST.CHECKPOINT_FILE_PATH = str(newest_checkpoint(alone.OUTPUT_DIR))
        cfg.OUTPUT_DIR = str(tmp_path / f"test{processes}")
        subprocess_helpers.in_processes(processes, subprocess_helpers.test, cfg)
        folder = Path(cfg.OUTPUT_DIR)
        result = json.loads((folder / "results.json").read_text())
        assert result.pop("seconds") > 0
        tables = {path.name: path.read_text() for path in folder.glob("*.csv")}
        results.append((result, tables))
    assert results[0] == results[1]
    assert results[0][0]["videos"] == 9
