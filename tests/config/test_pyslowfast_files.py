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
        if len(cells) == 2 and cells[1].startswith(("run", "not here", "no YAML")):
            for pattern in re.findall(r"`([^`]+)`", cells[0]):
                if fnmatch.fnmatch(name.removesuffix(".yaml"), pattern):
                    return cells[1]
    raise AssertionError(f"docs/pyslowfast.md says nothing of {name}")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        *((f"Kinetics/{name}.yaml", "run") for name in ("MVIT_B_16x4_CONV", "MVITv2_S_16x4")),
        ("masked_ssl/k400_VIT_L_16x4_FT.yaml", "run: fine-tuning"),
        ("Kinetics/REV_MVIT_B_16x4_CONV.yaml", "run: reversible"),
        ("ImageNet/MVITv2_B.yaml", "no YAML"),
        ("masked_ssl/k400_VIT_L_16x4_MAE_PT.yaml", "not here: masked"),
        ("Kinetics/c2/SLOWFAST_8x8_R50.yaml", "not here: SlowFast"),
        ("contrastive_ssl/linear_k400_Slow_8x8_R50_syn0.yaml", "not here: contrastive"),
    ],
)
def test_the_table_finds_its_rows(name, said):
    assert promised(name).startswith(said)


def narrow(cfg) -> list[str]:
    """Overrides that keep the depth and every stride, for clips that a CPU computes at once."""
    return [
        *("MVIT.EMBED_DIM", str(8 * cfg.MVIT.NUM_HEADS)),
        *("DATA.TRAIN_CROP_SIZE", "64", "DATA.TEST_CROP_SIZE", "64"),
        *("DATA.NUM_FRAMES", str(min(cfg.DATA.NUM_FRAMES, 4))),
    ]


@pytest.mark.skipif(not FILES, reason="VIDEONET_PYSLOWFAST_CONFIGS names no folder of configs")
@pytest.mark.parametrize("name", FILES)
def test_the_table_is_true(name):
    said = promised(name)
    if not said.startswith("run"):
        message = (
            "not valid YAML" if said.startswith("no YAML") else r"^[A-Z].* is not in videonet \("
        )
        with pytest.raises(ConfigError, match=message):
            load_config(FOLDER / name)
        return
    overrides = ["DATA.PATH_TO_DATA_DIR", "x"]
    cfg = load_config(FOLDER / name, overrides)
    model, arguments = model_arguments(cfg)
    side = arguments["crop_size"]
    with torch.device("meta"):
        logits = create_model(model, **arguments)(
            torch.empty(1, 3, arguments["num_frames"], side, side)
        )
    assert logits.shape == (1, cfg.MODEL.NUM_CLASSES)
    model, arguments = model_arguments(load_config(FOLDER / name, [*overrides, *narrow(cfg)]))
    small = create_model(model, **arguments).train()
    small(torch.randn(2, 3, arguments["num_frames"], 64, 64)).square().sum().backward()
    assert all(p.grad is not None for p in small.parameters())
