"""Result files: what they hold, and how a stopped run goes on."""

from __future__ import annotations

import csv
import io
import json
import os
import resource

import pytest

from videonet.data.tables import text_of
from videonet.errors import ConfigError, DataError, WriteError
from videonet.inference.result_files import (
    VideoResult,
    WindowResult,
    description_path,
    open_results,
)
from videonet.tasks.segments import Segment

TOP = [("left", 0.75), ("right", 0.25)]
WINDOW = WindowResult(0, 0.0, 2.0, TOP, [0.75, 0.25])
SEGMENT = Segment(0.0, 2.0, "left", 0.75)


ABOUT = {"checkpoint": "one.pyth", "weights": "11", "top_k": 2, "clips": {"stride": 0.2}}


def write_three(path):
    """One finished video, one that failed and one that was stopped in the middle."""
    with open_results(path, None, io.StringIO(), ABOUT) as writer:
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
    with open_results(path, None, io.StringIO(), ABOUT) as writer:
        assert writer.done == {"a.mp4"}  # what failed is tried again
        known = writer.unfinished("c.mp4")
        assert known == ([WINDOW] if suffix == "jsonl" else [])
        writer.video("c.mp4", VideoResult(TOP, 1))
    with open_results(path, None, io.StringIO(), ABOUT) as writer:
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


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"clips": {"stride": 1.0}},
            r"by other options: clips\.stride is 0\.2 there and 1\.0 here",
        ),
        ({"weights": "22", "checkpoint": "two.pyth"}, "by one.pyth, not by two.pyth: weights is"),
        ({"top_k": 1}, "top_k is 2 there and 1 here"),
    ],
)
def test_results_of_something_else_are_not_mixed(tmp_path, suffix, change, said):
    path = tmp_path / f"r.{suffix}"
    write_three(path)
    before = path.read_bytes()
    with pytest.raises(DataError, match=f"{said}.*another --output, or --overwrite"):
        open_results(path, None, io.StringIO(), ABOUT | change)
    assert path.read_bytes() == before
    with open_results(path, None, io.StringIO(), ABOUT | change, overwrite=True) as writer:
        assert not writer.done
        writer.video("a.mp4", VideoResult(TOP))
    with open_results(path, None, io.StringIO(), ABOUT | change) as writer:
        assert writer.done == {"a.mp4"}


@pytest.mark.parametrize(
    "line",
    [
        '{"video": "a", "window": "0", "start": 0, "end": 1, "top": [], "scores": [1, 1]}',
        '{"video": "a", "window": 0, "start": NaN, "end": 1, "top": [], "scores": [1, 1]}',
        '{"video": "a", "window": 0, "start": 0, "end": 1, "top": 5, "scores": [1, 1]}',
        '{"video": "a", "window": 0, "start": 0, "end": 1, "top": [], "scores": [1, "1"]}',
        '{"video": "a", "top": [["left"]]}',
        '{"video": "a", "top": [["left", null]]}',
        '{"video": "a", "window": ' + "9" * 5000 + "}",
    ],
)
def test_lines_that_no_prediction_wrote(tmp_path, line):
    path = tmp_path / "r.jsonl"
    write_three(path)
    path.write_text(f"{line}\n{path.read_text()}")
    with pytest.raises(DataError, match=r"r\.jsonl, line 1: (no result|not JSON)"):
        open_results(path, None, io.StringIO(), ABOUT)


@pytest.mark.parametrize("change", [{"window": 5}, {"window": 1, "scores": [0.5, 0.25, 0.25]}])
def test_windows_that_do_not_belong_together(tmp_path, change):
    path = tmp_path / "r.jsonl"
    write_three(path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, json.dumps(json.loads(lines[-1]) | change)]) + "\n")
    with (
        open_results(path, None, io.StringIO(), ABOUT) as writer,
        pytest.raises(DataError, match=r"r\.jsonl does not hold the windows of c\.mp4 one after"),
    ):
        writer.unfinished("c.mp4")


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_results_that_nothing_describes_are_left_alone(tmp_path, suffix):
    path = tmp_path / f"r.{suffix}"
    write_three(path)
    description_path(path).write_text("{")
    before = path.read_bytes()
    with pytest.raises(DataError, match="does not say what made it.*--overwrite"):
        open_results(path, None, io.StringIO(), ABOUT)
    description_path(path).unlink()
    with pytest.raises(DataError, match="does not say what made it"):
        open_results(path, None, io.StringIO(), ABOUT)
    assert path.read_bytes() == before and not description_path(path).exists()
    path.unlink()
    with open_results(path, None, io.StringIO(), ABOUT) as writer:
        assert not writer.done


