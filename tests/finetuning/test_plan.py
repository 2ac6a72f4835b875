"""What is chosen for many kinds of made-up data, and that every choice has a reason."""

import itertools

import pytest

from tests.finetuning.conftest import CPU, GPU, NONE, data_facts
from videonet import choices as words
from videonet.config import load_config
from videonet.errors import ConfigError
from videonet.finetuning.choices import StartingWeights, configuration
from videonet.finetuning.clips import choose_clips
from videonet.finetuning.plan import (
    RECIPES,
    choose_balance,
    choose_recipe,
    choose_schedule,
    choose_weights,
    fitting_side,
    keep_frames,
    machine_keys,
    wanted_clips,
)
from videonet.finetuning.start import config_from

VIDEO = StartingWeights("mvit_v2_s.k400", "mvit_v2_s", 16, 224, 4, 30.0, "dense", "K400")
IMAGE = StartingWeights("mvit_v2_t.in1k", "mvit_v2_t", 1, 224)
OWN = StartingWeights("runs/demo", "mvit_v2_xs", 8, 48, sampling="segments", given=True)


def keys(found):
    return {key: value for choice in found for key, value in choice.keys.items()}


def clips(facts, machine=CPU, weights=NONE, **asked):
    return keys(choose_clips(facts, machine, weights, **asked))


def test_short_videos_are_seen_as_a_whole_and_long_ones_in_clips():
    short = clips(data_facts())
    assert short["DATA.SAMPLING"] == "segments" and short["DATA.NUM_FRAMES"] == 16
    long = clips(data_facts(seconds=[4 * 3600.0] * 8, frames=[432_000] * 8))
    assert long["DATA.SAMPLING"] == "dense"
    span = 16 * long["DATA.SAMPLING_RATE"] / long["DATA.TARGET_FPS"]
    assert 2 <= span <= 4 and long["TEST.NUM_ENSEMBLE_VIEWS"] == 10


@pytest.mark.parametrize(
    ("changes", "frames"),
    [
        ({"frames": [1] * 8}, 1),
        ({"pictures": True}, 1),
        ({"frames": [12] * 8}, 8),
        ({"moving": 0.0001}, 4),
        ({"rates": [10.0] * 8, "frames": [30] * 8}, 16),
        ({"moving": None, "border": None}, 16),
    ],
)
def test_frames_follow_what_there_is(changes, frames):
    assert clips(data_facts(**changes))["DATA.NUM_FRAMES"] == frames


def test_the_smaller_what_moves_the_larger_a_frame():
    sides = [
        clips(data_facts(moving=share))["DATA.TRAIN_CROP_SIZE"] for share in (0.3, 0.1, 0.05, 0.01)
    ]
    assert sides == sorted(sides) and sides[0] < sides[-1] <= 112
    assert clips(data_facts(moving=0.02), GPU)["DATA.TRAIN_CROP_SIZE"] > 112
    low = clips(data_facts(moving=0.01, shapes=[(96, 72)] * 8))
    assert low["DATA.TRAIN_CROP_SIZE"] == 64
    assert clips(data_facts(), size=200)["DATA.TEST_CROP_SIZE"] == 200


def test_upright_phone_videos_get_three_crops_and_square_ones_one():
    assert clips(data_facts(shapes=[(1080, 1920)] * 8))["TEST.NUM_SPATIAL_CROPS"] == 3
    assert clips(data_facts(shapes=[(256, 256)] * 8))["TEST.NUM_SPATIAL_CROPS"] == 1


@pytest.mark.parametrize(
    ("names", "mirrored"),
    [
        (["left", "up"], False),
        (["swipe_right", "tap"], False),
        (["turn clockwise", "tap"], False),
        (["circlecc", "tick"], False),
        (["copyright", "cleft"], True),
        (["rechts", "oben"], False),
    ],
)
def test_classes_that_speak_of_sides_are_not_mirrored(names, mirrored):
    found = clips(data_facts(2, names=names))
    assert found["DATA.RANDOM_FLIP"] == mirrored


def test_weights_of_videos_say_how_clips_are_made():
    found = clips(data_facts(seconds=[30.0] * 8), GPU, VIDEO)
    assert (found["DATA.NUM_FRAMES"], found["DATA.TRAIN_CROP_SIZE"]) == (16, 224)
    assert (found["DATA.SAMPLING"], found["DATA.SAMPLING_RATE"]) == ("dense", 4)
    short = clips(data_facts(seconds=[1.0] * 8), GPU, VIDEO)
    assert short["DATA.SAMPLING_RATE"] == 2  # the clip lies within its video
    assert clips(data_facts(), CPU, OWN)["DATA.SAMPLING"] == "segments"


def test_weights_are_those_given_then_those_that_suit():
    large = StartingWeights("vit_l.k400", "vit_l", 16, 224)
    assert choose_weights(data_facts(), CPU, [OWN], "")[0] is OWN
    assert choose_weights(data_facts(), CPU, [IMAGE, VIDEO, large], "")[0] is VIDEO
    assert choose_weights(data_facts(pictures=True), CPU, [VIDEO, IMAGE], "")[0] is IMAGE
    assert choose_weights(data_facts(), CPU, [large], "")[0].source == ""
    assert choose_weights(data_facts(), GPU, [large], "")[0] is large
    none, choice = choose_weights(data_facts(), CPU, [], "/cache")
    assert not none.source and "/cache" in choice.why and "--weights" in choice.why


