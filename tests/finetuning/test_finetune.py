"""The command from a folder of videos to a model and a page, and going on after a stop."""

import html
import json
import re
import shlex
import shutil
import signal

import pytest

from videonet import Predictor
from videonet.commands import finetune, predict
from videonet.engine import train as training
from videonet.errors import ConfigError, DataError, Interrupted
from videonet.finetuning import setup

QUICK = ["--epochs", "2", "--size", "32", "--frames", "4"]
KEYS = ["TEST.NUM_ENSEMBLE_VIEWS", "1", "AUG.NUM_SAMPLE", "1", "DATA_LOADER.NUM_WORKERS", "0"]


pytestmark = pytest.mark.usefixtures("one_thread_and_the_loggers_before")


def test_a_folder_becomes_a_model_and_a_page(small, tmp_path, capsys, monkeypatch):
    first = sorted(small.iterdir())[0]
    (first / "broken.mp4").write_bytes(b"no video")
    (first / "notes.txt").write_text("x")
    shutil.copy(first / "person00_take0.mp4", sorted(small.iterdir())[1] / "person00_copy.mp4")
    run = tmp_path / "run"
    words = [str(small), "--output", str(run), "--weights", "none", *QUICK, *KEYS]

    step = training.Trainer._train_step

    def stopped(trainer, *args):
        if trainer.position.step == 1:
            signal.raise_signal(signal.SIGTERM)
        return step(trainer, *args)

    monkeypatch.setattr(training.Trainer, "_train_step", stopped)
    with pytest.raises(Interrupted, match="the same command goes on"):
        finetune.main(words)
    frames = run / "data" / "frames"
    assert list(frames.glob("*.safetensors"))  # of the first steps
    monkeypatch.setattr(training.Trainer, "_train_step", step)
    monkeypatch.setattr(setup, "examine", lambda *a, **k: pytest.fail("read again"))
    finetune.main(words)

    assert not frames.exists()
    said = capsys.readouterr().out
    assert "videos that it has not seen" in said
    text = (run / "report.html").read_text()
    for words_of_page in (
        "by person, as the names say",
        "broken.mp4",
        "notes.txt",
        "the same file",
    ):
        assert words_of_page.lower() in text.lower(), words_of_page
    state = json.loads((run / "finetune.json").read_text())
    parts = {
        part: {c["group"] for c in state["clips"] if c["part"] == part} for part in ("train", "val")
    }
    assert parts["train"] and parts["val"] and not parts["train"] & parts["val"]
    assert "frames of a clip: 4" in (run / "choices.txt").read_text()
    assert "NUM_FRAMES: 4" in (run / "config.yaml").read_text()

    predictor = Predictor.from_pretrained(run / "model")
    assert predictor.class_names == sorted(folder.name for folder in small.iterdir())
    assert len(predictor(first / "person00_take0.mp4").top) == 3
    line = re.search(r"videonet predict (.*?\.mp4.*?)\n", html.unescape(text))
    predict.main(shlex.split(line[1]))  # as the page says
    assert "person" in capsys.readouterr().out

    with pytest.raises(ConfigError, match="give it by --output"):
        finetune.main([*words, "OUTPUT_DIR", "elsewhere"])
    with pytest.raises(ConfigError, match="--size was 32, and is 48 here"):
        finetune.main([*words, "--size", "48"])


@pytest.mark.parametrize("videos", [1, 2])
def test_the_fewest_videos_give_a_result(drawn, tmp_path, videos, capsys):
    folder = tmp_path / "few"
    for source in sorted(drawn.iterdir())[:3]:
        (folder / source.name).mkdir(parents=True)
        for clip in sorted(source.iterdir())[:videos]:
            shutil.copy(clip, folder / source.name)
    finetune.main(
        [str(folder), "--output", str(tmp_path / "run"), "--weights", "none", *QUICK, *KEYS]
    )
    said = capsys.readouterr().out
    assert ("of 3 videos that it has not seen" if videos == 2 else "cannot be said") in said
    assert (tmp_path / "run" / "report.html").is_file()
    assert (tmp_path / "run" / "model" / "config.json").is_file()


def test_what_nothing_can_be_learnt_from_is_one_sentence(small, tmp_path):
    for folder in sorted(small.iterdir())[1:]:
        for clip in folder.iterdir():
            clip.write_bytes(b"no video")
    with pytest.raises(DataError, match="only the class .* has videos that can be read") as caught:
        finetune.main([str(small), "--output", str(tmp_path / "run"), *QUICK])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("words", [["--minutes", "0"], ["--held-out", "1"], ["--size", "-3"]])
def test_words_that_cannot_be_meant(words, capsys):
    with pytest.raises(SystemExit):
        finetune.main(["x", *words])
    assert "argument" in capsys.readouterr().err
