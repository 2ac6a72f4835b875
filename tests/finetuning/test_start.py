"""What a training may start from: weights in the cache, those that are given, and this machine."""

import pytest

from tests.finetuning.conftest import CPU, GPU, data_facts
from videonet.config import load_config
from videonet.errors import CheckpointError, ConfigError
from videonet.finetuning.choices import configuration
from videonet.finetuning.clips import choose_clips
from videonet.finetuning.plan import choose_recipe
from videonet.finetuning.start import (
    config_from,
    find_weights,
    seconds_per_clip,
    this_machine,
)
from videonet.inference.predictor import Predictor
from videonet.models import create_model
from videonet.models.weights import cached_weights


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VIDEONET_HOME", str(tmp_path))
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"


def test_weights_in_the_cache_are_found(cache):
    assert cached_weights() == [] and find_weights("") == []
    (cache / "mvit_v2_s.k400.pyth").write_bytes(b"")
    (cache / "something.pth").write_bytes(b"")
    assert [weights.name for weights in cached_weights()] == ["mvit_v2_s.k400"]
    (found,) = find_weights("")
    assert (found.source, found.model, found.frames, found.given) == (
        *("mvit_v2_s.k400", "mvit_v2_s", 16, False),
    )
    assert find_weights("none") == []


@pytest.mark.parametrize("machine", [CPU, GPU])
@pytest.mark.parametrize("name", ["mvit_v2_s.k400", "swin_t.in1k", "vit_b.dino"])
def test_published_weights_make_a_whole_configuration(name, machine):
    known = find_weights(name)
    (weights,) = known
    _, recipe = choose_recipe(data_facts(), machine, weights)
    found = [recipe, *choose_clips(data_facts(), machine, weights)]
    cfg = config_from(configuration(weights.config, found), ["MODEL.NUM_CLASSES", "4"])
    assert weights.model == cfg.MODEL.NAME and weights.given
    assert weights.size == cfg.DATA.TEST_CROP_SIZE


def test_a_saved_model_says_its_own_architecture(tmp_path):
    overrides = ["MODEL.NAME", "vit_xs", "MODEL.NUM_CLASSES", "3", "DATA.TRAIN_CROP_SIZE", "48"]
    overrides += ["DATA.TEST_CROP_SIZE", "48", "DATA.NUM_FRAMES", "4", "DEVICE", "cpu"]
    cfg = load_config(None, overrides)
    model = create_model("vit_xs", num_classes=3, num_frames=4, crop_size=48)
    Predictor(model, cfg, ["a", "b", "c"]).save_pretrained(tmp_path / "model")
    (weights,) = find_weights(str(tmp_path / "model"))
    assert (weights.model, weights.frames, weights.size) == ("vit_xs", 4, 48)
    assert choose_recipe(data_facts(), CPU, weights)[0] == "small"


def test_weights_that_are_not_there(tmp_path):
    with pytest.raises(CheckpointError, match="there is no such file or folder"):
        find_weights(str(tmp_path / "gone"))
    with pytest.raises(ConfigError, match="has no weights 'k4000'"):
        find_weights("mvit_v2_s.k4000")


def test_a_clip_takes_time_here():
    overrides = ["MODEL.NAME", "mvit_v2_xs", "DATA.NUM_FRAMES", "4", "DEVICE", "cpu"]
    overrides += ["DATA.TRAIN_CROP_SIZE", "32", "MODEL.FROZEN_LAYERS", "-1"]
    assert 0 < seconds_per_clip(load_config(None, overrides), 3) < 60
    machine = this_machine("cpu")
    assert machine.device == "cpu" and machine.cores >= 1 and not machine.fast
