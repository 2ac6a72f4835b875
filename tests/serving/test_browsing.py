"""Clips of a list: losses, suspected labels, duplicates, and files that are out of reach."""

import os
import shutil
import time

import numpy as np
import pytest

from tests.serving.conftest import make_predictor
from videonet.data.datasets.lists import read_list
from videonet.errors import ConfigError, DataError
from videonet.serving.browsing import Browser, duplicate_groups
from videonet.serving.limits import Refusal

CLASSES = ["red", "green", "blue"]
# path, label, prediction, score, score of the label
ROWS = (
    ("a.mp4", "red", "red", 0.9, 0.9),
    ("b.mp4", "red", "red", 0.7, 0.7),
    ("c.mp4", "red", "blue", 0.95, 0.02),  # sure: blue's own have 0.8
    ("d.mp4", "blue", "blue", 0.8, 0.8),
    ("e.mp4", "green", "blue", 0.5, 0.4),  # not sure
    ("f.mp4", "green", "red", 0.6, 0.3),  # sure: red's own have (0.9 + 0.7 + 0.02) / 3
)


@pytest.fixture
def folder(tmp_path, videos):
    """A list of six clips; b and d have the same content."""
    content = {"a": "red", "b": "green", "c": "blue", "d": "green", "e": "change", "f": "red"}
    (tmp_path / "clips").mkdir()
    for name, colour in content.items():
        shutil.copy(videos[colour], tmp_path / "clips" / f"{name}.mp4")
    with (tmp_path / "clips" / "f.mp4").open("ab") as file:
        file.write(b"\0\0\0\x08free")  # another file with the same pictures
    lines = [f"clips/{path} {CLASSES.index(label)}" for path, label, *_ in ROWS]
    (tmp_path / "val.csv").write_text("\n".join(lines) + "\n")
    head = "path,label,prediction,score,score_of_label\n"
    rows = [f"data/x/clips/{p},{a},{b},{c},{d}\n" for p, a, b, c, d in ROWS]
    (tmp_path / "predictions.csv").write_text(head + "".join(rows))
    return tmp_path


@pytest.fixture
def browser(folder):
    return Browser(read_list(folder / "val.csv", 3), CLASSES, folder / "predictions.csv")


def names(browser, order, label="", text="", first=0, count=10, confidence=None):
    page = browser.page(order, label, text, first, count, confidence)
    return [clip.name.removeprefix("clips/").removesuffix(".mp4") for clip in page.clips]


def test_orders_and_filters(browser):
    assert names(browser, "list") == list("abcdef")
    assert names(browser, "loss") == list("cfebda")
    assert names(browser, "suspect") == list("cf")
    assert names(browser, "suspect", confidence=0.9) == ["c"]
    assert names(browser, "suspect", confidence=0.5) == list("cfe")
    assert names(browser, "duplicates") == list("bd")
    assert names(browser, "loss", label="green") == list("fe")
    assert names(browser, "list", text="clips/e") == ["e"]
    assert names(browser, "loss", first=1, count=2) == list("fe")
    with pytest.raises(Refusal, match="ordered by list, loss, suspect, duplicates, not by size"):
        browser.page("size", "", "", 0, 1, None)
    with pytest.raises(Refusal, match="no class of this name"):
        browser.page("list", "grey", "", 0, 1, None)


def test_rows_say_what_the_table_says(browser):
    page = browser.page("list", "", "", 2, 1, None)
    (clip,) = page.clips
    assert (page.total, page.scored, page.listed, page.classes) == (6, 6, 6, CLASSES)
    assert (clip.labels, clip.prediction, clip.score) == (["red"], "blue", 0.95)
    assert np.isclose(clip.loss, -np.log(0.02)) and clip.group is None


