"""The table of the forms that data sets come in."""

import re
from pathlib import Path

import pytest

from videonet.config import load_config
from videonet.data.datasets.registry import DATASETS, dataset_form
from videonet.data.loading.build import read_videos
from videonet.errors import ConfigError

PACKAGE = Path(__file__).parents[3] / "videonet"


def test_an_unknown_form_is_named():
    cfg = load_config("DEMO/MVITv2_XS.yaml", ["TRAIN.DATASET", "kinetic", "TEST.DATASET", "x"])
    with pytest.raises(ConfigError, match=r"TRAIN.DATASET is 'kinetic': did you mean kinetics\?"):
        read_videos(cfg, "train")
    with pytest.raises(ConfigError, match=f"TEST.DATASET is 'x'.* {' or '.join(sorted(DATASETS))}"):
        dataset_form(cfg, "test")


def test_capitals_do_not_matter():
    cfg = load_config("DEMO/MVITv2_XS.yaml", ["TRAIN.DATASET", "SSv2"])
    assert dataset_form(cfg, "val") is DATASETS["ssv2"]


def test_the_names_of_forms_are_in_the_table_alone():
    """Beside it, PySlowFast's names are translated to them."""
    elsewhere = re.compile(r"""["'](ssv2|folder)["']""")
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if elsewhere.search(path.read_text(encoding="utf-8"))
    }
    assert found - {"config/foreign.py", "config/pyslowfast.py"} == {"data/datasets/registry.py"}
