"""What processes that were killed leave half written."""

import subprocess
import sys
import time

import pytest

from videonet.files import remove_unfinished


@pytest.mark.skipif(sys.platform != "linux", reason="zombies are found in /proc")
def test_what_a_zombie_left_is_removed(tmp_path):
    """A killed process whose parent has not asked for its exit code still has a number."""
    alive = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    try:
        while ") Z" not in _stat(ended.pid):
            time.sleep(0.02)
        kept = tmp_path / f".part.{alive.pid}.a.mp4"
        lost = tmp_path / f".part.{ended.pid}.a.mp4"
        for path in (kept, lost, tmp_path / "a.mp4"):
            path.write_bytes(b"x")
        remove_unfinished(tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([kept.name, "a.mp4"])
    finally:
        alive.communicate(b"\n")
        ended.wait()


def _stat(process: int) -> str:
    with open(f"/proc/{process}/stat") as file:
        return file.read()
