"""Small file systems that fill up or take nothing, few open files, no shared memory: the tools.

Each ends in one sentence that names the file, keeps what was written, and goes on where there is
room to the end of an undisturbed run.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

import videonet
from tests import killing
from videonet.config import load_config
from videonet.data.preparing.synthetic import write_demo_dataset

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="mounts a file system"),
]
PAGE = 4096
SMALL = (
    *("DATA.NUM_FRAMES", "4", "DATA.TRAIN_CROP_SIZE", "32", "DATA.TEST_CROP_SIZE", "32"),
    *("DATA.TRAIN_JITTER_SCALES", "[32, 36]", "DEVICE", "cpu"),
)
CFG = ("--cfg", "DEMO/MVITv2_XS.yaml")


class Disk:
    """A file system of its own in memory, whose size can be changed."""

    def __init__(self, place: Path):
        self.place = place

    def mount(self, *options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(self.place)]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("this user may mount no file system (needs root)")

    def change(self, option: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{option}", str(self.place)], check=True)

    def used(self) -> int:
        state = os.statvfs(self.place)
        return (state.f_blocks - state.f_bfree) * state.f_frsize

    def release(self) -> None:
        subprocess.run(["umount", "-l", str(self.place)], capture_output=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    place = tmp_path / "disk"
    place.mkdir()
    made = Disk(place)
    yield made
    made.release()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    write_demo_dataset(folder, train_clips=16, val_clips=8, size=64, num_frames=8, seed=0)
    return folder


@pytest.fixture(scope="module")
def checkpoint(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    cfg = load_config("DEMO/MVITv2_XS.yaml", list(SMALL))
    torch.manual_seed(0)
    model = videonet.create_model("mvit_v2_xs", num_classes=8, num_frames=4, crop_size=32)
    path = tmp_path_factory.mktemp("weights") / "weights.pyth"
    names = (data / "classes.txt").read_text().split()
    torch.save({"model_state": model.state_dict(), "cfg": cfg.dump(), "class_names": names}, path)
    return path


Tool = tuple[str, ...]  # a module of tools/ and its arguments


def tools(data: Path, checkpoint: Path, folder: Path) -> dict[str, Tool]:
    """Every tool that writes, writing to a folder."""
    list_of_videos = str(data / "train.csv")
    model = ("--checkpoint", str(checkpoint))
    lists = (*CFG, "--split", "train", "--workers", "1", "DATA.PATH_PREFIX", str(data))
    copied = ("DATA.PATH_TO_DATA_DIR", str(folder))
    windows = ("--window", "0.2", "--stride", "0.02")
    evaluation = (
        *CFG, *SMALL, "DATA.PATH_TO_DATA_DIR", str(data), "OUTPUT_DIR", str(folder / "run"),
        *("TRAIN.ENABLE", "False", "TEST.CHECKPOINT_FILE_PATH", str(checkpoint)),
        *("DATA_LOADER.NUM_WORKERS", "0", "TENSORBOARD.ENABLE", "False"),
    )  # fmt: skip
    return {
        "jsonl": ("predict", list_of_videos, *model, "--quiet", *windows,
                  "--output", str(folder / "all.jsonl")),
        "csv": ("predict", list_of_videos, *model, "--quiet", *windows,
                "--output", str(folder / "all.csv")),
        "text": ("predict", list_of_videos, *model, "--quiet", *windows, "--overwrite",
                 "--output", str(folder / "all.txt")),
        "picture": ("predict", list_of_videos, *model, "--quiet",
                    "--picture", str(folder / "pictures"), "--output", str(folder / "p.csv")),
        "features": ("extract_features", list_of_videos, *model, "--quiet", "--frames",
                     "--output", str(folder / "features")),
        "prepare": ("data", "prepare", "--output", str(folder / "small"), *lists,
                    "DATA.PATH_TO_DATA_DIR", str(data)),
        "verify": ("data", "verify", *lists, *copied),
        "show": ("data", "show", *CFG, "--output", str(folder / "sheets"), "--videos", "1", *SMALL,
                 "DATA.PATH_TO_DATA_DIR", str(data)),
        "demo data": ("make_demo_data", "--output", str(folder / "demo"), "--train-clips", "16",
                      "--val-clips", "8", "--processes", "2"),
        "export": ("export", *model, "--kinds", "pt2", "--output", str(folder / "model")),
        "evaluation": ("run_net", *evaluation),
        "convert": ("convert_checkpoint", str(checkpoint), str(folder / "c.safetensors")),
    }  # fmt: skip


NAMES = tuple(tools(Path(), Path(), Path()))
CONTINUED = ("jsonl", "csv", "picture", "features", "prepare", "demo data")  # by the same command


def run(tool: Tool, log: Path, before: Callable[[], None] | None = None) -> tuple[int, str]:
    """Exit code and what was said; the process is forked from one that has all imported."""
    log.unlink(missing_ok=True)
    job = killing.Job(_run_after, (before, tool), str(log))
    process = job.start()
    process.join(killing.LONGEST)
    if process.exitcode is None:
        process.kill()
        pytest.fail(f"{tool[0]} hangs: {log.read_text()}")
    return process.exitcode, log.read_text()


def _run_after(before: Callable[[], None] | None, tool: Tool) -> None:
    if before is not None:
        before()
    killing.run_main(*tool)


def content(folder: Path) -> dict[str, bytes]:
    """What a tool leaves, but for locks, and for descriptions that name folders and times."""
    passed_over = (
        ".lock",
        ".prepare.lock",
        "prepared.json",
        "results.json",
        "log.txt",
        "config.yaml",
    )
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in passed_over and path.suffix not in (".pt2", ".png")
    }


def begin(name: str, data: Path, folder: Path) -> None:
    """What has to lie in the folder before a tool runs."""
    if name == "verify":
        for file in ("train.csv", "classes.txt"):
            shutil.copy(data / file, folder)


def one_sentence(said: str, place: Path) -> str:
    """The error, which names a file in the place."""
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in said and len(errors) == 1, said
    assert str(place) in errors[0], errors[0]
    return errors[0]


@pytest.mark.parametrize("name", NAMES)
def test_a_disk_that_fills_up(name, data, checkpoint, disk, tmp_path):
    disk.mount("size=64m")
    whole = tmp_path / "whole"
    whole.mkdir()
    begin(name, data, whole)
    code, said = run(tools(data, checkpoint, whole)[name], tmp_path / "log.txt")
    assert code == 0, said
    shutil.copytree(whole, disk.place, dirs_exist_ok=True)
    needed = disk.used()
    shutil.rmtree(disk.place, ignore_errors=True)

    if needed <= 2 * PAGE:
        pytest.skip("what it writes fits into the smallest file system")
    begin(name, data, disk.place)
    room = max(disk.used() + PAGE, needed // 2 // PAGE * PAGE)
    disk.change(f"size={room}")
    code, said = run(tools(data, checkpoint, disk.place)[name], tmp_path / "log.txt")
    assert code == 1, said
    assert "No space left on device" in one_sentence(said, disk.place)
    kept = content(disk.place)
    assert not [path for path in kept if "part." in path], "half of a file is left"
    disk.change("size=64m")
    code, said = run(tools(data, checkpoint, disk.place)[name], tmp_path / "log.txt")
    assert code == 0, said
    found = content(disk.place)
    assert found.keys() == content(whole).keys()
    if name not in ("verify", "features", "export"):  # these write down where or when
        assert found == content(whole)
    if name in CONTINUED:
        grown = [n for n in kept if not found[n].startswith(kept[n].rpartition(b"\n")[0])]
        assert [n for n in grown if not n.endswith(".meta.json")] == [], "what was written is lost"


@pytest.mark.parametrize("name", NAMES)
def test_a_disk_that_is_read_only(name, data, checkpoint, disk, tmp_path):
    disk.mount("size=64m")
    begin(name, data, disk.place)
    disk.change("ro")
    code, said = run(tools(data, checkpoint, disk.place)[name], tmp_path / "log.txt")
    assert code == (2 if name == "evaluation" else 1), said  # OUTPUT_DIR is a key
    assert "Read-only file system" in one_sentence(said, disk.place)


def limit_files(most: int) -> None:
    """Let this process have so many open files at a time."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@pytest.mark.parametrize("most", [20, 32, 64])
