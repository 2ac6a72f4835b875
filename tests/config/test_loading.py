"""Loading, overrides, messages, saving."""

import logging
from pathlib import Path

import pytest
import torch

from videonet.config import (
    default_config,
    find_config,
    load_config,
    load_config_text,
    model_arguments,
    save_config,
)
from videonet.config.checks import get
from videonet.config.keys import KEYS
from videonet.errors import ConfigError
from videonet.models import create_model
from videonet.models.boundary_refiner import make_boundary_refiner

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SHIPPED = sorted(str(path.relative_to(CONFIGS)) for path in CONFIGS.rglob("*.yaml"))
NAMED = ("MODEL.NAME", "mvit_v2_s")


@pytest.fixture
def write(tmp_path):
    """Write a config file and give its path."""

    def write_text(text: str, name: str = "x.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write_text


def refused(path=None, overrides=()) -> str:
    with pytest.raises(ConfigError) as error:
        load_config(path, overrides)
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_config_loads(name):
    cfg = load_config(name)
    assert cfg.is_frozen()
    model, arguments = model_arguments(cfg)
    assert model == cfg.MODEL.NAME
    assert arguments["num_frames"] == cfg.DATA.NUM_FRAMES


@pytest.mark.parametrize("name", SHIPPED)
def test_the_model_of_every_shipped_config_can_be_built(name):
    cfg = load_config(name)
    model, arguments = model_arguments(cfg)
    if cfg.MODEL.TASK in ("instance_segmentation", "semantic_segmentation"):
        pytest.skip("a backbone; the whole model is built in test_dense_recipes.py")
    with torch.device("meta"):
        if cfg.MODEL.TASK == "boundary_refinement":  # has two classes, whatever those of the data
            built = make_boundary_refiner(model, **arguments | {"num_classes": 0})
            assert built.num_classes == 2
            return
        built = create_model(model, **arguments)
    assert built.num_classes == cfg.MODEL.NUM_CLASSES


def test_the_four_published_recipes_are_shipped():
    wanted = {f"{data}/MVITv2_{size}.yaml" for data in ("K400", "SSv2") for size in "SB"}
    assert wanted <= set(SHIPPED)


@pytest.mark.parametrize("name", ["K400/MVITv2_B.yaml", "configs/K400/MVITv2_B.yaml"])
def test_a_shipped_config_is_found_by_name_from_anywhere(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config(name).samefile(CONFIGS / "K400/MVITv2_B.yaml")


def test_a_file_that_exists_goes_before_a_shipped_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "K400/MVITv2_B.yaml"
    own.parent.mkdir()
    own.write_text("RNG_SEED: 7")
    assert find_config("K400/MVITv2_B.yaml").samefile(own)


@pytest.mark.parametrize("name", ["nowhere.yaml", "/nowhere.yaml", "K400", "", "../setup.cfg"])
def test_a_config_that_does_not_exist(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"does not exist; shipped are .*K400/MVITv2_B\.yaml"):
        find_config(name)


def test_the_default_config_is_complete_and_nobody_elses():
    first = default_config()
    first.DATA.MEAN[0] = 0.0
    first.SOLVER.BASE_LR = 5.0
    second = default_config()
    assert second.DATA.MEAN == [0.45] * 3
    assert second.SOLVER.BASE_LR == 0.1
    assert {name for name, key in KEYS.items() if key.default is None} == {
        name for name, key in KEYS.items() if key.optional
    }


def test_overrides_win_over_the_file_and_the_file_over_the_defaults(write):
    path = write("MODEL: {NAME: mvit_v2_s}\nSOLVER: {BASE_LR: 0.2, MAX_EPOCH: 5}\n")
    cfg = load_config(path, ["SOLVER.BASE_LR", "1e-3", "DATA.MEAN", "[0.1, 0.2, 0.3]"])
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.MAX_EPOCH) == (1e-3, 5)
    assert cfg.DATA.MEAN == [0.1, 0.2, 0.3]
    assert cfg.SOLVER.MOMENTUM == 0.9


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("SOLVER.BASE_LR", "1", 1.0),
        ("SOLVER.COSINE_END_LR", "1e-6", 1e-6),
        ("SOLVER.BETAS", "(0.9, 0.95)", (0.9, 0.95)),
        ("SOLVER.CLIP_GRAD_L2NORM", "2", 2.0),
        ("SOLVER.CLIP_GRAD_L2NORM", "None", None),
        ("DATA.TARGET_FPS", "29.97", 29.97),
        ("DATA.TRAIN_JITTER_SCALES", "(256, 320)", [256, 320]),
        ("DATA.PATH_TO_DATA_DIR", "2024", "2024"),
        ("DATA.CLASS_NAMES", "with space.txt", "with space.txt"),
        ("TRAIN.ENABLE", "false", False),
        ("AUG.AA_TYPE", "None", ""),
        ("AUG.COLOR_JITTER", "None", 0.0),
        ("DATA_LOADER.NUM_WORKERS", "0", 0),
    ],
)
@pytest.mark.parametrize("from_file", [True, False])
def test_values_take_the_type_of_their_key(key, text, value, from_file, write):
    if from_file:
        group, name = key.split(".")
        text = f'"{text}"' if key == "DATA.PATH_TO_DATA_DIR" else text
        cfg = load_config(write(f"{group}: {{{name}: {yaml_quoted(text)}}}"), NAMED)
    else:
        cfg = load_config(None, [*NAMED, key, text])
    found = get(cfg, key)
    assert found == value
    assert type(found) is type(value)


