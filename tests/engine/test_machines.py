"""PySlowFast's options for several machines."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from videonet.checkpoint import read_checkpoint
from videonet.checkpoint.checkpoint_dir import saved_checkpoints
from videonet.config import save_config
from videonet.config.command_line import load_configs, training_arguments
from videonet.engine.machines import torchrun_command
from videonet.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
RATES = ("SOLVER.BASE_LR", "0.1", "SOLVER.WARMUP_START_LR", "0.01", "SOLVER.COSINE_END_LR", "0.001")


@pytest.fixture
def command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    for name in ("a", "b"):
        text = f"MODEL: {{NAME: mvit_v2_xs}}\nTRAIN: {{BATCH_SIZE: 16}}\nOUTPUT_DIR: runs/{name}\n"
        (tmp_path / f"{name}.yaml").write_text(text)

    def make(*words):
        args = training_arguments(words)
        return torchrun_command(args, load_configs(args))

    return make


def test_one_machine_is_this_process(command):
    assert command("--cfg", "a.yaml", "--num_shards", "1", "--shard_id", "0") == []


def test_batch_and_rates_are_those_of_all_machines(command):
    scaled = ("--opts", *RATES, "SOLVER.BASE_LR_SCALE_NUM_SHARDS", "True", "DEVICE", "cpu")
    options = ("--num_shards", "4", "--shard_id", "3", "--init_method", "tcp://first:1234")
    words = command(*options, "--cfg", "a.yaml", *scaled)
    assert words[:3] == [sys.executable, "-m", "torch.distributed.run"]
    start, (*_, verb), run = words[3:13], words[13:16], words[16:]
    assert verb == "run"
    assert dict(zip(start[::2], start[1::2], strict=True)) == {
        "--nnodes": "4",
        "--node-rank": "3",
        "--nproc-per-node": "1",
        "--master-addr": "first",
        "--master-port": "1234",
    }
    (cfg,) = load_configs(training_arguments(run))
    solver = cfg.SOLVER
    assert (cfg.TRAIN.BATCH_SIZE, cfg.DEVICE) == (64, "cpu")
    assert (solver.BASE_LR, solver.WARMUP_START_LR, solver.COSINE_END_LR) == (0.4, 0.04, 0.004)


@pytest.mark.parametrize("key", [(), ("SOLVER.BASE_LR_CLIPS", "512")])
def test_rates_that_are_not_of_one_machine_stay(key, command):
    scale = ("SOLVER.BASE_LR_SCALE_NUM_SHARDS", "True") if key else ()
    words = command("--num_shards", "2", "--cfg", "a.yaml", "--opts", *RATES, *scale, *key)
    (cfg,) = load_configs(training_arguments(words[16:]))
    assert (cfg.TRAIN.BATCH_SIZE, cfg.SOLVER.BASE_LR) == (32, 0.1)


def test_what_cannot_be_started(command, monkeypatch):
    with pytest.raises(ConfigError, match="--num_shards 2 takes one --cfg, not 2"):
        command("--num_shards", "2", "--cfg", "a.yaml", "b.yaml")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    with pytest.raises(ConfigError, match="NUM_GPUS is 8, but this machine has 4 GPUs"):
        command("--num_shards", "2", "--cfg", "a.yaml", "NUM_GPUS", "8")
    assert command("--num_shards", "2", "--cfg", "a.yaml", "NUM_GPUS", "4")[8] == "4"
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="torchrun has done so already"):
        command("--num_shards", "2", "--cfg", "a.yaml")


@pytest.mark.slow
def test_two_machines_train_as_one_does(tiny, tmp_path):
    """Two torchruns on this machine, as if on two."""
    options = ("SOLVER.MAX_EPOCH", 1, "TRAIN.EVAL_PERIOD", 0, "TEST.NUM_ENSEMBLE_VIEWS", 1)
    alone = tiny(
        *options, "TRAIN.BATCH_SIZE", 10, "OUTPUT_DIR", tmp_path / "alone", "DEVICE", "cpu"
    )
    both = tiny(*options, "TRAIN.BATCH_SIZE", 5, "OUTPUT_DIR", tmp_path / "both", "DEVICE", "cpu")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"

    def start(cfg, *words):
        save_config(cfg, tmp_path / f"{Path(cfg.OUTPUT_DIR).name}.yaml")
        return subprocess.Popen(
            [sys.executable, "tools/run_net.py", *words, "--cfg"]
            + [str(tmp_path / f"{Path(cfg.OUTPUT_DIR).name}.yaml")],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )

    shards = [
        start(both, "--num_shards", "2", "--shard_id", str(k), "--init_method", address)
        for k in (0, 1)
    ]
    told = [run.communicate(timeout=600)[0] for run in (*shards, start(alone))]
    assert [run.returncode for run in shards] == [0, 0]
    assert json.loads(told[0])["top1"] == json.loads(told[2])["top1"] and not told[1]
    found, wanted = (read_checkpoint(saved_checkpoints(c.OUTPUT_DIR)[-1]) for c in (both, alone))
    assert found["step"] == wanted["step"] == 2
    for name, weight in wanted["model_state"].items():
        torch.testing.assert_close(found["model_state"][name], weight, rtol=0, atol=1e-5)