@pytest.mark.parametrize("name", NAMES)
def test_few_open_files(name, most, data, checkpoint, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    begin(name, data, folder)
    limited = partial(limit_files, most)
    code, said = run(tools(data, checkpoint, folder)[name], tmp_path / "log.txt", limited)
    assert code in (0, 1) and "Traceback" not in said, said
    if code:
        errors = [line for line in said.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1 and "open files" in errors[0], said
    code, said = run(tools(data, checkpoint, folder)[name], tmp_path / "log.txt")
    assert code == 0, said  # nothing was noted of a video that could not be opened then


def test_no_room_in_shared_memory(data, checkpoint, tmp_path):
    """The workers' batches lie in /dev/shm, which containers have 64 MB of."""
    tool = list(tools(data, checkpoint, tmp_path)["evaluation"])
    tool[tool.index("DATA_LOADER.NUM_WORKERS") + 1] = "1"
    call = [sys.executable, f"tools/{tool[0]}.py", *tool[1:]]
    hide = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs -o size=64k tmpfs /dev/shm && exec "$@"']
    with contextlib.suppress(FileNotFoundError):
        if subprocess.run([*hide, "sh", "true"], capture_output=True).returncode == 0:
            done = subprocess.run([*hide, "sh", *call], capture_output=True, text=True, timeout=300)
            assert done.returncode == 1, done.stderr
            assert "let /dev/shm be larger" in one_sentence(done.stderr, Path("/dev/shm"))
            return
    pytest.skip("this user may mount no file system (needs root)")