def yaml_quoted(text: str) -> str:
    return f'"{text}"' if text.startswith("(") else text


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        ("SOLVER.BASE_LR", "fast", "a number"),
        ("SOLVER.BASE_LR", "True", "a number"),
        ("SOLVER.BASE_LR", "inf", "a number"),
        ("SOLVER.MAX_EPOCH", "2.5", "a whole number"),
        ("SOLVER.MAX_EPOCH", "True", "a whole number"),
        ("TRAIN.ENABLE", "1", "True or False"),
        ("DATA.MEAN", "0.45", "a list"),
        ("MVIT.POOL_KVQ_KERNEL", "3", "a list"),
    ],
)
def test_a_value_of_the_wrong_type(key, text, expected):
    message = refused(None, [*NAMED, key, text])
    assert key in message and "the overrides" in message and f"must be {expected}" in message


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("SOLVER.BASE_LRR", "SOLVER.BASE_LR"),
        ("DATA.NUM_FRAME", "DATA.NUM_FRAMES"),
        ("SOLVER.DROPPATH_RATE", "MODEL.DROPPATH_RATE"),
        ("BASE_LR", "SOLVER.BASE_LR"),
        ("TRIAN.BATCH_SIZE", "TRAIN.BATCH_SIZE"),
        ("OUTPUT_DIRR", "OUTPUT_DIR"),
    ],
)
def test_an_unknown_key_names_file_line_and_the_nearest_key(wrong, right, write):
    expected = f"did you mean {right}?"
    assert refused(None, [wrong, "1"]) == f"unknown key {wrong} in the overrides: {expected}"
    *group, name = wrong.split(".")
    text = f"RNG_SEED: 1\n{group[0]}:\n  {name}: 1\n" if group else f"RNG_SEED: 1\n\n{name}: 1\n"
    path = write(text)
    assert refused(path) == f"unknown key {wrong} in {path}:3: {expected}"


def test_an_unknown_key_that_resembles_nothing():
    assert refused(None, ["QWXYZ", "1"]).endswith("no key of videonet has a similar name")


def test_an_unknown_key_is_refused_even_without_a_value(write):
    assert "unknown key DATTA" in refused(write("DATTA:\nMODEL: {NAME: mvit_v2_s}\n"))


def test_an_override_without_a_value():
    assert refused(None, ["MODEL.NAME"]).endswith("'MODEL.NAME' has no value")


def test_a_group_takes_no_value(write):
    assert "DATA in the overrides is a group" in refused(None, ["DATA", "5"])
    path = write("MODEL: {NAME: mvit_v2_s}\nTRAIN: 5\n")
    assert f"TRAIN in {path}:2 is a group" in refused(path)
    assert load_config(write("MODEL: {NAME: mvit_v2_s}\nDATA:\nAUG: {}\n")).DATA.NUM_FRAMES == 8


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("MODEL:\n  NAME: [mvit\nDATA: 3\n", 3),
        ("MODEL:\n  NAME: mvit_v2_s\nNUM_FRAMES: 3\n  SAMPLING_RATE: 8\n", 4),
        ("RNG_SEED: !!python/object/apply:os.getcwd []\n", 1),
        ("? [1, 2]\n: 3\n", 1),
        ("A: &a {B: *a}\n", 1),
    ],
)
def test_what_is_not_a_config_is_refused_with_its_line(text, line, write):
    path = write(text)
    assert refused(path).startswith(f"{path}:{line}: ")


@pytest.mark.parametrize("text", ["- 1\n- 2\n", "hello\n"])
def test_a_file_that_is_no_mapping(text, write):
    assert "a config is a mapping" in refused(write(text), NAMED)


