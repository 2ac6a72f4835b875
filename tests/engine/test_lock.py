"""One run at a time in an OUTPUT_DIR, and ranks that end with torchrun."""

import os
import signal
import time
from pathlib import Path

import pytest

from tests.engine import subprocess_helpers
from tests.engine.test_torchrun import torchrun
from videonet.checkpoint.checkpoint_dir import saved_checkpoints
from videonet.engine import lock
from videonet.engine.distributed import process
from videonet.engine.lock import LOCK, only_run_in
from videonet.errors import ConfigError


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of ``run``."""
    with subprocess_helpers.holding(tmp_path / "run") as other:
        yield other


def test_a_second_run_is_refused_and_names_the_first(holder, tiny, monkeypatch):
    monkeypatch.setattr(lock, "PATIENCE", 0.2)
    cfg = tiny("SOLVER.MAX_EPOCH", 1)
    with pytest.raises(
        ConfigError, match=f"in use by process {holder.pid} on .*: wait for its end"
    ):
        subprocess_helpers.run(cfg)
    assert not saved_checkpoints(cfg.OUTPUT_DIR)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_lock_ends_with_its_process(number, holder, tiny):
    os.kill(holder.pid, number)
    holder.join()
    subprocess_helpers.run(tiny("SOLVER.MAX_EPOCH", 1))


def test_a_process_may_enter_again(tmp_path):
    with process("cpu") as this, only_run_in(tmp_path, this), only_run_in(tmp_path, this):
        assert str(os.getpid()) in (tmp_path / LOCK).read_text()


def test_a_file_system_without_locks_is_a_warning(tmp_path, monkeypatch, caplog):
    def refuse(file):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(lock, "lock", refuse)
    with process("cpu") as this, only_run_in(tmp_path, this):
        pass
    assert "has no locks (Operation not supported)" in caplog.text


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    refused = pytest.raises(ConfigError, match="cannot be written to")
    with process("cpu") as this, refused, only_run_in(tmp_path / "file" / "run", this):
        pass


def started_with(argument: Path) -> list[int]:
    """The processes that have this argument."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if os.fsencode(argument) in entry.read_bytes().split(b"\0"):
                found.append(int(entry.parent.name))
        except OSError:
            continue
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
def test_ranks_end_when_torchrun_is_killed(tiny, tmp_path):
    cfg = tiny("TRAIN.BATCH_SIZE", 4, "SOLVER.MAX_EPOCH", 4000, "TRAIN.CHECKPOINT_PERIOD", 4000)
    log = Path(cfg.OUTPUT_DIR) / "log.jsonl"
    agent = torchrun(cfg, tmp_path / "run.yaml")
    while agent.poll() is None and (not log.exists() or log.read_text().count("\n") < 5):
        time.sleep(0.05)
    assert len(started_with(tmp_path / "run.yaml")) == 3
    agent.kill()
    deadline = time.monotonic() + 90
    while set(started_with(tmp_path / "run.yaml")) - {agent.pid}:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    agent.communicate()
    assert saved_checkpoints(cfg.OUTPUT_DIR)  # they stopped in order
