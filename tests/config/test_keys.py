"""Every key is documented where it is defined, and the help and the docs show that text."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from videonet.commands.config import explain, main, markdown
from videonet.config import default_config, load_config_text
from videonet.config.checks import CHOICES, LARGEST, RULES, get
from videonet.config.keys import GROUPS, KEYS
from videonet.config.pyslowfast import describe
from videonet.errors import ConfigError

PAGE = Path(__file__).resolve().parents[2] / "docs/config.md"


def help_of(*words: str, capsys) -> str:
    main(words)
    return capsys.readouterr().out


@pytest.mark.parametrize("name", [*KEYS, *(name for name in GROUPS if name)])
def test_every_key_and_group_is_documented(name):
    text = (KEYS.get(name) or GROUPS[name]).text
    assert re.fullmatch(r"\S.*\.", text), f"{name}: a sentence, ended by a full stop"
    assert " ".join(text.split()[:4]) in " ".join(explain(name).split())


def test_the_defaults_are_those_of_the_keys():
    cfg = default_config()
    assert all(get(cfg, name) == key.default for name, key in KEYS.items())


def test_checks_speak_of_keys():
    named = {*CHOICES, *LARGEST, *(key for _, _, keys in RULES for key in keys)}
    assert named <= KEYS.keys()


def test_no_key_is_pyslowfasts_alone():
    assert [name for name in KEYS if describe(name)] == []


def test_the_page_of_the_docs_is_the_one_that_the_command_writes():
    written = PAGE.read_text(encoding="utf-8")
    assert written == markdown(), "videonet config --markdown > docs/config.md"
    assert all(f"| `{name}`" in written for name in KEYS)


def test_the_groups_are_listed(capsys):
    said = help_of(capsys=capsys)
    assert all(re.search(rf"^  {re.escape(name)} ", said, re.MULTILINE) for name in GROUPS if name)
    assert "OUTPUT_DIR" in said
    assert said in help_of("--help", capsys=capsys)


def test_the_keys_of_a_group_have_types_and_defaults(capsys):
    said = help_of("--help", "SOLVER", capsys=capsys)
    assert all(name in said for name in KEYS if name.startswith("SOLVER."))
    assert "SOLVER.BASE_LR  (a number; default 0.1; 0 or more)" in said
    assert "SOLVER.CLIP_GRAD_VAL  (None or a number; default None; None or above 0)" in said
    assert help_of("SOLVER", capsys=capsys) == said
    assert "MVIT.REV.RES_PATH" in help_of("--help", "MVIT", capsys=capsys)


def test_one_key(capsys):
    said = help_of("--help", "TEST.NUM_SPATIAL_CROPS", capsys=capsys)
    assert said == (
        "TEST.NUM_SPATIAL_CROPS  (a whole number; default 3; 1 or 3)\n"
        "  Crops per clip: 1 (centre) or 3 (left, centre, right or top, centre, bottom).\n"
    )


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("MVIT.DROPPATH_RATE", "PySlowFast's name of MODEL.DROPPATH_RATE"),
        ("TRAIN.ACCUMULATE", "The old name of TRAIN.GRAD_ACCUM_STEPS"),
        ("MODEL.ARCH", "without effect: MODEL.NAME or"),
        ("PREFETCH.NUM_LOADERS", "without effect: the loader always prefetches"),
        ("SOLVER.LR_POLICY", "not implemented: it must be 'cosine'"),
        ("DATA.INPUT_CHANNEL_NUM", "clips are RGB"),
        ("DETECTION.ENABLE", "what videonet does not have"),
    ],
)
def test_other_names_are_explained_too(name, said):
    assert said in " ".join(explain(name).split())


def test_an_unknown_key_names_the_nearest():
    with pytest.raises(ConfigError, match="unknown key SOLVER.BASE_LRR: did you mean SOLVER.BASE"):
        main(["--help", "SOLVER.BASE_LRR"])
    with pytest.raises(ConfigError, match="unknown key SOLVR: did you mean SOLVER"):
        main(["SOLVR"])


def test_a_whole_configuration_is_printed(capsys):
    text = help_of("--cfg", "DEMO/Swin_XS.yaml", "RNG_SEED=7", capsys=capsys)
    cfg = load_config_text(text)
    assert (cfg.MODEL.NAME, cfg.RNG_SEED) == ("swin_xs", 7)


def test_help_of_a_key_loads_nothing_heavy():
    code = (
        "import sys; from videonet.cli import main; main(['config', '--help', 'SOLVER']); "
        "print(*(m for m in ('torch', 'numpy', 'fvcore', 'iopath') if m in sys.modules), 'end')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("\nend\n")
