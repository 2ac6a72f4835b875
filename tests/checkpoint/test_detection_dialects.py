"""Whole detectors in the names of torchvision, detectron2 and mmdetection."""

from __future__ import annotations

import re

import pytest
import torch

from tests.heads.detection.small import small_detector
from videonet.checkpoint import load_checkpoint
from videonet.errors import CheckpointError
from videonet.models import create_model

SWIN = {
    "embed_dim": 8,
    "depths": (1, 1, 1, 1),
    "num_heads": (1, 1, 2, 2),
    "window_size": (1, 4, 4),
    "patch_size": (1, 4, 4),
}
PYRAMID = r"neck\.(lateral|fpn)_convs\.(\d+)\.conv\.(.+)"
OF_NECK = {
    "torchvision": lambda kind, n, leaf: (
        f"backbone.fpn.{'inner' if kind == 'lateral' else 'layer'}_blocks.{n}.0.{leaf}"
    ),
    "detectron2": lambda kind, n, leaf: (
        f"backbone.fpn_{'lateral' if kind == 'lateral' else 'output'}{int(n) + 2}.{leaf}"
    ),
}
RULES = {  # our name -> the project's; {0}, {1} are what its groups found
    "torchvision": (
        (r"rpn\.convs\.(\d)\.conv\.(.+)", "rpn.head.conv.{0}.0.{1}"),
        (r"rpn\.objectness\.(.+)", "rpn.head.cls_logits.{0}"),
        (r"rpn\.deltas\.(.+)", "rpn.head.bbox_pred.{0}"),
        (r"roi_heads\.box_heads\.0\.fcs\.0\.(.+)", "roi_heads.box_head.fc6.{0}"),
        (r"roi_heads\.box_heads\.0\.fcs\.1\.(.+)", "roi_heads.box_head.fc7.{0}"),
        (r"roi_heads\.box_heads\.0\.scores\.(.+)", "roi_heads.box_predictor.cls_score.{0}"),
        (r"roi_heads\.box_heads\.0\.deltas\.(.+)", "roi_heads.box_predictor.bbox_pred.{0}"),
        (r"roi_heads\.mask_heads\.0\.convs\.0\.conv\.(.+)", "roi_heads.mask_head.mask_fcn1.{0}"),
        (r"roi_heads\.mask_heads\.0\.deconv\.(.+)", "roi_heads.mask_predictor.conv5_mask.{0}"),
        (r"roi_heads\.mask_heads\.0\.logits\.(.+)", "roi_heads.mask_predictor.mask_fcn_logits.{0}"),
    ),
    "detectron2": (
        (r"rpn\.convs\.0\.conv\.(.+)", "proposal_generator.rpn_head.conv.{0}"),
        (r"rpn\.objectness\.(.+)", "proposal_generator.rpn_head.objectness_logits.{0}"),
        (r"rpn\.deltas\.(.+)", "proposal_generator.rpn_head.anchor_deltas.{0}"),
        (r"roi_heads\.box_heads\.0\.fcs\.0\.(.+)", "roi_heads.box_head.fc1.{0}"),
        (r"roi_heads\.box_heads\.0\.fcs\.1\.(.+)", "roi_heads.box_head.fc2.{0}"),
        (r"roi_heads\.box_heads\.0\.scores\.(.+)", "roi_heads.box_predictor.cls_score.{0}"),
        (r"roi_heads\.box_heads\.0\.deltas\.(.+)", "roi_heads.box_predictor.bbox_pred.{0}"),
        (r"roi_heads\.mask_heads\.0\.convs\.0\.conv\.(.+)", "roi_heads.mask_head.mask_fcn1.{0}"),
        (r"roi_heads\.mask_heads\.0\.deconv\.(.+)", "roi_heads.mask_head.deconv.{0}"),
        (r"roi_heads\.mask_heads\.0\.logits\.(.+)", "roi_heads.mask_head.predictor.{0}"),
    ),
    "mmdet": (
        (r"rpn\.convs\.0\.conv\.(.+)", "rpn_head.rpn_conv.{0}"),
        (r"rpn\.objectness\.(.+)", "rpn_head.rpn_cls.{0}"),
        (r"rpn\.deltas\.(.+)", "rpn_head.rpn_reg.{0}"),
        (
            r"roi_heads\.box_heads\.(\d)\.convs\.(\d)\.conv\.(.+)",
            "roi_head.bbox_head.{0}.shared_convs.{1}.conv.{2}",
        ),
        (
            r"roi_heads\.box_heads\.(\d)\.convs\.(\d)\.norm\.(.+)",
            "roi_head.bbox_head.{0}.shared_convs.{1}.bn.{2}",
        ),
        (
            r"roi_heads\.box_heads\.(\d)\.fcs\.(\d)\.(.+)",
            "roi_head.bbox_head.{0}.shared_fcs.{1}.{2}",
        ),
        (r"roi_heads\.box_heads\.(\d)\.scores\.(.+)", "roi_head.bbox_head.{0}.fc_cls.{1}"),
        (r"roi_heads\.box_heads\.(\d)\.deltas\.(.+)", "roi_head.bbox_head.{0}.fc_reg.{1}"),
        (
            r"roi_heads\.mask_heads\.(\d)\.convs\.(\d)\.conv\.(.+)",
            "roi_head.mask_head.{0}.convs.{1}.conv.{2}",
        ),
        (r"roi_heads\.mask_heads\.(\d)\.deconv\.(.+)", "roi_head.mask_head.{0}.upsample.{1}"),
        (r"roi_heads\.mask_heads\.(\d)\.logits\.(.+)", "roi_head.mask_head.{0}.conv_logits.{1}"),
    ),
}
BODY = {"torchvision": "backbone.body.", "detectron2": "backbone.bottom_up.", "mmdet": "backbone."}


