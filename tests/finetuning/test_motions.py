"""Weights that have learnt drawn motions: made once, by the demo's recipe."""

from pathlib import Path

import pytest

from tests.finetuning.conftest import CPU, data_facts
from videonet.commands import finetune
from videonet.commands.run import run_config
from videonet.config import load_config
from videonet.errors import Interrupted
from videonet.finetuning import motions
from videonet.finetuning.choices import StartingWeights, configuration
from videonet.finetuning.clips import choose_clips
from videonet.finetuning.plan import choose_recipe, choose_weights
from videonet.finetuning.start import config_from
from videonet.models import create_model
from videonet.models.weights import load_weights

pytestmark = pytest.mark.usefixtures("one_thread_and_the_loggers_before")

DEMO = Path(__file__).parents[2] / "configs" / "DEMO" / "MVITv2_XS.yaml"


@pytest.fixture
def small_recipe(tmp_path, monkeypatch):
    monkeypatch.setenv("VIDEONET_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(motions, "TRAIN_CLIPS", 16)
    monkeypatch.setattr(motions, "VAL_CLIPS", 8)
    solver = motions.RECIPE["SOLVER"] | {"MAX_EPOCH": 1}
    changes = {
        "SOLVER": solver,
        "TRAIN": {"BATCH_SIZE": 8},
        "DATA_LOADER": {"NUM_WORKERS": 0},
        "DEVICE": "cpu",
    }
    monkeypatch.setattr(motions, "RECIPE", motions.RECIPE | changes)


def test_the_recipe_is_the_demos():
    ours, demo = config_from(motions.RECIPE, []), load_config(DEMO, [])
    for group in motions.RECIPE:
        for key, value in demo[group].items():
            if key not in ("PATH_TO_DATA_DIR",):
                assert ours[group][key] == value, f"{group}.{key}"


def test_a_stopped_making_goes_on_and_the_weights_are_made_once(small_recipe):
    def stopped(cfg):
        run_config(cfg, quiet=True)
        raise Interrupted("stopped", 2)

    with pytest.raises(Interrupted):
        motions.learn_motions(stopped, quiet=True)
    assert not motions.motion_folder().exists()
    place = motions.learn_motions(lambda cfg: run_config(cfg, quiet=True), quiet=True)
    assert [entry.name for entry in place.parent.iterdir()] == [place.name]  # the clips are gone
    motions.learn_motions(lambda cfg: pytest.fail("made again"))
    weights = motions.motion_weights(given=False)
    model = create_model(weights.model, num_classes=3, num_frames=16, crop_size=64)
    report = load_weights(model, weights.source)
    assert report.loaded


def test_they_are_chosen_where_nothing_better_is_and_something_moves():
    made = motions.motion_weights(given=False)
    chosen, choice = choose_weights(data_facts(), CPU, [made], "cache")
    assert chosen is made and "drawn motions" in choice.value
    assert choose_recipe(data_facts(), CPU, chosen)[0] == "small"
    clips = choose_clips(data_facts(), CPU, chosen)
    keys = config_from(configuration(made.config, [choice, *clips]), ["MODEL.NUM_CLASSES", "4"])
    assert (keys.MODEL.NAME, keys.DATA.NUM_FRAMES) == ("mvit_v2_xs", 16)
    assert keys.TRAIN.NEW_HEAD  # of eight motions, which eight other classes are not
    published = StartingWeights("mvit_v2_xs.k400", "mvit_v2_xs", 8, 48)
    assert choose_weights(data_facts(), CPU, [published, made], "cache")[0] is published
    for still in ({"pictures": True}, {"moving": 0.0001}):
        assert choose_weights(data_facts(**still), CPU, [made], "cache")[0].source == ""


def test_the_command_makes_them_before_it_trains(small_recipe, small, tmp_path):
    run = tmp_path / "run"
    words = ["--epochs", "1", "--size", "32", "--frames", "4", "--quiet"]
    keys = ["TEST.NUM_ENSEMBLE_VIEWS", "1", "AUG.NUM_SAMPLE", "1", "DATA_LOADER.NUM_WORKERS", "0"]
    finetune.main([str(small), "--output", str(run), *words, *keys, "DEVICE", "cpu"])
    assert "learns drawn motions first" in (run / "choices.txt").read_text()
    assert (motions.motion_folder() / "config.json").is_file()
    log = (run / "log.txt").read_text()
    assert "a new head was asked for" in log
    assert "mvit_v2_xs" in log and f"initial weights\n{motions.motion_folder()}" in log
    assert (run / "report.html").is_file()
