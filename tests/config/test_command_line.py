"""The command line of training, in videonet's form and in PySlowFast's."""

import logging
import re

import pytest

from videonet.config.command_line import (
    Machines,
    is_key,
    load_configs,
    machines_of,
    take_overrides,
    training_arguments,
)
from videonet.errors import ConfigError


@pytest.fixture
def parse(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        text = f"_BASE_: []\nMODEL: {{NAME: mvit_v2_xs}}\nOUTPUT_DIR: runs/{name}\n"
        (tmp_path / f"{name}.yaml").write_text(text)
    return lambda *words: load_configs(training_arguments(words))


@pytest.mark.parametrize(
    "words",
    [
        ("--cfg", "a.yaml", "SOLVER.BASE_LR", "0.5", "MODEL.FROZEN_LAYERS", "-1"),
        ("--cfg", "a.yaml", "--opts", "SOLVER.BASE_LR", "0.5", "MODEL.FROZEN_LAYERS", "-1"),
        ("SOLVER.BASE_LR", "0.5", "MODEL.FROZEN_LAYERS", "-1", "--cfg", "a.yaml"),
        ("--shard_id", "0", "--num_shards", "1", "--init_method", "tcp://localhost:9999",
         "--cfg", "a.yaml", "--opts", "SOLVER.BASE_LR", "0.5", "MODEL.FROZEN_LAYERS", "-1"),
        ("--cfg_files", "a.yaml", "SOLVER.BASE_LR", "0.5", "--opts", "MODEL.FROZEN_LAYERS", "-1"),
        ("--cfg", "a.yaml", "SOLVER.BASE_LR=0.5", "MODEL.FROZEN_LAYERS=-1"),
        ("MODEL.FROZEN_LAYERS=-1", "--cfg", "a.yaml", "--num_shards", "1", "SOLVER.BASE_LR", "0.5"),
    ],
)  # fmt: skip
def test_overrides_in_both_forms(words, parse):
    (cfg,) = parse(*words)
    assert (cfg.SOLVER.BASE_LR, cfg.MODEL.FROZEN_LAYERS) == (0.5, -1)


@pytest.mark.parametrize(
    "words", [("--cfg", "a.yaml", "b.yaml"), ("--cfg", "a.yaml", "--cfg", "b.yaml")]
)
def test_several_files_share_the_overrides(words, parse):
    first, second = parse(*words, "--opts", "SOLVER.BASE_LR", "0.5")
    assert (first.OUTPUT_DIR, second.OUTPUT_DIR) == ("runs/a", "runs/b")
    assert first.SOLVER.BASE_LR == second.SOLVER.BASE_LR == 0.5


def test_several_files_need_folders_of_their_own(parse):
    with pytest.raises(ConfigError, match="a.yaml and b.yaml have the same OUTPUT_DIR runs/c"):
        parse("--cfg", "a.yaml", "b.yaml", "OUTPUT_DIR", "runs/c")


def machines(*words):
    return machines_of(training_arguments(["--cfg", "a.yaml", *words]).options)


def test_machines():
    assert machines() is None and machines("--num_shards", "1", "--shard_id", "0") is None
    found = machines("--num_shards", "4", "--shard_id", "2", "--init_method", "tcp://first:1234")
    assert found == Machines(4, 2, "first", 1234)
    assert machines("--num_shards", "2") == Machines(2, 0, "localhost", 9999)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--num_shards", "two"), "--num_shards is 'two', but must be a whole number"),
        (("--shard_id", "1"), "--shard_id is 1 of --num_shards 1, but must count"),
        (("--num_shards", "0"), "--shard_id is 0 of --num_shards 0"),
        (("--init_method", "env://"), "--init_method is 'env://', but must be tcp://HOST:PORT"),
        (("--init_method", "tcp://host"), "must be tcp://HOST:PORT"),
        (("--init_method", "tcp://host:port"), "must be tcp://HOST:PORT"),
    ],
)
def test_wrong_machines(words, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        machines(*words)


def test_the_number_of_machines_in_a_file_has_no_effect(parse, tmp_path, caplog):
    with (tmp_path / "a.yaml").open("a") as file:
        file.write("NUM_SHARDS: 16\nSHARD_ID: 3\n")
    with caplog.at_level(logging.INFO, logger="videonet"):
        parse("--cfg", "a.yaml")
    assert "NUM_SHARDS in a.yaml:4 has no effect: --num_shards says how many" in caplog.text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("SOLVER.BASE_LRR", "0.5"), "unknown key SOLVER.BASE_LRR in the overrides: did you mean"),
        (("SOLVR.BASE_LR", "0.5"), "unknown key SOLVR.BASE_LR .* did you mean SOLVER.BASE_LR"),
        (("SOLVR.BASE_LR=0.5",), "unknown key SOLVR.BASE_LR .* did you mean SOLVER.BASE_LR"),
        (("SOLVER.BASE_LR",), "'SOLVER.BASE_LR' has no value"),
        (("SOLVER.BASE_LR", "--num_shards", "1"), "'SOLVER.BASE_LR' has no value"),
    ],
)
def test_overrides_that_cannot_be_used(words, message, parse):
    with pytest.raises(ConfigError, match=message):
        parse("--cfg", "a.yaml", *words)


def test_an_option_that_does_not_exist(parse, capsys):
    with pytest.raises(SystemExit) as stopped:
        parse("--cfg", "a.yaml", "--shards", "1")
    assert stopped.value.code == 2
    assert "unrecognized arguments: --shards" in capsys.readouterr().err


def test_overrides_stand_anywhere_among_other_words():
    words = ["a.mp4", "TEST.BATCH_SIZE", "4", "--top-k", "3", "RNG_SEED=7", "--opts", "TEST.mp4"]
    others, overrides = take_overrides(words)
    assert others == ["a.mp4", "--top-k", "3", "TEST.mp4"]
    assert overrides == ["TEST.BATCH_SIZE", "4", "RNG_SEED", "7"]


def test_what_is_a_key(tmp_path, monkeypatch):
    keys = ("RNG_SEED", "TEST.BATCH_SIZ", "MODEL.ARGUMENTS.patch_size", "MVIT.REV.ENABLE")
    theirs = ("MODEL.ARCH", "DATA.IN22k_VAL_IN1K", "PREFETCH.NUM_LOADERS", "TRAIN.ACCUMULATE")
    assert all(map(is_key, (*keys, *theirs)))
    assert not any(map(is_key, ("TEST", "TEST.mp4", "GOPR0001.MP4", "a", "--cfg", "x/TEST.MP4")))
    monkeypatch.chdir(tmp_path)
    assert is_key("TEST.MP4")
    (tmp_path / "TEST.MP4").touch()
    assert not is_key("TEST.MP4")  # a file of that name


def test_values_may_hold_an_equals_sign(parse):
    (cfg,) = parse("--cfg", "a.yaml", "DATA.CLASS_NAMES", "a=b", "DATA.PATH_PREFIX=c=d")
    assert (cfg.DATA.CLASS_NAMES, cfg.DATA.PATH_PREFIX) == ("a=b", "c=d")
