"""The command line of training, in videonet's form and in PySlowFast's."""

import logging

import pytest

from videonet.config.command_line import load_configs, training_parser
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


@pytest.mark.parametrize("words", [("--num_shards", "4", "--shard_id", "2"), ("--shard_id", "1")])
def test_machines_are_started_by_torchrun(words, parse):
    with pytest.raises(ConfigError, match=f"torchrun --nnodes . --node-rank {words[-1]} "):
        parse("--cfg", "a.yaml", *words)


def test_what_is_no_number_is_named(parse):
    with pytest.raises(ConfigError, match="--num_shards is 'two', but must be a whole number"):
        parse("--cfg", "a.yaml", "--num_shards", "two")


def test_an_address_without_effect_is_named(parse, caplog):
    with caplog.at_level(logging.WARNING, logger="videonet"):
        parse("--cfg", "a.yaml", "--init_method", "tcp://host:1")
    assert "--init_method tcp://host:1 has no effect: torchrun" in caplog.text
