"""Files, folders, patterns and lists."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from videonet.errors import DataError
from videonet.inference.sources import Source, find_videos


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for name in ("b.mp4", "a.MKV", "notes.md", "deep/c.avi", "deep/er/d e.webm"):
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def names(folder: Path, sources: list[Source]) -> list[str]:
    return [str(Path(source.path).relative_to(folder)) for source in sources]


def test_a_folder_is_searched_below(folder):
    assert names(folder, find_videos([folder])) == [
        "a.MKV",
        "b.mp4",
        "deep/c.avi",
        "deep/er/d e.webm",
    ]


def test_a_link_that_leads_nowhere_is_told_and_others_go_to_their_files(folder):
    (folder / "broken.mp4").symlink_to(folder / "gone.mp4")
    (folder / "linked.mp4").symlink_to(folder / "b.mp4")
    (folder / "again").symlink_to(folder / "deep", target_is_directory=True)
    (folder / "named.mp4").mkdir()
    found = names(folder, find_videos([folder]))
    assert {"broken.mp4", "linked.mp4"} <= set(found)
    assert not any(name.startswith(("again", "named")) for name in found)


def test_a_folder_that_cannot_be_listed_is_told(folder, monkeypatch):
    scandir = os.scandir

    def refuse(place):
        if Path(place).name == "er":
            raise PermissionError(13, "Permission denied")
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match="cannot list the folder .*er: Permission denied"):
        find_videos([folder])


def test_patterns_and_files_keep_their_order_and_come_once(folder):
    found = find_videos(
        [folder / "deep/c.avi", str(folder / "**/*.mp4"), str(folder / "deep/*.avi")]
    )
    assert names(folder, found) == ["deep/c.avi", "b.mp4"]


def test_patterns_follow_no_links_in_circles(folder, monkeypatch):
    for name in ("round", "and_round"):
        (folder / "deep" / name).symlink_to(folder, target_is_directory=True)
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "x.mp4").write_bytes(b"")
    everything = ["a.MKV", "b.mp4", "deep/c.avi", "deep/er/d e.webm", "notes.md"]
    for pattern in ("**/*.*", "**/*", "**"):
        assert names(folder, find_videos([f"{folder}/{pattern}"])) == everything
    monkeypatch.chdir(folder)
    assert [s.path for s in find_videos(["**/*.mp4", "d*/**/d*"])] == ["b.mp4", "deep/er/d e.webm"]


def test_lists_with_and_without_labels(folder):
    (folder / "some.csv").write_text('path,label\nb.mp4,3\n"deep/er/d e.webm",0\n')
    assert find_videos([folder / "some.csv"]) == [
        Source(str(folder / "b.mp4"), 3),
        Source(str(folder / "deep/er/d e.webm"), 0),
    ]
    (folder / "plain.txt").write_text("deep/er/d e.webm\n\nb.mp4\nmissing.mp4\n")
    found = find_videos([folder / "plain.txt"])
    assert names(folder, found) == ["deep/er/d e.webm", "b.mp4", "missing.mp4"]
    assert {source.label for source in found} == {None}


def test_a_named_file_that_is_missing_stays(folder):
    assert names(folder, find_videos([folder / "gone.mp4"])) == ["gone.mp4"]


@pytest.mark.parametrize("name", ["deep/none*.mp4", "nothing.txt", "empty"])
def test_an_input_without_videos(folder, name):
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match=Path(name).name.replace("*", r"\*")):
        find_videos([folder / name])
