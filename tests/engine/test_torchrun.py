"""The command line under torchrun, as it is documented."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from videonet.checkpoint import read_checkpoint
from videonet.checkpoint.checkpoint_dir import saved_checkpoints
from videonet.config import save_config

ROOT = Path(__file__).resolve().parents[2]


def torchrun(cfg, path):
    save_config(cfg, path)
    options = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.Popen(
        [sys.executable, *options, "tools/run_net.py", "--cfg", str(path)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_sigterm_to_torchrun_saves_and_the_same_command_goes_on(tiny, tmp_path):
    options = (
        *("TRAIN.BATCH_SIZE", 4, "SOLVER.MAX_EPOCH", 40, "TRAIN.EVAL_PERIOD", 0),
        *("TRAIN.CHECKPOINT_PERIOD", 40, "MODEL.DROPOUT_RATE", 0.5, "TEST.ENABLE", False),
    )
    cfg = tiny(*options)
    log = Path(cfg.OUTPUT_DIR) / "log.jsonl"
    first = torchrun(cfg, tmp_path / "a.yaml")
    while first.poll() is None and (not log.exists() or log.read_text().count("\n") < 5):
        time.sleep(0.05)
    first.send_signal(signal.SIGTERM)
    _, said = first.communicate()
    assert "stopped: SIGTERM after" in said
    (saved,) = saved_checkpoints(cfg.OUTPUT_DIR)
    assert 5 <= read_checkpoint(saved)["step"] < 200
    again = torchrun(cfg, tmp_path / "a.yaml")
    _, said = again.communicate()
    assert again.returncode == 0 and f"resumed from {saved}" in said

    whole = tiny(*options, "OUTPUT_DIR", tmp_path / "whole")
    torchrun(whole, tmp_path / "b.yaml").communicate()
    found, wanted = (read_checkpoint(saved_checkpoints(c.OUTPUT_DIR)[-1]) for c in (cfg, whole))
    assert found["step"] == wanted["step"] == 200
    for name, weight in wanted["model_state"].items():
        assert torch.equal(found["model_state"][name], weight), name
