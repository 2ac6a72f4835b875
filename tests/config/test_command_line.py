"""The command line of training, in videonet's form and in PySlowFast's."""

import logging
import re

import pytest

from videonet.config.command_line import Machines, load_configs, machines_of, training_parser
from videonet.errors import ConfigError


@pytest.fixture
def parse(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        text = f"_BASE_: []\nMODEL: {{NAME: mvit_v2_xs}}\nOUTPUT_DIR: runs/{name}\n"
        (tmp_path / f"{name}.yaml").write_text(text)
    return lambda *words: load_configs(training_parser("").parse_args(words))


@pytest.mark.parametrize(
    "words",
    [
        ("--cfg", "a.yaml", "SOLVER.BASE_LR", "0.5", "MODEL.FROZEN_LAYERS", "-1"),
        ("--cfg", "a.yaml", "--opts", "SOLVER.BASE_LR", "0.5", "MODEL.FROZEN_LAYERS", "-1"),
        ("SOLVER.BASE_LR", "0.5", "MODEL.FROZEN_LAYERS", "-1", "--cfg", "a.yaml"),
        ("--shard_id", "0", "--num_shards", "1", "--init_method", "tcp://localhost:9999",
         "--cfg", "a.yaml", "--opts", "SOLVER.BASE_LR", "0.5", "MODEL.FROZEN_LAYERS", "-1"),
        ("--cfg_files", "a.yaml", "SOLVER.BASE_LR", "0.5", "--opts", "MODEL.FROZEN_LAYERS", "-1"),
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
    return machines_of(training_parser("").parse_args(["--cfg", "a.yaml", *words]))


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