def test_a_file_that_is_no_text(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xff\xfe\x00\x80")
    assert refused(path).startswith(f"cannot read config {path}")


def test_an_empty_file_is_the_defaults(write):
    assert load_config(write(""), NAMED) == load_config(None, NAMED)


def test_a_key_given_twice(write, caplog):
    with caplog.at_level(logging.WARNING):
        load_config(write("RNG_SEED: 2\nRNG_SEED: 2\n"), NAMED)
    assert not caplog.records
    path = write("RNG_SEED: 2\nRNG_SEED: 3\n")
    with caplog.at_level(logging.WARNING):
        assert load_config(path, NAMED).RNG_SEED == 3
    assert "RNG_SEED is 3 here and 2" in caplog.text
    path = write("DATA: {NUM_FRAMES: 4}\nDATA: {SAMPLING_RATE: 2}\n")
    assert f"{path}:2: group DATA is here and on line 1" in refused(path, NAMED)


def test_base_configs_are_inherited_in_order(write):
    write("SOLVER: {BASE_LR: 0.1, MAX_EPOCH: 1, MOMENTUM: 0.5}\n", "a.yaml")
    write("SOLVER: {MAX_EPOCH: 2, MOMENTUM: 0.6}\n", "b.yaml")
    cfg = load_config(write("_BASE_: [a.yaml, b.yaml]\nSOLVER: {MOMENTUM: 0.7}\n"), NAMED)
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.MAX_EPOCH, cfg.SOLVER.MOMENTUM) == (0.1, 2, 0.7)


def test_a_base_config_that_is_missing_or_itself(write):
    path = write("_BASE_: none.yaml\n")
    assert refused(path).startswith(f"{path}:1: _BASE_ names ")
    assert "inherits from itself" in refused(write("_BASE_: x.yaml\n"))


def test_saving_and_loading_gives_the_same_config(tmp_path):
    overrides = ["SOLVER.BETAS", "(0.8, 0.9)", "DATA.TRAIN_JITTER_SCALES", "[300, 400]"]
    cfg = load_config("SSv2/MVITv2_B.yaml", overrides)
    save_config(cfg, tmp_path / "run" / "config.yaml")
    again = load_config(tmp_path / "run" / "config.yaml")
    assert again == cfg
    assert again.SOLVER.BETAS == (0.8, 0.9)


def test_a_saved_config_loads_from_its_text():
    cfg = load_config("K400/MVITv2_S.yaml")
    assert load_config_text(cfg.dump()) == cfg
    assert load_config_text(cfg.dump(), ["RNG_SEED", "5"]).RNG_SEED == 5
    with pytest.raises(ConfigError, match=r"unknown key RNG_SED in last\.pyth:1: did you mean"):
        load_config_text("RNG_SED: 3", name="last.pyth")
    with pytest.raises(ConfigError, match="_BASE_"):
        load_config_text("_BASE_: x.yaml", NAMED)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("DATA.TRAIN_CROP_SIZE", "0", "at least 1"),
        ("DATA.SAMPLING", "uniform", "auto or dense or segments"),
        ("TEST.NUM_SPATIAL_CROPS", "2", "1 or 3"),
        ("TEST.ENSEMBLE", "mean", "softmax or logits or max"),
        ("MODEL.DROPOUT_RATE", "1.0", "below 1"),
        ("DATA.MAX_BAD_SHARE", "1.5", "between 0 and 1"),
        ("DATA.STD", "[0.2, 0.2, 0.0]", "three numbers above 0"),
        ("DATA.INPUT_CHANNEL_NUM", "[4]", "clips are RGB"),
        ("DATA.TRAIN_JITTER_SCALES", "[320, 256]", "two rising numbers"),
        ("DATA.TRAIN_JITTER_SCALES", "[100, 120]", "at least DATA.TRAIN_CROP_SIZE, 224"),
        ("DATA.TRAIN_JITTER_SCALES_RELATIVE", "[0.5, 2.0]", "at most 1"),
        ("SOLVER.BETAS", "[0.9]", "two numbers"),
        ("SOLVER.LAYER_DECAY", "0", "above 0 and at most 1"),
        ("SOLVER.LR_POLICY", "steps_with_relative_lrs", "cosine"),
        ("DEVICE", "gpu", "auto, cpu"),
    ],
)
def test_values_out_of_range(key, value, words):
    message = refused(None, [*NAMED, key, value])
    assert words in message
    assert message.startswith(f"{key} in the overrides is ")
