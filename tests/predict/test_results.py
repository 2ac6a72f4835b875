"""Result files: what they hold, and how a stopped run goes on."""

from __future__ import annotations

import csv
import io
import json

import pytest

from videonet.errors import ConfigError, DataError
from videonet.predict.results import VideoResult, WindowResult, open_results
from videonet.predict.segments import Segment

TOP = [("left", 0.75), ("right", 0.25)]
WINDOW = WindowResult(0, 0.0, 2.0, TOP, [0.75, 0.25])
SEGMENT = Segment(0.0, 2.0, "left", 0.75)


def write_three(path):
    """One finished video, one that failed and one that was stopped in the middle."""
    with open_results(path, None, io.StringIO()) as writer:
        writer.window("a.mp4", WINDOW)
        writer.video("a.mp4", VideoResult(TOP, 1, [SEGMENT]))
        writer.failure("b.mp4", "cannot read b.mp4: no")
        writer.window("c.mp4", WINDOW)


def test_json_lines(tmp_path):
    write_three(tmp_path / "r.jsonl")
    window, video, failure, _ = map(json.loads, (tmp_path / "r.jsonl").read_text().splitlines())
    assert window["scores"] == [0.75, 0.25] and window["end"] == 2.0
    assert video["top"] == [["left", 0.75], ["right", 0.25]]
    assert video["segments"] == [{"start": 0.0, "end": 2.0, "label": "left", "score": 0.75}]
    assert failure == {"video": "b.mp4", "error": "cannot read b.mp4: no"}


def test_csv(tmp_path):
    write_three(tmp_path / "r.csv")
    rows = list(csv.DictReader((tmp_path / "r.csv").open()))
    kinds = [(row["video"], row["kind"], row["rank"], row["label"]) for row in rows]
    assert kinds[2:5] == [
        ("a.mp4", "segment", "1", "left"),
        ("a.mp4", "video", "1", "left"),
        ("a.mp4", "video", "2", "right"),
    ]
    assert rows[5]["error"] == "cannot read b.mp4: no"


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_a_stopped_run_goes_on(tmp_path, suffix):
    path = tmp_path / f"r.{suffix}"
    write_three(path)
    with path.open("a") as file:
        file.write('{"video": "c.mp4", "win' if suffix == "jsonl" else "c.mp4,window,2.0")
    with open_results(path, None, io.StringIO()) as writer:
        assert writer.done == {"a.mp4"}  # what failed is tried again
        known = writer.unfinished("c.mp4")
        assert known == ([WINDOW] if suffix == "jsonl" else [])
        writer.video("c.mp4", VideoResult(TOP, 1))
    with open_results(path, None, io.StringIO()) as writer:
        assert writer.done == {"a.mp4", "c.mp4"}
    assert "b.mp4" not in path.read_text()


def test_text_names_videos_scores_and_segments():
    out = io.StringIO()
    with open_results(None, None, out) as writer:
        writer.video("a.mp4", VideoResult(TOP, 1, [SEGMENT]))
        writer.failure("b.mp4", "cannot read b.mp4: no")
    lines = out.getvalue().splitlines()
    assert lines[:2] == ["a.mp4", " 0.7500  left"]
    assert "0.00 –      2.00 s" in lines[3] and lines[3].endswith("left")
    assert "cannot read b.mp4" in lines[-1]


def test_files_that_cannot_be_continued(tmp_path):
    (tmp_path / "r.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"r\.txt exists"):
        open_results(tmp_path / "r.txt", None, io.StringIO())
    (tmp_path / "r.jsonl").write_text("mine\nand yours\n")
    with pytest.raises(DataError, match=r"r\.jsonl, line 1"):
        open_results(tmp_path / "r.jsonl", None, io.StringIO())
    (tmp_path / "r.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"r\.csv, line 1"):
        open_results(tmp_path / "r.csv", None, io.StringIO())
    assert (tmp_path / "r.csv").read_text() == "a,b\n1,2\n"
    with pytest.raises(ConfigError, match="need a file"):
        open_results(None, "csv", io.StringIO())
