"""What reaches a terminal and a log: progress, levels, and objects that hold tensors."""

import dataclasses
import importlib
import io
import logging
import os
import pkgutil
import sys

import pytest
import torch

import videonet
from videonet import terminal
from videonet.terminal import progress_bar, start_logging

PUBLIC = ("Batch", "ClipFrames", "FrameTable", "Prediction", "VideoFeatures", "Window",
          "WindowScores")  # fmt: skip


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def stderr(monkeypatch):
    def use(stream):
        monkeypatch.setattr("sys.stderr", stream)
        return stream

    return use


def test_a_log_file_gets_lines_and_nothing_that_is_drawn_over(stderr, monkeypatch):
    monkeypatch.setattr(terminal, "LINE_SECONDS", 0.0)
    file = stderr(io.StringIO())
    for _ in progress_bar(range(3), desc="videos", unit="videos"):
        pass
    lines = file.getvalue().splitlines()
    assert "\r" not in file.getvalue() and "\x1b" not in file.getvalue()
    assert [line.split(" after")[0] for line in lines][-1] == "videos: 3 of 3 videos"
    assert len(set(lines)) == len(lines) >= 3


def test_lines_come_rarely(stderr):
    file = stderr(io.StringIO())
    bar = progress_bar(total=5000, desc="train", unit="steps")
    for _ in range(5000):
        bar.update()
        bar.set_postfix(loss="0.1")
    bar.close()
    assert len(file.getvalue().splitlines()) <= 1


def test_a_terminal_gets_a_bar_and_quiet_gets_nothing(stderr):
    for show, expected in ((True, True), (False, False)):
        screen = stderr(Screen())
        list(progress_bar(range(2), show=show, desc="videos"))
        assert ("\rvideos" in screen.getvalue()) == expected


@pytest.mark.parametrize("quiet", [False, True])
def test_the_log_holds_everything_and_the_terminal_what_is_asked_for(stderr, tmp_path, quiet):
    screen, root = stderr(io.StringIO()), logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        start_logging(tmp_path, quiet=quiet)
        log = logging.getLogger("videonet.test_terminal")
        log.info("an epoch")
        log.info("a loss", extra={"for_the_file": True})
        log.warning("a warning")
    finally:
        for handler in root.handlers:
            handler.close()
        root.handlers[:] = before
        root.setLevel(level)
    said, written = screen.getvalue(), (tmp_path / "log.txt").read_text()
    assert all(words in written for words in ("an epoch", "a loss", "a warning"))
    assert "a warning" in said and "a loss" not in said and ("an epoch" in said) != quiet


def holds_arrays(found: type) -> bool:
    types = [str(kind) for kind in vars(found).get("__annotations__", {}).values()]
    return any("Tensor" in kind or "ndarray" in kind for kind in types)


def test_objects_with_tensors_show_shapes():
    for module in pkgutil.walk_packages(videonet.__path__, "videonet."):
        try:
            content = vars(importlib.import_module(module.name))
        except ModuleNotFoundError as error:  # an extra
            assert not str(error.name).startswith("videonet"), error
            continue
        for name, found in content.items():
            if name not in PUBLIC or not isinstance(found, type):  # a tuple's type is none
                continue
            if found.__module__ == module.name and holds_arrays(found):
                assert issubclass(found, terminal.ShortRepr), name
                assert "__repr__" not in vars(found), f"{name} has the one of its dataclass"

    @dataclasses.dataclass(repr=False)
    class Scores(terminal.ShortRepr):
        video: str
        scores: torch.Tensor

    assert repr(Scores("a.mp4", torch.rand(50, 400))) == (
        "Scores(video='a.mp4', scores=<50 x 400 of torch.float32>)"
    )


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pseudo-terminals")
def test_a_terminal_without_a_size_shows_a_bar(monkeypatch):
    ours, theirs = os.openpty()  # 0 rows of 0 columns
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        list(progress_bar(range(3), desc="videos"))
    shown = os.read(ours, 10_000).decode()
    os.close(ours)
    assert "videos" in shown and "3/3" in shown
