"""Checkpoint files: what is refused and how, and writes that never harm what was there."""

import argparse
import collections
import datetime
import io
import os
import pickle
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from videonet.checkpoint import load_checkpoint, read_checkpoint, write_checkpoint
from videonet.errors import CheckpointError
from videonet.models import create_model

CONTENT = {
    "model_state": {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(7)},
    "cfg": "MODEL: {NAME: x}\n",
    "class_names": ["left", "right"],
    "epoch": 3,
}


class RunsCode:
    """Makes a file when it is unpickled carelessly."""

    def __init__(self, victim):
        self.victim = victim

    def __reduce__(self):
        return os.mkdir, (str(self.victim),)


def saved(content, **options):
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def safetensors_bytes(tmp_path):
    path = tmp_path / "whole.safetensors"
    save_file({"a": torch.randn(1000)}, path)
    return path.read_bytes()


BIG = {"a": torch.zeros(1000)}
BAD_FILES = {
    "html": (lambda tmp: b"\n <!DOCTYPE html><html><body>404</body></html>", "HTML"),
    "empty": (lambda tmp: b"", "empty"),
    "lfs": (lambda tmp: b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS"),
    "truncated": (lambda tmp: saved(BIG)[:2000], "truncated"),
    "truncated_old_format": (
        lambda tmp: saved(BIG, _use_new_zipfile_serialization=False)[:2000],
        "truncated",
    ),
    "truncated_safetensors": (lambda tmp: safetensors_bytes(tmp)[:2000], "truncated"),
    "noise": (lambda tmp: bytes(range(200, 256)) * 20, "not a checkpoint"),
    "text": (lambda tmp: b"these are not the weights", "not a checkpoint|truncated"),
    "list": (lambda tmp: saved([1, 2]), "a list, expected a dictionary"),
    "module": (lambda tmp: saved(torch.nn.Linear(2, 2)), "torch.nn.modules.linear.Linear"),
    "code": (lambda tmp: saved({"a": RunsCode(tmp / "victim")}), r"posix\.mkdir.*refused"),
    "code_in_a_bare_pickle": (
        lambda tmp: pickle.dumps({"a": RunsCode(tmp / "victim")}, protocol=2),
        r"posix\.mkdir.*refused",
    ),
    "code_in_a_newer_pickle": (
        lambda tmp: pickle.dumps({"a": RunsCode(tmp / "victim")}, protocol=4),
        r"posix\.mkdir.*refused",
    ),
}


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_file_is_refused_in_one_sentence_that_names_it(tmp_path, kind):
    make, message = BAD_FILES[kind]
    path = tmp_path / f"{kind}.pyth"
    path.write_bytes(make(tmp_path))
    model = create_model("mvit_v2_xs", num_classes=3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for act in (lambda: read_checkpoint(path), lambda: load_checkpoint(model, path)):
        with pytest.raises(CheckpointError, match=message) as caught:
            act()
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "victim").exists()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_missing_files_folders_and_hosts_are_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"nothing\.pyth does not exist"):
        read_checkpoint(tmp_path / "nothing.pyth")
    with pytest.raises(CheckpointError, match="is a folder"):
        read_checkpoint(tmp_path)
    with pytest.raises(
        CheckpointError, match=r"cannot fetch checkpoint http://localhost:1/x\.pyth"
    ):
        read_checkpoint("http://localhost:1/x.pyth")


@pytest.mark.parametrize("suffix", [".pyth", ".safetensors"])
def test_what_is_written_is_read_back(tmp_path, suffix):
    path = tmp_path / "new folder" / f"x{suffix}"
    write_checkpoint(path, CONTENT)
    found = read_checkpoint(path)
    assert {key: found[key] for key in ("cfg", "class_names", "epoch")} == {
        key: CONTENT[key] for key in ("cfg", "class_names", "epoch")
    }
    assert found["model_state"].keys() == CONTENT["model_state"].keys()
    for name, tensor in CONTENT["model_state"].items():
        assert torch.equal(found["model_state"][name], tensor)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_safetensors_are_known_by_content(tmp_path):
    path = tmp_path / "x.safetensors"
    write_checkpoint(path, CONTENT)
    renamed = path.rename(tmp_path / "x.bin")
    assert torch.equal(read_checkpoint(renamed)["model_state"]["a"], CONTENT["model_state"]["a"])


