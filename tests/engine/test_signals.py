"""A signal to the whole process group, as GNU timeout, SLURM and containers send it."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from videonet.checkpoint import read_checkpoint
from videonet.checkpoint.checkpoint_dir import saved_checkpoints
from videonet.config import save_config
from videonet.data.loading.loader import BAD_LIST
from videonet.engine.signals import StopSignals

ROOT = Path(__file__).resolve().parents[2]
SIGHUP = getattr(signal, "SIGHUP", signal.SIGTERM)  # Windows has none
LONG = (
    *("TRAIN.BATCH_SIZE", 4, "SOLVER.MAX_EPOCH", 4000, "TRAIN.EVAL_PERIOD", 1),
    *("TRAIN.CHECKPOINT_PERIOD", 4000, "DATA_LOADER.NUM_WORKERS", 2, "TEST.ENABLE", False),
)


def start(cfg, folder, *before: str) -> subprocess.Popen:
    """The command line in a process group of its own."""
    save_config(cfg, folder / "run.yaml")
    return subprocess.Popen(
        [*before, sys.executable, "tools/run_net.py", "--cfg", str(folder / "run.yaml")],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for_steps(run: subprocess.Popen, folder: Path, count: int) -> None:
    log = folder / "log.jsonl"
    while run.poll() is None and (not log.exists() or log.read_text().count("\n") < count):
        time.sleep(0.02)


def assert_stopped_in_order(
    run: subprocess.Popen, folder: Path, code: int, *, may_not_have_begun: bool = False
) -> bool:
    """Whether the run had begun: before its first word a signal ends it without any."""
    said = run.communicate()[1]
    assert run.returncode == code, said
    begun = bool(said) or not may_not_have_begun
    assert "Traceback" not in said and ("stopped: SIG" in said or not begun)
    assert read_checkpoint(saved_checkpoints(folder)[-1])["step"] > 0
    assert not (folder / BAD_LIST).exists()
    return begun


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        *(pytest.param(number, marks=pytest.mark.slow) for number in (signal.SIGINT, SIGHUP)),
    ],
)
def test_a_signal_to_the_process_group_saves_and_blames_no_video(number, tiny, tmp_path):
    cfg = tiny(*LONG)
    folder = Path(cfg.OUTPUT_DIR)
    run = start(cfg, tmp_path)
    wait_for_steps(run, folder, 5)
    run.send_signal(number)  # timeout signals its child and then the group
    os.killpg(run.pid, number)
    assert_stopped_in_order(run, folder, 128 + number)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
def test_a_closed_terminal_stops_a_run_unless_it_is_ignored():
    before = signal.getsignal(signal.SIGHUP)
    try:
        for handler, noted in ((signal.SIG_DFL, signal.SIGHUP), (signal.SIG_IGN, 0)):
            signal.signal(signal.SIGHUP, handler)
            with StopSignals() as stop:
                signal.raise_signal(signal.SIGHUP)
                assert stop.received == noted
            assert signal.getsignal(signal.SIGHUP) == handler
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("timeout"), reason="GNU timeout is not installed")
def test_many_runs_under_timeout(tiny, tmp_path):
    """Moments from the first step on; the runs go on from one another."""
    cfg, rng = tiny(*LONG, "SOLVER.MAX_EPOCH", 100000), random.Random(0)
    folder = Path(cfg.OUTPUT_DIR)
    first = start(cfg, tmp_path)
    began = time.monotonic()
    wait_for_steps(first, folder, 1)
    start_up = time.monotonic() - began
    os.killpg(first.pid, signal.SIGTERM)
    assert_stopped_in_order(first, folder, 143)
    begun, count = 0, int(os.environ.get("VIDEONET_STOPS", "12"))
    for _ in range(count):
        seconds = start_up * 2 + rng.uniform(0, 4)
        run = start(cfg, tmp_path, "timeout", "--preserve-status", f"{seconds:.2f}")
        begun += assert_stopped_in_order(run, folder, 143, may_not_have_begun=True)
    assert 2 * begun > count