def test_the_checkpoint_may_have_moved(tmp_path):
    write_three(tmp_path / "r.jsonl")
    moved = ABOUT | {"checkpoint": "/elsewhere/one.pyth"}
    with open_results(tmp_path / "r.jsonl", None, io.StringIO(), moved) as writer:
        assert writer.done == {"a.mp4"}


def test_two_processes_do_not_write_to_one_file(tmp_path):
    path = tmp_path / "r.jsonl"
    with (
        open_results(path, None, io.StringIO(), ABOUT),
        pytest.raises(ConfigError, match="another process writes to"),
    ):
        open_results(path, None, io.StringIO(), ABOUT)


def test_a_device_is_not_replaced_by_a_file(tmp_path):
    os.mkfifo(tmp_path / "r.jsonl")
    with pytest.raises(ConfigError, match="no file"):
        open_results(tmp_path / "r.jsonl", None, io.StringIO(), ABOUT)
    assert not (tmp_path / "r.jsonl").is_file()


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "r.jsonl").symlink_to(tmp_path / "there.jsonl")
    write_three(tmp_path / "r.jsonl")
    with open_results(tmp_path / "r.jsonl", None, io.StringIO(), ABOUT) as writer:
        assert writer.done == {"a.mp4"}
    assert (tmp_path / "r.jsonl").is_symlink() and (tmp_path / "there.jsonl").is_file()


def test_a_video_without_all_its_rows_begins_again(tmp_path):
    path = tmp_path / "r.csv"
    write_three(path)
    lines = path.read_text().splitlines(keepends=True)
    (last,) = (k for k, line in enumerate(lines) if line.startswith("a.mp4,video,,,2,"))
    path.write_text("".join(lines[:last]))  # cut between two rows
    with open_results(path, None, io.StringIO(), ABOUT) as writer:
        assert not writer.done
    assert path.read_text() == lines[0]


HOSTILE = ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1", "'=1", "''@", "'", "a=b", "\n-x", "\udcff="]


def test_names_that_a_spreadsheet_would_run(tmp_path):
    path = tmp_path / "r.csv"
    with open_results(path, None, io.StringIO(), ABOUT) as writer:
        for name in HOSTILE:
            writer.video(name, VideoResult([(name, 0.75), ("other", 0.25)]))
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert not [cell for cell in cells if cell.startswith(tuple("=+-@\t\r\n"))]
    assert {text_of(cell) for cell in cells} >= set(HOSTILE)
    with open_results(path, None, io.StringIO(), ABOUT) as writer:
        assert writer.done == set(HOSTILE)


def test_a_full_disk_is_one_sentence_and_loses_nothing(tmp_path):
    path = tmp_path / "r.jsonl"
    write_three(path)
    before = path.read_bytes()
    writer = open_results(path, None, io.StringIO(), ABOUT)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, limits[1]))
    try:
        with pytest.raises(WriteError, match=r"cannot write .*r\.jsonl: File too large"):
            writer.video("d.mp4", VideoResult(TOP))
        writer.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    with open_results(path, None, io.StringIO(), ABOUT) as writer:
        assert writer.done == {"a.mp4"}
    kept = [line for line in before.splitlines() if b"error" not in line]
    assert path.read_bytes().splitlines() == kept


def test_an_ending_of_no_format_is_refused(tmp_path):
    for name in ("r.parquet", "r.json", "r.jsnol"):
        with pytest.raises(ConfigError, match=rf"{name}: results are written as \.jsonl, \.csv"):
            open_results(tmp_path / name, None, io.StringIO(), ABOUT)
        assert not (tmp_path / name).exists()
    for name in ("r.txt", "r"):
        with open_results(tmp_path / name, None, io.StringIO(), ABOUT) as writer:
            writer.video("a.mp4", VideoResult(TOP))
        assert "left" in (tmp_path / name).read_text()