def test_safetensors_take_no_training_state(tmp_path):
    with pytest.raises(CheckpointError, match=r"x\.safetensors.*JSON"):
        write_checkpoint(tmp_path / "x.safetensors", {"optimizer_state": {"step": torch.tensor(1)}})
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def full_disk():
    """No file may grow beyond 100 kB: what a full disk does to a write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("suffix", [".pyth", ".safetensors"])
def test_a_full_disk_leaves_the_old_file(tmp_path, full_disk, suffix):
    path = tmp_path / f"x{suffix}"
    write_checkpoint(path, CONTENT)
    old = path.read_bytes()
    full_disk()
    with pytest.raises(CheckpointError, match=rf"cannot write checkpoint .*x{suffix}.*too large"):
        write_checkpoint(path, {"model_state": {"a": torch.zeros(100_000)}})
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


WRITER = """
import sys, torch
from videonet.checkpoint import write_checkpoint
step = 0
while True:
    step += 1
    write_checkpoint(sys.argv[1], {"model_state": {"a": torch.full((500_000,), step)}})
    print(step, flush=True)
"""


def test_a_killed_writer_leaves_a_whole_file(tmp_path):
    path = tmp_path / "x.pyth"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, env=environment
    ) as writer:
        assert writer.stdout.readline() == b"1\n"
        time.sleep(0.05)
        writer.send_signal(signal.SIGKILL)
    values = read_checkpoint(path)["model_state"]["a"]
    assert values.unique().numel() == 1


@pytest.mark.parametrize("suffix", [".pyth", ".safetensors"])
def test_files_are_flushed_as_windows_can(tmp_path, monkeypatch, suffix):
    """There a folder cannot be opened, and only what is open for writing is flushed."""
    fcntl = pytest.importorskip("fcntl")
    real_open, real_fsync = os.open, os.fsync

    def windows_open(path, flags, *rest, **options):
        if os.path.isdir(path):
            raise PermissionError(13, "Permission denied", str(path))
        return real_open(path, flags, *rest, **options)

    def windows_fsync(descriptor):
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(9, "Bad file descriptor")
        flushed.append(descriptor)
        return real_fsync(descriptor)

    flushed = []
    path = tmp_path / f"x{suffix}"
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", windows_open)
        patch.setattr(os, "fsync", windows_fsync)
        patch.setattr(sys, "platform", "win32")
        write_checkpoint(path, CONTENT)
    assert len(flushed) == 1
    assert torch.equal(read_checkpoint(path)["model_state"]["a"], CONTENT["model_state"]["a"])


@pytest.mark.parametrize(
    "value",
    [
        argparse.Namespace(lr=0.1),
        Path("x"),
        np.float64(3),
        range(3),
        datetime.datetime(2026, 1, 1),
        torch.nn.Linear(2, 2),
        os.getcwd,
        collections.deque([1]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_weights_only_refuses_is_named_with_a_way_out(tmp_path, value):
    path = tmp_path / "x.pth"
    torch.save({"state_dict": {"a": torch.zeros(2)}, "hyper_parameters": value}, path)
    with pytest.raises(CheckpointError, match="asks for the Python object") as caught:
        read_checkpoint(path)
    message = str(caught.value)
    name = re.search(r"Python object ([\w.]+) when", message)[1]
    assert f"torch.serialization.safe_globals([{name}])" in message and "\n" not in message


def test_what_the_user_allows_is_read(tmp_path):
    path = tmp_path / "x.pth"
    torch.save({"state_dict": {"a": torch.zeros(2)}, "args": argparse.Namespace(lr=0.1)}, path)
    with torch.serialization.safe_globals([argparse.Namespace]):
        assert read_checkpoint(path)["args"].lr == 0.1


def test_a_pipe_is_not_opened(tmp_path):
    if not hasattr(os, "mkfifo"):
        pytest.skip("no named pipes here")
    os.mkfifo(tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="not a regular file"):
        read_checkpoint(tmp_path / "x.pth")
