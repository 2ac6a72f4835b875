"""Intervals, doubtful and suspected videos, what is said of them, and the page itself."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from videonet.errors import ConfigError, DataError
from videonet.finetuning import page
from videonet.finetuning.advice import Outcome, next_steps, verdict
from videonet.finetuning.choices import Choice
from videonet.finetuning.curve import Point
from videonet.finetuning.report import write_report
from videonet.finetuning.state import Asked, Clip, State, read_state, refuse_another, write_state
from videonet.finetuning.statistics import (
    confused_pairs,
    doubtful,
    judged,
    suspects,
    wilson,
    worst,
)
from videonet.tasks.class_scores import ClassScores
from videonet.tasks.class_tables import read_scores, write_tables

HOSTILE = "<script>alert(1)</script>\"'&\x1b]0;x\x07"


def test_wilson_is_that_of_the_tables():
    # Newcombe (1998), Table I, method 3.
    for right, total, low, high in [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ]:
        assert wilson(right, total) == pytest.approx((low, high), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(5, 5)[1] == 1.0


def scores_of(rows, labels) -> ClassScores:
    return ClassScores(torch.arange(len(rows)), torch.tensor(labels), torch.tensor(rows))


def test_the_worst_the_doubtful_and_the_suspected():
    rows = [[0.9, 0.1, 0.0], [0.05, 0.9, 0.05], [0.4, 0.35, 0.25], [0.45, 0.5, 0.05]]
    videos = judged("abcd", scores_of(rows, [0, 0, 0, 0]))
    assert [v.path for v in worst(videos, 9)] == ["b", "d"]
    assert [v.path for v in doubtful(videos, 2)] == ["c", "d"]
    assert [v.path for v in suspects(videos, 9)] == ["b"]
    confusion = torch.tensor([[5, 2, 0], [0, 1, 3], [0, 0, 4]])
    assert confused_pairs(confusion, 9) == [(1, 2, 3), (0, 1, 2)]


def test_scores_are_read_as_they_were_written(tmp_path):
    torch.manual_seed(0)
    paths = ["=1+1.mp4", "a,b.mp4", 'q"q.mp4', "'=x.mp4"]
    scores = torch.rand(4, 3).softmax(1)
    names = ["=cmd", "b", "c;d"]
    write_tables(
        tmp_path, ClassScores(torch.arange(4), torch.tensor([0, 1, 2, 0]), scores), paths, names
    )
    found_paths, found = read_scores(tmp_path / "scores.csv")
    assert found_paths == paths and found.labels.tolist() == [0, 1, 2, 0]
    torch.testing.assert_close(found.scores, scores, atol=1e-5, rtol=1e-4)
    (tmp_path / "other.csv").write_text("path,label,a\nx,b,0.5\n")
    with pytest.raises(DataError, match="is no table of scores"):
        read_scores(tmp_path / "other.csv")


def outcome(**changes) -> Outcome:
    usual = {"classes": ["a", "b"], "train": [40, 40], "val": [20, 20], "right": [19, 18]}
    return Outcome(**usual | {"loss": 0.1, "calibration": 0.02} | changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"val": [2, 2], "right": [1, 2]}, "leave the accuracy uncertain"),
        ({"loss": 0.68}, "hardly learnt its own videos"),
        ({"right": [10, 12]}, "so do weights that know videos"),
        ({"pairs": [(0, 1, 5)]}, "5 of 20 videos of 'a' are taken for 'b'"),
        ({"suspects": 3}, "Look at the labels of 3 videos"),
        ({"train": [40, 5]}, "fewer than ten training videos (b)"),
        ({"calibration": 0.3}, "off by 30 points"),
        ({"grouped": False}, "a column 'group'"),
        ({"damaged": 2}, "2 files were left out"),
        ({"points": [Point(50, 40, 30, 40), Point(100, 80, 36, 40)]}, "changes by +15 points"),
        ({"points": [Point(50, 40, 36, 40), Point(100, 80, 36, 40)]}, "would bring little"),
    ],
)
def test_what_to_do_next_follows_from_what_came_out(changes, said):
    assert said in " ".join(next_steps(outcome(**changes)))
    assert said not in " ".join(next_steps(outcome()))


def test_what_a_model_that_guesses_takes_for_what_is_no_reason_to_do_anything():
    found = {"pairs": [(0, 1, 15)], "suspects": 3, "loss": 0.68}
    guessing = " ".join(next_steps(outcome(right=[5, 16], **found)))
    assert "hardly learnt" in guessing
    assert "taken for" not in guessing and "labels" not in guessing
    better = " ".join(next_steps(outcome(right=[15, 18], **found)))
    assert "taken for" in better and "labels" in better


def test_the_verdict_says_what_it_rests_on():
    assert "37 of 40 videos" in verdict(outcome()) and "50 %" in verdict(outcome())
    assert "not surely better" in verdict(outcome(right=[10, 11]))
    assert "cannot be said" in verdict(outcome(val=[0, 0], right=[0, 0]))


def state_of(tmp_path, names) -> State:
    clips = [
        Clip(str(tmp_path / f"{HOSTILE.replace('/', '')}{k}.mp4"), k % 2, part, "", 1.0 + k)
        for k, part in enumerate(["train", "train", "val", "val"])
    ]
    choices = [Choice("held out to measure", "2 of 4", HOSTILE), Choice("frames", "16", "why not")]
    return State(
        Asked(str(tmp_path)), "mark", {}, choices, names, [1, 1], clips, [(HOSTILE, HOSTILE)],
        [(1, 0)], [], HOSTILE,
    )  # fmt: skip


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found, self.links = [], []

    def handle_starttag(self, tag, attrs):
        self.found.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]
        assert not [name for name, _ in attrs if name.startswith("on")]


def test_names_cannot_harm_the_page(tmp_path):
    state = state_of(tmp_path, [HOSTILE, "b"])
    rows = [[0.1, 0.9], [0.6, 0.4]]
    paths = [clip.path for clip in state.of_part("val")]
    write_tables(tmp_path, scores_of(rows, [0, 1]), paths, state.classes)
    (tmp_path / "results.json").write_text('{"failed": ["<b>x: <i>y"], "top1": 0.0, "videos": 2}')
    write_report(tmp_path, state)
    text = (tmp_path / "report.html").read_text()
    tags = Tags()
    tags.feed(text)
    assert not {"script", "b", "i", "link", "iframe"} & set(tags.found)
    assert tags.links and all(link.startswith("data:image/") for link in tags.links)
    assert "\x1b" not in text and "\x07" not in text and "default-src 'none'" in text
    assert not re.search(r"https?:", text)


def test_a_report_without_held_out_videos(tmp_path):
    state = state_of(tmp_path, ["a", "b"])
    said = write_report(tmp_path, state)
    assert "cannot be said" in said and "cannot be said" in (tmp_path / "report.html").read_text()


def test_marks_lie_within_their_track():
    for right in range(6):
        low, high = wilson(right, 5)
        numbers = re.findall(r"([\d.]+)%", page.interval(right / 5, low, high))
        assert all(0 <= float(n) <= 100 for n in numbers)
    assert page.text(np.str_("a<b")) == "a&lt;b" and page.listing([]) == ""


def test_what_was_chosen_is_kept(tmp_path):
    state = state_of(tmp_path, ["a", "b\udcff"])
    write_state(tmp_path, state)
    assert read_state(tmp_path) == state
    assert "frames: 16; why not." in (tmp_path / "choices.txt").read_text(errors="replace")
    refuse_another(state, state.asked, "mark", tmp_path)
    with pytest.raises(ConfigError, match="other videos"):
        refuse_another(state, state.asked, "other", tmp_path)
    with pytest.raises(ConfigError, match="--size was 0, and is 64 here"):
        refuse_another(state, Asked(str(tmp_path), size=64), "mark", tmp_path)
    (tmp_path / "finetune.json").write_text('{"format": 1}')
    with pytest.raises(ConfigError, match="cannot be used"):
        read_state(tmp_path)