def test_scores_of_all_classes_are_read_too(folder, browser):
    head = "path,label,green,blue,red\n"
    rows = [f"/elsewhere/clips/{path},{label},0.1,0.6,0.3\n" for path, label, *_ in ROWS[:2]]
    (folder / "scores.csv").write_text(head + "".join(rows))
    other = Browser(read_list(folder / "val.csv", 3), CLASSES, folder / "scores.csv")
    page = other.page("loss", "", "", 0, 10, None)
    assert [(c.prediction, c.score, c.score_of_label) for c in page.clips] == [
        ("blue", 0.6, 0.3)
    ] * 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("path,label,prediction,score,score_of_label\nx/q.mp4,red,red,1,1\n", "none of the videos"),
        ("path,label,prediction,score,score_of_label\nclips/a.mp4,red,grey,1,1\n", "line 2"),
        ("path,label,prediction,score,score_of_label\nclips/a.mp4,red,red,x,1\n", "line 2"),
        ("video,kind\nclips/a.mp4,red\n", "line 2"),
    ],
)
def test_tables_that_are_none(text, said, folder):
    (folder / "p.csv").write_text(text)
    with pytest.raises(DataError, match=said):
        Browser(read_list(folder / "val.csv", 3), CLASSES, folder / "p.csv")


def test_several_labels_a_video_are_refused(folder):
    (folder / "multi.csv").write_text("clips/a.mp4 0 1\n")
    videos = read_list(folder / "multi.csv", 3, multi_label=True)
    with pytest.raises(ConfigError, match="several labels a video"):
        Browser(videos, CLASSES)


def test_twins_are_found_by_content(tmp_path):
    contents = [b"a" * 10, b"b" * 10, b"a" * 10, b"a" * 11, b"b" * 10, b""]
    paths = []
    for number, content in enumerate(contents):
        paths.append(str(tmp_path / f"{number}"))
        (tmp_path / f"{number}").write_bytes(content)
    groups = duplicate_groups([*paths, str(tmp_path / "missing"), paths[3]])
    found = {}
    for index, group in groups.items():
        found.setdefault(group, set()).add(index)
    assert sorted(map(sorted, found.values())) == [[0, 2], [1, 4], [3, 7]]


def test_files_outside_the_folder_are_out_of_reach(folder, videos):
    os.symlink("/etc/passwd", folder / "clips" / "link.mp4")
    outside = folder.parent / "outside.mp4"
    shutil.copy(videos["red"], outside)
    (folder / "x.csv").write_text(f"clips/link.mp4 0\n{outside} 0\nclips/a.mp4 0\n")
    listed = read_list(folder / "x.csv", 3)
    browser = Browser(listed, CLASSES)
    for index in (0, 1):
        with pytest.raises(Refusal, match="outside the folder of its list"):
            browser.path(index)
    assert browser.path(2).endswith("clips/a.mp4")
    for index in (-1, 3):
        with pytest.raises(Refusal, match="the list has 3 clips"):
            browser.path(index)
    assert Browser(listed, CLASSES, anywhere=True).path(1) == str(outside)


def test_clips_on_the_server_with_scores_of_its_model(folder, start_server, videos):
    browser = Browser(read_list(folder / "val.csv", 3), CLASSES)
    server = start_server({"plain": make_predictor()}, browser=browser)
    until = time.monotonic() + 60
    while server.ask("/api/clips").json["scored"] < 6 and time.monotonic() < until:
        time.sleep(0.05)
    clips = {clip["name"][6]: clip for clip in server.ask("/api/clips").json["clips"]}
    predictor = make_predictor()
    for letter, clip in clips.items():
        expected = predictor(folder / "clips" / f"{letter}.mp4").scores
        assert clip["prediction"] == CLASSES[int(expected.argmax())]
        assert np.isclose(clip["score"], float(expected.max()))
    assert server.ask("/api/info").json["data"] == "val.csv"
    video = server.ask("/api/clips/0/video")
    assert video.body == videos["red"].read_bytes() and video.headers["content-type"] == "video/mp4"
    part = server.ask("/api/clips/0/video", headers={"Range": "bytes=4-7"})
    assert (part.status, part.body) == (206, b"ftyp")
    assert server.ask("/api/clips/0/strip").json["strip"].startswith("data:image/jpeg;base64,")
    assert server.ask("/api/clips/99/video").error == "the list has 6 clips, no number 99"
    assert server.ask("/api/clips/x/video").status == 422
    assert server.ask("/api/clips", order="size").status == 422