@pytest.mark.parametrize(
    ("machine", "weights", "train", "recipe"),
    [
        (CPU, NONE, 30, "scratch"),
        (GPU, NONE, 30, "scratch"),
        (CPU, VIDEO, 30, "probe"),
        (GPU, VIDEO, 30, "full"),
        (GPU, VIDEO, 3, "probe"),
        (CPU, OWN, 3, "small"),
    ],
)
def test_the_recipe_follows_weights_device_and_data(machine, weights, train, recipe):
    assert choose_recipe(data_facts(train=train), machine, weights)[0] == recipe
    assert choose_recipe(data_facts(), machine, weights, "scratch")[0] == "scratch"


def test_a_recipe_that_keeps_weights_needs_some():
    with pytest.raises(ConfigError, match="'head' needs weights"):
        choose_recipe(data_facts(), CPU, NONE, "head")
    assert set(words.RECIPES) == set(RECIPES)


def test_small_classes_come_more_often():
    repeats, choice = choose_balance(data_facts(3, train=[300, 100, 4]))
    assert repeats == [1, 1, 5] and "class 2" in choice.why
    assert choose_balance(data_facts(2, train=[10, 8]))[0] == [1, 1]
    assert choose_balance(data_facts(2, train=[10, 0]))[0] == [1, 1]


def test_a_training_fits_into_its_time():
    schedule = choose_schedule("scratch", CPU, 100, 0.1, 10, validated=True)
    assert 0.8 * 600 <= schedule.seconds <= 600
    slow = choose_schedule("scratch", CPU, 100, 60.0, 1, validated=True)
    assert slow.epochs == RECIPES["scratch"].least
    assert "longer than" in slow.choices[0].why
    fast = choose_schedule("scratch", GPU, 100, 1e-4, 60, validated=True)
    assert fast.epochs * 200 >= wanted_clips(RECIPES["scratch"], 100)
    asked = choose_schedule("scratch", CPU, 100, 0.1, 10, validated=True, asked=7)
    assert asked.epochs == 7 and keys(asked.choices)["SOLVER.MAX_EPOCH"] == 7


def test_a_result_comes_after_minutes():
    for seconds in (0.001, 0.05, 1.0):
        schedule = choose_schedule("scratch", CPU, 200, seconds, 60, validated=True)
        period = keys(schedule.choices)["TRAIN.EVAL_PERIOD"]
        assert 1 <= period <= schedule.epochs
        assert period == 1 or period * 400 * seconds <= 300
    none = choose_schedule("scratch", CPU, 200, 0.1, 60, validated=False)
    assert keys(none.choices)["TRAIN.EVAL_PERIOD"] == 0


def test_frames_shrink_before_epochs_become_too_few():
    assert fitting_side("scratch", CPU, 100, 112, 0.001, 60) == 112
    assert 64 <= fitting_side("scratch", CPU, 100, 112, 0.4, 60) < 112
    assert fitting_side("scratch", CPU, 100, 112, 100.0, 1) == 64
    assert fitting_side("scratch", CPU, 100, 48, 100.0, 1) == 48


def test_every_choice_has_words_and_the_configuration_is_one():
    kinds = [
        {},
        {"train": 1, "val": 1},
        {"train": 2, "val": 0},
        {"rates": [10.0] * 8},
        {"shapes": [(1080, 1920)] * 8},
        {"seconds": [14_400.0] * 8},
        {"pictures": True, "frames": [1] * 8},
    ]
    for kind, machine, weights in itertools.product(kinds, (CPU, GPU), (NONE, OWN)):
        facts = data_facts(**kind)
        start, first = choose_weights(facts, machine, [weights] if weights.given else [], "cache")
        name, recipe = choose_recipe(facts, machine, start)
        schedule = choose_schedule(
            name, machine, facts.num_train, 0.1, 30, validated=facts.num_val > 0
        )
        found = [
            *(first, recipe, *choose_clips(facts, machine, start), choose_balance(facts)[1]),
            *(machine_keys(machine), *schedule.choices),
        ]
        assert all(choice.what and choice.value and choice.why for choice in found)
        base = {"MODEL": {"NAME": start.model, "NUM_CLASSES": 4}}
        cfg = config_from(configuration(base, found), ["RNG_SEED", "7"])
        assert cfg.RNG_SEED == 7 and schedule.epochs == cfg.SOLVER.MAX_EPOCH
        assert load_config(None, ["MODEL.NAME", "mvit_v2_xs"]).keys() == cfg.keys()


def test_decoded_frames_are_kept_where_later_epochs_need_them_and_there_is_room():
    found = keys(keep_frames(data_facts(), 64, 20))
    assert found["DATA.FRAME_STORE"] == "frames"
    assert keep_frames(data_facts(), 64, 1) == []
    assert keep_frames(data_facts(train=40_000), 64, 20) == []
    long = data_facts(train=2, val=0, seconds=[4 * 3600.0] * 8, frames=[432_000] * 8)
    assert keep_frames(long, 64, 20) == []