def detector(project, num_classes=3, **options):
    """A detector on Swin; the one of mmdetection is a cascade with two linear layers."""
    backbone = create_model("swin", num_classes=0, num_frames=1, crop_size=64, **SWIN)
    heads = {"box_fcs": (16, 12)} if project != "mmdet" else {}
    cascade = project == "mmdet"
    return small_detector(backbone, project, num_classes, heads=heads, cascade=cascade, **options)


def official_name(project, name):
    if name.startswith("backbone."):
        return BODY[project] + name.removeprefix("backbone.")
    if name.startswith("neck."):
        if project == "mmdet":
            return name
        kind, level, leaf = re.fullmatch(PYRAMID, name).groups()
        return OF_NECK[project](kind, level, leaf)
    for pattern, template in RULES[project]:
        if match := re.fullmatch(pattern, name):
            return template.format(*match.groups())
    raise AssertionError(f"no name for {name}")


def official_state(project, model):
    """The state dict as the project writes it: kernels without time."""
    state = {}
    for name, tensor in model.state_dict().items():
        tensor = tensor.squeeze(2) if tensor.dim() == 5 else tensor
        state[official_name(project, name)] = tensor
    return state


@pytest.mark.parametrize("project", RULES)
def test_every_tensor_is_loaded(project):
    source, model = detector(project), detector(project)
    for parameter in model.parameters():
        parameter.data.zero_()
    state = official_state(project, source)
    report = load_checkpoint(model, {"model": state} if project == "detectron2" else state)
    assert sorted(report.used) == sorted(state)
    for name, tensor in source.state_dict().items():
        assert model.state_dict()[name].equal(tensor), name
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        ((expected,),), ((found,),) = source(image), model.eval()(image)
    assert found.boxes.equal(expected.boxes) and found.masks.equal(expected.masks)


def test_a_backbone_takes_its_part_of_a_detector():
    source = detector("mmdet")
    model = create_model("swin", num_classes=0, num_frames=1, crop_size=64, **SWIN)
    report = load_checkpoint(model, official_state("mmdet", source), strict=False)
    assert set(report.used) == {
        f"backbone.{name}" for name in model.state_dict() if not name.startswith("norm.")
    }


def test_a_detector_takes_the_weights_of_a_classifier():
    source = create_model("swin", num_classes=5, num_frames=1, crop_size=64, **SWIN)
    model = detector("mmdet")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    report = load_checkpoint(model, source.state_dict())
    assert {name.partition(".")[0] for name in report.reinitialised} == {
        "neck",
        "rpn",
        "roi_heads",
    }
    for name, tensor in model.state_dict().items():
        part, _, rest = name.partition(".")
        expected = source.state_dict()[rest] if part == "backbone" else before[name]
        assert tensor.equal(expected), name


def test_a_missing_part_is_named():
    state = official_state("detectron2", detector("detectron2"))
    del state["roi_heads.box_head.fc2.weight"]
    with pytest.raises(CheckpointError, match=r"1 missing \(roi_heads.box_heads.0.fcs.1.weight\)"):
        load_checkpoint(detector("detectron2"), state)


def test_frames_come_from_images():
    source = detector("mmdet")
    backbone = create_model("swin", num_classes=0, num_frames=4, crop_size=64, **SWIN)
    model = small_detector(backbone, "mmdet", cascade=True)
    report = load_checkpoint(model, official_state("mmdet", source))
    assert report.loaded and not report.unexpected
