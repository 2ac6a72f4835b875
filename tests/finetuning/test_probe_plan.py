"""What is chosen for features that are computed once, within the time that is given."""

from dataclasses import replace

import pytest

from tests.finetuning.conftest import CPU, GPU, data_facts
from videonet.config import load_config
from videonet.finetuning.choices import StartingWeights, configuration
from videonet.finetuning.plan import choose_balance, choose_recipe
from videonet.finetuning.probe_plan import (
    MOST_BYTES,
    ProbeSpeed,
    choose_folds,
    choose_precision,
    choose_probe,
    first_clips,
    image_arguments,
)
from videonet.finetuning.start import config_from, divides, find_weights, probe_speed

VIDEO = StartingWeights("mvit_v2_s.k400", "mvit_v2_s", 16, 224, 4, 30.0, "dense", "K400")
IMAGE = StartingWeights("x.pth", "dinov2_s", 1, 518, config={"MODEL": {"NAME": "dinov2_s"}})
FAST = ProbeSpeed(0.01, 2048, 384, 1e-5, 14)
UNITS = [f"unit {k}" for k in range(100)]


def plan(speed=FAST, minutes=45.0, facts=None, machine=CPU, weights=IMAGE, **asked):
    facts = facts or data_facts()
    shape = {name: asked[name] for name in ("frames", "size") if name in asked}
    clips = first_clips(facts, machine, weights, **shape)
    folds = choose_folds(UNITS, grouped=True)
    return choose_probe(facts, machine, weights, clips, speed, minutes, folds, **asked)


def keys(found):
    return {key: value for choice in found.choices for key, value in choice.keys.items()}


def test_with_time_there_are_views_pixels_settings_and_passes():
    found = keys(plan())
    assert (found["DATA.NUM_FRAMES"], found["DATA.TEST_CROP_SIZE"]) == (8, 224)
    assert found["TEST.NUM_ENSEMBLE_VIEWS"] * found["TEST.NUM_SPATIAL_CROPS"] > 1
    assert found["PROBE.AUGMENTED"] == 2 and found["PROBE.METHODS"][0] == "attentive"
    assert len(found["PROBE.RATES"]) * len(found["PROBE.DECAYS"]) > 1
    assert keys(plan(machine=GPU))["DATA.NUM_FRAMES"] == 16


def test_the_less_time_the_less_is_computed():
    costs = []
    for minutes in (60, 20, 5, 2, 0.5):
        found = plan(replace(FAST, clip=0.3), minutes)
        chosen = keys(found)
        assert chosen["DATA.TEST_CROP_SIZE"] % 14 == 0
        views = chosen["TEST.NUM_ENSEMBLE_VIEWS"] * chosen["TEST.NUM_SPATIAL_CROPS"]
        costs.append(chosen["DATA.NUM_FRAMES"] * chosen["DATA.TEST_CROP_SIZE"] ** 2 * views)
        fits = not any("less would not do" in choice.why for choice in found.choices)
        assert not fits or found.seconds <= 60 * minutes
        assert found.seconds <= 60 * minutes or minutes < 2
    assert costs == sorted(costs, reverse=True) and costs[-1] < costs[0] / 10
    assert "less would not do" in str(plan(replace(FAST, clip=30.0), 1).choices)


def test_what_somebody_asked_for_stays():
    slow = replace(FAST, clip=3.0)
    found = keys(plan(slow, 1, frames=12, size=196, epochs=7))
    assert (found["DATA.NUM_FRAMES"], found["DATA.TEST_CROP_SIZE"]) == (12, 196)
    assert found["SOLVER.MAX_EPOCH"] == 7
    assert keys(plan(slow, 1, weights=VIDEO))["DATA.NUM_FRAMES"] == 16  # they were trained so


def test_an_attentive_classifier_that_takes_too_long_is_left_out():
    found = plan(replace(FAST, step=1.0))
    assert keys(found)["PROBE.METHODS"] == ["statistics", "linear", "knn"]
    assert "attentive one would take" in str(found.choices)
    many = data_facts(train=20_000, val=1)
    assert FAST.tokens * FAST.width * 2 * many.num_train > MOST_BYTES
    found = plan(replace(FAST, clip=1e-5, step=1e-9), facts=many)
    assert keys(found)["PROBE.METHODS"] == ["linear", "knn"] and "GiB" in str(found.choices)
    fewer = keys(plan(replace(FAST, step=0.05)))
    assert fewer["PROBE.METHODS"][0] == "attentive"
    assert len(fewer["PROBE.RATES"]) * len(fewer["PROBE.DECAYS"]) < 6


@pytest.mark.parametrize(
    ("units", "folds", "table"),
    [(["a"] * 9, 2, False), (["a", "b", "b"], 2, True), (UNITS, 3, True)],
)
def test_parts_follow_the_groups(units, folds, table):
    found = choose_folds(units, grouped=True).keys
    assert found["PROBE.FOLDS"] == folds and bool(found["PROBE.GROUPS"]) == table


def test_a_model_of_images_sees_every_frame():
    assert divides(IMAGE) and not divides(VIDEO)
    (joint,) = find_weights("mvit_v2_t.in1k")
    assert not divides(joint)
    seen = image_arguments(IMAGE, 8, divides=True)
    assert seen.keys["MODEL.ARGUMENTS"] == {"tubelet_frames": 1, "space_time": "space"}
    assert image_arguments(IMAGE, 1, divides=True) is None
    assert image_arguments(VIDEO, 16, divides=True) is None


def test_every_choice_has_words_and_the_configuration_is_one():
    facts = data_facts(train=[30, 3, 30, 30])
    name, recipe = choose_recipe(facts, CPU, IMAGE)
    repeats, balance = choose_balance(facts, name)
    assert repeats == [1, 1, 1, 1]
    found = [recipe, balance, *plan(facts=facts).choices]
    assert all(choice.what and choice.value and choice.why for choice in found)
    cfg = config_from(configuration(IMAGE.config, found), ["PROBE.AUGMENTED", "0"])
    assert cfg.PROBE.AUGMENTED == 0 and cfg.PROBE.GROUP_COLUMN == "group"


def test_a_clip_and_a_classifier_take_time_here():
    overrides = ["MODEL.NAME", "vit_xs", "DATA.NUM_FRAMES", "4", "DEVICE", "cpu"]
    overrides += ["DATA.TEST_CROP_SIZE", "32", "DATA.TRAIN_CROP_SIZE", "32"]
    overrides += ["MODEL.ARGUMENTS", "{tubelet_frames: 1, space_time: space}"]
    speed = probe_speed(load_config(None, overrides), 3)
    assert 0 < speed.clip < 60 and 0 < speed.step < speed.clip
    cells = 4 * (32 // speed.stride) ** 2
    assert cells <= speed.tokens <= cells + 1


def test_features_are_in_bf16_where_the_processor_is_surely_faster_in_it():
    full = ProbeSpeed(1.0, 64, 32, 1e-5)
    speed, choice = choose_precision(full, replace(full, clip=0.5))
    assert speed.clip == 0.5 and "2.0 times as fast" in choice.why
    assert choice.keys == {"TRAIN.MIXED_PRECISION": True, "TRAIN.HALF_PRECISION": "bf16"}
    assert choose_precision(full, replace(full, clip=0.9)) == (full, None)
