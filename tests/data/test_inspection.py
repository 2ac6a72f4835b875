import sys
from pathlib import Path

import pytest

from videonet.commands.data import main
from videonet.data.preparing.inspection import inspect, write_frame_sheet

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import conformance  # noqa: E402

sys.path.remove(str(HERE))


def test_what_is_said_of_a_file(tmp_path):
    path = conformance.two_streams(tmp_path, "h264", "mp4")
    conformance.set_matrix(path, *conformance.MATRICES["hflip"])
    found = inspect(path)
    text = found.text()
    assert not found.reason and len(found.times) == conformance.FRAMES
    for part in ("64 x 48 <- read", "25.000 frames per second", "BT.601 assumed", "of which one"):
        assert part in text
    assert write_frame_sheet(found, tmp_path / "sheet.png") == 20
    assert (tmp_path / "sheet.png").read_bytes()[:4] == b"\x89PNG"


def test_warnings(tmp_path):
    film = conformance.Film("h264", stamps=conformance.UNEVEN)
    text = inspect(conformance.write(tmp_path / "a.mp4", film)).text()
    assert "uneven" in text and "a frame stands still for 1.2 s" in text
    text = inspect(conformance.plain(tmp_path, "h264", "ts")).text()
    assert "counted by decoding" in text and "from the start only" in text


def test_the_command(tmp_path, monkeypatch, capsys):
    path = conformance.plain(tmp_path, "mpeg4", "mkv")
    bad = tmp_path / "bad\x1b.mp4"
    bad.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    sheet = str(tmp_path / "s.png")
    monkeypatch.setattr("sys.argv", ["data.py", "inspect", str(path), "--times", "--sheet", sheet])
    assert main() == 0
    out = capsys.readouterr().out
    assert "      39     1.560000" in out and f"{sheet}: 20 frames" in out
    monkeypatch.setattr("sys.argv", ["data.py", "inspect", str(bad)])
    assert main() == 1
    out = capsys.readouterr().out
    assert "bad\\x1b.mp4" in out and "unreadable  cut at" in out


@pytest.mark.parametrize("content", [None, b"", b"text" * 99])
def test_what_is_no_video_is_said_not_raised(tmp_path, content):
    path = tmp_path / "a.mp4"
    if content is not None:
        path.write_bytes(content)
    assert inspect(path).reason and "unreadable" in inspect(path).text()
