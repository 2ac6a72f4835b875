"""videonet finetune --recipe probe: features once, classifiers, a model and a page."""

import csv
import json
import shutil

import pytest
import torch

from videonet import Predictor, create_model
from videonet.commands import finetune
from videonet.errors import CheckpointError, ConfigError, Interrupted
from videonet.finetuning import setup
from videonet.finetuning.probe_plan import ProbeSpeed
from videonet.finetuning.probe_recipe import COMPARED, UNSEEN, read_comparison
from videonet.finetuning.start import find_weights
from videonet.inference import extraction
from videonet.tasks.class_tables import read_scores

QUICK = ["--recipe", "probe", "--epochs", "2", "--size", "32", "--frames", "4"]
KEYS = [
    *("MODEL.NAME", "vit_xs", "PROBE.RATES", "[0.01]", "PROBE.DECAYS", "[0.1]", "DEVICE", "cpu"),
    *("TEST.NUM_ENSEMBLE_VIEWS", "1", "TEST.NUM_SPATIAL_CROPS", "1", "PROBE.AUGMENTED", "1"),
]


pytestmark = pytest.mark.usefixtures("one_thread_and_the_loggers_before")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Tensors alone, of a model of images."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "images.pth"
    torch.save(create_model("vit_xs", num_classes=0, num_frames=1, crop_size=32).state_dict(), path)
    return path


def words(videos, run, weights, *more):
    return [str(videos), "--output", str(run), "--weights", str(weights), *QUICK, *more, *KEYS]


def groups_of(run):
    with open(run / "data" / "groups.csv") as file:
        return {row["path"]: row["group"] for row in csv.DictReader(file)}


def test_a_folder_becomes_a_model_and_a_page(small, tmp_path, weights, monkeypatch, capsys):
    run = tmp_path / "run"
    of_clips, done = extraction._of_clips, []

    def stopped(*args):
        if len(done) == 5:
            raise KeyboardInterrupt
        done.append(args)
        return of_clips(*args)

    monkeypatch.setattr(extraction, "_of_clips", stopped)
    with pytest.raises(Interrupted, match="the same command goes on"):
        finetune.main(words(small, run, weights))
    done.clear()
    monkeypatch.setattr(extraction, "_of_clips", lambda *a: done.append(a) or of_clips(*a))
    finetune.main(words(small, run, weights))
    state = json.loads((run / "finetune.json").read_text())
    parts = [clip["part"] for clip in state["clips"]]
    assert len(done) == 2 * parts.count("train") + parts.count("val") - 5
    assert "videos that it has not seen" in capsys.readouterr().out

    comparison = read_comparison(run)
    methods = [one.method for one in comparison.classifiers]
    assert methods == ["attentive", "statistics", "linear", "knn"]
    heads = comparison.classifiers[:3]
    assert comparison.used.held_out == max(one.held_out for one in heads)
    text = (run / "report.html").read_text()
    for said in ("The classifiers", "choose", "(in the model)", "Every class", "probe.csv"):
        assert said in text, said
    assert "How it learnt" not in text
    choices = (run / "choices.txt").read_text()
    assert "(recipe probe); it was asked for" in choices and "each on its own" in choices
    config = (run / "config.yaml").read_text()
    assert f"GROUPS: {run / 'data' / 'groups.csv'}" in config and "space_time: space" in config

    paths, scores = read_scores(run / "scores.csv")
    predictor = Predictor.from_pretrained(run / "model")
    for path, expected in zip(paths, scores.scores, strict=True):
        found = dict(predictor(path).top)
        for name, value in zip(predictor.class_names, expected.tolist(), strict=True):
            assert found[name] == pytest.approx(value, abs=2e-3)
    unseen, _ = read_scores(run / UNSEEN / "scores.csv")
    trained = {c["path"] for c in state["clips"] if c["part"] == "train"}
    assert set(unseen) == trained and not set(unseen) & set(paths)

    monkeypatch.setattr(extraction, "_of_clips", lambda *_: pytest.fail("computed again"))
    before = (run / COMPARED).stat().st_mtime_ns
    finetune.main(words(small, run, weights))
    assert (run / COMPARED).stat().st_mtime_ns == before
    assert "the classifiers have been trained" in (run / "log.txt").read_text()
    with pytest.raises(ConfigError, match="--size was 32, and is 48 here"):
        finetune.main(words(small, run, weights, "--size", "48"))


