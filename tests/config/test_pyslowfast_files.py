"""PySlowFast's own config files, where ``VIDEONET_PYSLOWFAST_CONFIGS`` names their folder."""

import fnmatch
import os
import re
from pathlib import Path

import pytest
import torch

from videonet.config import load_config, model_arguments
from videonet.errors import ConfigError
from videonet.models import create_model

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/pyslowfast.md"
FOLDER = Path(os.environ.get("VIDEONET_PYSLOWFAST_CONFIGS", "nowhere"))
FILES = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.yaml"))


def promised(name: str) -> str:
    """What the table of the document says of a file: the first row that it matches."""
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
        cells = line.strip("| ").split(" | ")
        if len(cells) == 2 and ("run" in cells[1] or "not here" in cells[1]):
            for pattern in re.findall(r"`([^`]+)`", cells[0]):
                if fnmatch.fnmatch(name.removesuffix(".yaml"), pattern):
                    return cells[1]
    raise AssertionError(f"docs/pyslowfast.md says nothing of {name}")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        *((f"Kinetics/{name}.yaml", "run") for name in ("MVIT_B_16x4_CONV", "MVITv2_S_16x4")),
        ("masked_ssl/k400_VIT_L_16x4_FT.yaml", "run: fine-tuning"),
        ("masked_ssl/k400_VIT_L_16x4_MAE_PT.yaml", "not here: masked"),
        ("Kinetics/c2/SLOWFAST_8x8_R50.yaml", "not here: SlowFast"),
        ("contrastive_ssl/linear_k400_Slow_8x8_R50_syn0.yaml", "not here: contrastive"),
    ],
)
def test_the_table_finds_its_rows(name, said):
    assert promised(name).startswith(said)


@pytest.mark.skipif(not FILES, reason="VIDEONET_PYSLOWFAST_CONFIGS names no folder of configs")
@pytest.mark.parametrize("name", FILES)
def test_the_table_is_true(name):
    if promised(name).startswith("not here"):
        with pytest.raises(ConfigError, match=r"^[A-Z].* is not in videonet \("):
            load_config(FOLDER / name)
        return
    cfg = load_config(FOLDER / name, ["DATA.PATH_TO_DATA_DIR", "x"])
    model, arguments = model_arguments(cfg)
    with torch.device("meta"):
        create_model(model, **arguments)
