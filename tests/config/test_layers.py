"""Names and forms that keys had before, and the drop-path rate of every family."""

import logging

import pytest

from videonet.config import load_config, load_config_text, model_arguments
from videonet.config.layers import read_settings
from videonet.errors import ConfigError

NAMED = "MODEL: {NAME: swin_xs}\n"


@pytest.fixture
def files(tmp_path):
    """Write config files and load the last one with overrides."""

    def load(*texts: str, overrides=()):
        for number, text in enumerate(texts):
            base = f"_BASE_: {number - 1}.yaml\n" if number else ""
            (tmp_path / f"{number}.yaml").write_text(base + text)
        return load_config(tmp_path / f"{len(texts) - 1}.yaml", overrides)

    return load


def warnings(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_the_old_name_of_a_key(files, caplog, tmp_path):
    new = files(NAMED + "TRAIN: {GRAD_ACCUM_STEPS: 4}\n")
    assert warnings(caplog) == []
    assert files(NAMED + "TRAIN: {ACCUMULATE: 4}\n") == new
    where = f"TRAIN.ACCUMULATE in {tmp_path}/0.yaml:2"
    assert warnings(caplog) == [f"old names: {where} is read as TRAIN.GRAD_ACCUM_STEPS"]
    assert files(NAMED, overrides=["TRAIN.ACCUMULATE", "4"]) == new
    assert "ACCUMULATE" not in new.TRAIN


def test_a_later_layer_wins_whatever_name_it_uses(files):
    old, new = "TRAIN: {ACCUMULATE: 4}\n", "TRAIN: {GRAD_ACCUM_STEPS: 8}\n"
    assert files(NAMED + old, new).TRAIN.GRAD_ACCUM_STEPS == 8
    assert files(NAMED + new, old).TRAIN.GRAD_ACCUM_STEPS == 4
    assert files(NAMED + new, overrides=["TRAIN.ACCUMULATE=2"]).TRAIN.GRAD_ACCUM_STEPS == 2


def test_both_names_in_one_place(files):
    with pytest.raises(ConfigError, match="is the old name of TRAIN.GRAD_ACCUM_STEPS, which is"):
        files(NAMED + "TRAIN: {ACCUMULATE: 4, GRAD_ACCUM_STEPS: 4}\n")


ARGUMENTS = {"patch_size": [4, 8, 8], "embed_dim": 80, "linear_init": "xavier"}


@pytest.mark.parametrize(
    "text",
    [
        "{patch_size: [4, 8, 8], embed_dim: 80, linear_init: xavier}",
        "[[patch_size, [4, 8, 8]], [embed_dim, 80], [linear_init, xavier]]",
        "[[patch_size, '(4, 8, 8)'], [embed_dim, 80], [linear_init, xavier]]",
    ],
)
def test_arguments_in_all_forms(text, files, caplog):
    from_file = files(f"MODEL: {{NAME: swin_xs, ARGUMENTS: {text}}}\n")
    assert from_file.MODEL.ARGUMENTS == ARGUMENTS
    assert bool(warnings(caplog)) == text.startswith("[")
    assert files(NAMED, overrides=["MODEL.ARGUMENTS", text]) == from_file
    single = [f"MODEL.ARGUMENTS.{name}={value}" for name, value in ARGUMENTS.items()]
    assert files(NAMED, overrides=single) == from_file
    assert load_config_text(from_file.dump()) == from_file
    _, arguments = model_arguments(from_file)
    assert {name: arguments[name] for name in ARGUMENTS} == ARGUMENTS


def test_a_mapping_is_an_argument_too(files):
    cfg = files("MODEL: {NAME: mvit, ARGUMENTS: {depth: 4, dim_mul: {1: 2.0, 3: 2.0}}}\n")
    _, arguments = model_arguments(cfg)
    assert arguments["dim_mul"] == {1: 2.0, 3: 2.0} and type(arguments["dim_mul"]) is dict
    assert load_config_text(cfg.dump()) == cfg


def test_arguments_are_added_to_those_of_the_base(files):
    base = "MODEL: {NAME: swin_xs, ARGUMENTS: {embed_dim: 80, depths: [2, 2]}}\n"
    merged = files(base, "MODEL: {ARGUMENTS: {embed_dim: 64}}\n").MODEL.ARGUMENTS
    assert merged == {"embed_dim": 64, "depths": [2, 2]}
    assert files(base, "MODEL: {ARGUMENTS: {}}\n").MODEL.ARGUMENTS == {}
    assert files(base, "MODEL: {ARGUMENTS: [[embed_dim, 64]]}\n").MODEL.ARGUMENTS == {
        "embed_dim": 64
    }


@pytest.mark.parametrize("value", ["3", "[[a, 1, 2]]", "[a, b]", "[[[a], 1]]", "text"])
def test_arguments_that_are_no_mapping(value, files):
    with pytest.raises(ConfigError, match=r"MODEL\.ARGUMENTS in .* must be a mapping"):
        files(NAMED, overrides=["MODEL.ARGUMENTS", value])


def rate(cfg) -> float:
    name, arguments = model_arguments(cfg)
    assert arguments["drop_path_rate"] == cfg.MODEL.DROPPATH_RATE
    return arguments["drop_path_rate"]


MVIT, SWIN = "MODEL: {NAME: mvit_v2_xs}\n", "MODEL: {NAME: swin_xs}\n"
THEIRS = "MODEL: {MODEL_NAME: MViT}\nMVIT: {DEPTH: 1}\n"


def test_the_rate_of_a_model_that_nothing_sets(files):
    assert rate(files(MVIT)) == rate(files(THEIRS)) == 0.1  # as in PySlowFast
    assert rate(files(SWIN)) == 0.0


@pytest.mark.parametrize("text", [MVIT, SWIN, THEIRS])
def test_one_key_is_the_rate_of_every_model(text, files, caplog):
    assert rate(files(text, "MODEL: {DROPPATH_RATE: 0.3}\n")) == 0.3
    assert rate(files(text, overrides=["MODEL.DROPPATH_RATE", "0"])) == 0.0
    assert warnings(caplog) == []


@pytest.mark.parametrize("text", [MVIT, THEIRS])
def test_pyslowfasts_key_is_the_rate_of_an_mvit(text, files):
    theirs = (
        text + "MVIT: {DROPPATH_RATE: 0.4}\n"
        if text is MVIT
        else text[:-2] + (", DROPPATH_RATE: 0.4}\n")
    )
    assert rate(files(theirs)) == 0.4
    assert rate(files(theirs, "MODEL: {DROPPATH_RATE: 0.2}\n")) == 0.2  # the later one
    assert rate(files("MODEL: {DROPPATH_RATE: 0.2}\n", theirs)) == 0.4
    assert rate(files(theirs, overrides=["MVIT.DROPPATH_RATE", "0.6"])) == 0.6
    with pytest.raises(ConfigError, match=r"MODEL.DROPPATH_RATE in the overrides \(MVIT.DROPPATH"):
        files(theirs, overrides=["MVIT.DROPPATH_RATE", "2"])


def test_pyslowfasts_key_does_not_reach_another_family(files, caplog, tmp_path):
    mvit = MVIT + "MVIT: {DROPPATH_RATE: 0.4}\n"
    assert rate(files(mvit, SWIN)) == 0.0
    assert warnings(caplog) == [
        f"MVIT.DROPPATH_RATE in {tmp_path}/0.yaml:2 has no effect, as the model is no MViT: the "
        "key of every model is MODEL.DROPPATH_RATE"
    ]
    caplog.clear()
    reset = "MVIT: {DROPPATH_RATE: 0.1}\nMODEL: {NAME: swin_xs, DROPPATH_RATE: 0.2}\n"
    assert rate(files(reset)) == 0.2 and warnings(caplog) == []


@pytest.mark.parametrize(("name", "expected"), [("mvit_v2_xs", 0.3), ("swin_xs", 0.2)])
def test_the_configuration_of_an_older_checkpoint(name, expected, caplog):
    """It holds every key of its time, in the order of the alphabet."""
    stored = (
        "DATA: {ENSEMBLE_METHOD: sum, INPUT_CHANNEL_NUM: [3, 3]}\n"
        f"MODEL: {{ARCH: slowfast, ARGUMENTS: [], DROPPATH_RATE: 0.2, NAME: {name}}}\n"
        "MVIT: {DROPPATH_RATE: 0.3}\nSOLVER: {LR_POLICY: cosine}\nTRAIN: {ACCUMULATE: 2}\n"
    )
    cfg = load_config_text(stored, name="last.pyth")
    assert rate(cfg) == expected and cfg.TRAIN.GRAD_ACCUM_STEPS == 2
    said = [text for text in warnings(caplog) if text.startswith("old names")]
    assert said == ["old names: TRAIN.ACCUMULATE in last.pyth:5 is read as TRAIN.GRAD_ACCUM_STEPS"]
    before, now = read_settings(stored, "last.pyth"), read_settings(cfg.dump(), "now")
    assert {key for key in before.keys() & now.keys() if before[key] != now[key]} == set()