def test_features_in_bf16_make_a_model_for_any_machine(small, tmp_path, weights, monkeypatch):
    def speed(cfg, _):
        return ProbeSpeed(0.01 if cfg.TRAIN.HALF_PRECISION == "bf16" else 0.02, 64, 32, 1e-5)

    monkeypatch.setattr(setup, "probe_speed", speed)
    finetune.main(words(small, tmp_path, weights))
    assert (
        "precision: bf16; features are computed 2.0 times" in (tmp_path / "choices.txt").read_text()
    )
    assert "HALF_PRECISION: bf16" in (tmp_path / "config.yaml").read_text()
    assert Predictor.from_pretrained(tmp_path / "model").cfg.TRAIN.HALF_PRECISION == "auto"


def test_shares_of_the_videos_use_the_features_of_all(small, tmp_path, weights, monkeypatch):
    run = tmp_path / "run"
    finetune.main(words(small, run, weights))
    monkeypatch.setattr(extraction, "_of_clips", lambda *_: pytest.fail("computed again"))
    finetune.main(words(small, run, weights, "--data-curve"))
    used = read_comparison(run).used.method
    for share in ("25", "50"):
        place = run / "curve" / share
        assert json.loads((place / "results.json").read_text())["classifier"] == used
        assert not (place / "features").exists() and not (place / "model").exists()
    assert (
        "What more videos bring (each model of the same kind)" in (run / "report.html").read_text()
    )


def test_groups_and_copies_are_held_out_as_a_whole(small, tmp_path, weights):
    """The names of files are the same in all classes, so paths have to tell them apart."""
    first, second, third = sorted(small.iterdir())
    shutil.copy(first / "person00_take0.mp4", third / "person03_take9.mp4")
    run = tmp_path / "run"
    finetune.main(words(small, run, weights))
    groups = groups_of(run)
    assert len(groups) == 16
    together = {
        groups[str(first / "person00_take0.mp4")],
        groups[str(third / "person03_take9.mp4")],
    }
    assert len(together) == 1
    assert len(set(groups.values())) == 3  # of four persons two are joined


@pytest.mark.parametrize("videos", [1, 2])
def test_the_fewest_videos_give_a_result(drawn, tmp_path, weights, videos, capsys):
    folder, run = tmp_path / "few", tmp_path / "run"
    for source in sorted(drawn.iterdir())[:2]:
        (folder / source.name).mkdir(parents=True)
        for clip in sorted(source.iterdir())[:videos]:
            shutil.copy(clip, folder / source.name)
    finetune.main(words(folder, run, weights))
    said = capsys.readouterr().out
    assert ("of 2 videos that it has not seen" if videos == 2 else "cannot be said") in said
    assert "The classifiers" in (run / "report.html").read_text()
    assert Predictor.from_pretrained(run / "model")


def test_neighbours_alone_are_no_model(small, tmp_path, weights):
    with pytest.raises(ConfigError, match="a model needs attentive, statistics or linear"):
        finetune.main([*words(small, tmp_path / "run", weights), "PROBE.METHODS", "[knn]"])


def test_a_bare_checkpoint_says_whether_it_is_of_images(tmp_path, weights):
    with pytest.raises(ConfigError, match="say which model it is of: MODEL.NAME NAME"):
        find_weights(str(weights))
    (images,) = find_weights(str(weights), ["MODEL.NAME", "vit_xs"])
    assert (images.model, images.frames, images.given) == ("vit_xs", 1, True)
    clips = tmp_path / "clips.pth"
    torch.save(create_model("vit_xs", num_classes=3, num_frames=8).state_dict(), clips)
    (found,) = find_weights(str(clips), ["MODEL.NAME", "vit_xs", "DATA.NUM_FRAMES", "8"])
    assert found.frames == 8
    with pytest.raises(ConfigError, match="unknown model"):
        find_weights(str(weights), ["MODEL.NAME", "vit_zz"])
    with pytest.raises((CheckpointError, ConfigError)):
        find_weights(str(tmp_path / "gone.pth"), ["MODEL.NAME", "vit_xs"])
