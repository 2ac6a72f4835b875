"""Every command that reads a configuration takes overrides, in the same forms."""

import pytest

from videonet.cli import main
from videonet.errors import ConfigError

RECIPE = ("--cfg", "DEMO/MVITv2_XS.yaml")
BY_CFG = {
    "run": RECIPE,
    "train": RECIPE,
    "test": RECIPE,
    "config": RECIPE,
    "data verify": RECIPE,
    "data prepare": (*RECIPE, "--output", "x"),
    "data show": (*RECIPE, "--output", "x"),
    "head": (*RECIPE, "--train", "a", "--val", "b"),
    "benchmark data": RECIPE,
}
BY_CHECKPOINT = {
    "predict": ("x.mp4", "--checkpoint", "run"),
    "features": ("x.mp4", "--checkpoint", "run", "--output", "x"),
    "export": ("--checkpoint", "run", "--output", "x", "--kinds", "onnx"),
    "reversed": ("--checkpoint", "run"),
}
FORMS = {
    "pairs behind": lambda words: (*words, "RNG_SEED", "7", "SOLVER.BASE_LRR", "1"),
    "pairs before": lambda words: ("RNG_SEED", "7", "SOLVER.BASE_LRR", "1", *words),
    "equals signs": lambda words: (*words, "RNG_SEED=7", "SOLVER.BASE_LRR=1"),
    "after --opts": lambda words: (*words, "--opts", "RNG_SEED", "7", "SOLVER.BASE_LRR", "1"),
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.mp4").touch()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("verb", BY_CFG)
def test_commands_that_load_a_file(verb, form):
    with pytest.raises(ConfigError, match=r"unknown key SOLVER\.BASE_LRR in the overrides"):
        main([*verb.split(), *FORMS[form](BY_CFG[verb])])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("verb", BY_CHECKPOINT)
def test_commands_that_load_a_checkpoint(verb, form, monkeypatch):
    from videonet.inference.predictor import Predictor

    def from_checkpoint(checkpoint, *, cfg=None, overrides=()):
        assert (checkpoint, cfg) == ("run", None)
        assert list(overrides) == ["RNG_SEED", "7", "SOLVER.BASE_LRR", "1"]
        raise ConfigError("as expected")

    monkeypatch.setattr(Predictor, "from_checkpoint", staticmethod(from_checkpoint))
    with pytest.raises(ConfigError, match="as expected"):
        main([*verb.split(), *FORMS[form](BY_CHECKPOINT[verb])])


@pytest.mark.parametrize(
    "words", [("data", "inspect", "x.mp4"), ("benchmark", "model", "mvit_v2_xs")]
)
def test_commands_without_a_configuration_take_none(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*words, "RNG_SEED", "7"])
    assert stopped.value.code == 2
    assert "RNG_SEED: this command reads no configuration" in capsys.readouterr().err
