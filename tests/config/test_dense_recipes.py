"""The recipes of dense tasks: every one builds its model, and states a figure."""

import re
from pathlib import Path

import pytest
import torch

from videonet.config import load_config
from videonet.tasks import build_task
from videonet.tasks.task import Trained

CONFIGS = Path(__file__).parents[2] / "configs"
BASES = {"mask_rcnn.yaml", "cascade_mmdet.yaml", "upernet.yaml"}
PUBLISHED = sorted(
    path.relative_to(CONFIGS).as_posix()
    for folder in ("COCO", "ADE20K", "YTVIS")
    for path in (CONFIGS / folder).glob("*.yaml")
    if path.name not in BASES
)
SMALL = sorted(
    path.relative_to(CONFIGS).as_posix()
    for folder in ("PENNFUDAN", "CELLS", "DAVIS16", "JHMDB21", "COCO_SMALL")
    for path in (CONFIGS / folder).glob("*.yaml")
    if "BPR" not in path.name
)
# Parameters of published models in millions (detectron2's table; counted in the official code).
MILLIONS = {
    "COCO/MaskRCNN_MVITv2_T.yaml": 44,
    "COCO/Cascade_MVITv2_T.yaml": 76,
    "COCO/Cascade_MVITv2_S.yaml": 87,
    "COCO/Cascade_MVITv2_B.yaml": 103,
    "COCO/Cascade_MVITv2_L.yaml": 270,
    "COCO/MaskRCNN_Swin_T.yaml": 48,
    "COCO/MaskRCNN_Swin_S.yaml": 69,
    "COCO/Cascade_Swin_T.yaml": 86,
    "ADE20K/UPerNet_Swin_T.yaml": 60,
}


def built(name):
    cfg = load_config(name)
    names = [str(k) for k in range(150 if name.startswith("ADE") else 80)]
    task = build_task(cfg, None, Trained(names=names))
    with torch.device("meta"):
        return cfg, task.build_model()


QUICK = re.compile(r"(MVITv2|Swin|ASMLP|HorNet)_T\.|ViT_B|ViTDet_B|FCN_HRNet_W18|YTVIS")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if QUICK.search(n) else pytest.mark.slow) for n in PUBLISHED]
)
def test_a_published_recipe_builds_and_states_its_figure(name):
    text = (CONFIGS / name).read_text()
    assert re.search(r"AP \d\d\.\d|AP of \d\d\.\d|mIoU \d\d\.\d|\+\d\.\d mask AP", text)
    cfg, model = built(name)
    count = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    assert count == pytest.approx(MILLIONS.get(name, count), rel=0.03)
    groups = model.layer_groups()
    assert sorted(sum(groups, [])) == sorted(name for name, _ in model.named_parameters())
    assert cfg.SOLVER.SCHEDULE in ("steps", "poly")


@pytest.mark.parametrize("name", SMALL)
def test_a_small_recipe_builds(name):
    _, model = built(name)
    assert sum(parameter.numel() for parameter in model.parameters()) < 30e6
