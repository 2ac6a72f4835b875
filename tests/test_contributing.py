"""The example of a new model in CONTRIBUTING.md does all that a registered model does."""

import re
import sys
import textwrap
from inspect import signature
from pathlib import Path
from types import ModuleType

import pytest

from tests.models import families, test_models
from videonet.config import load_config
from videonet.engine.distributed import process
from videonet.engine.start import build_model
from videonet.models import registry

ROOT = Path(__file__).parents[1]
NAME = "convmixer_xs"
CHECKS = [check for name, check in vars(test_models).items() if name.startswith("test_")]
CHECKS = [check for check in CHECKS if "name" in signature(check).parameters]


def blocks() -> dict[str, str]:
    """The page's pieces of the example: model, line, config and test."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = page.partition("## A new model\n")[2].partition("\n## ")[0]
    found = re.findall(r"^ +```(?:python|yaml)\n(.*?)^ +```", section, re.DOTALL | re.MULTILINE)
    return dict(zip(["model", "line", "config", "test"], map(textwrap.dedent, found), strict=True))


@pytest.fixture
def example(monkeypatch):
    """The model of the page, registered as the page says."""
    module = ModuleType("convmixer")
    monkeypatch.setitem(sys.modules, "convmixer", module)
    exec(compile(blocks()["model"], "CONTRIBUTING.md", "exec"), module.__dict__)
    line = eval("{" + blocks()["line"] + "}", {"convmixer": module})
    monkeypatch.setattr(registry, "FAMILIES", registry.FAMILIES | line)
    monkeypatch.setattr(registry, "MODELS", registry.MODELS | line["convmixer"][1])
    entry = eval("{" + blocks()["test"] + "}", {"Family": families.Family})
    monkeypatch.setattr(families, "FAMILIES", families.FAMILIES | entry)
    return module


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_example_passes_what_all_models_pass(example, check):
    rest = [{"frames": n} for n in (2, 4, 8)] if "frames" in signature(check).parameters else [{}]
    for arguments in rest:
        check(name=NAME, **arguments)


def test_the_config_of_the_example_builds_it(example, tmp_path):
    (tmp_path / "MVITv2_XS.yaml").write_text((ROOT / "configs/DEMO/MVITv2_XS.yaml").read_text())
    (tmp_path / "ConvMixer_XS.yaml").write_text(blocks()["config"])
    with process("cpu") as alone:
        model = build_model(load_config(tmp_path / "ConvMixer_XS.yaml"), alone)
    assert type(model) is example.ConvMixer
    assert model.num_classes == 8
