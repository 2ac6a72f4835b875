"""Boundary refiners: the official numbers and names, and clips."""

import pytest
import torch

from tests.models.invariants import (
    TOLERANCE,
    randomise,
    read_record,
    relative_error,
)
from videonet.checkpoint import load_checkpoint
from videonet.errors import ConfigError
from videonet.heads.semantic import hrnet_head
from videonet.models import create_model
from videonet.models.boundary_refiner import make_boundary_refiner, with_masks
from videonet.models.hrnet import HRNet
from videonet.models.segmenter import SemanticSegmenter

SMALL = {
    "stages": ((1, "bottleneck", (1,), (6,)), (1, "basic", (1, 1), (5, 8))),
    "stem_width": 8,
    "head_channels": (4, 5),
    "final_channels": 16,
}


def plans(extra):
    """Our ``stages`` of the ``extra`` of mmsegmentation's HRNet, and what else belongs to them."""
    stages = [
        (p["num_modules"], p["block"].lower(), p["num_blocks"], p["num_channels"])
        for _, p in sorted(extra.items())
    ]
    return {"stages": stages, "head_channels": (1,) * len(stages[-1][3]), "final_channels": 1}


def official(extra, decode_head, masks):
    corners = decode_head.get("align_corners", False)
    if masks:
        return make_boundary_refiner("hrnet", align_corners=corners, **plans(extra))
    backbone = HRNet(0, 1, fuse_upsample="bilinear", fuse_align_corners=corners, **plans(extra))
    widths = [info.channels for info in backbone.feature_info]
    return SemanticSegmenter(backbone, hrnet_head(widths, 2, align_corners=corners))


@torch.no_grad()
@pytest.mark.parametrize("system", ["bpr_hrnet"])
def test_official_numbers(shared_dir, system):
    paths = sorted((shared_dir / "reference" / system).glob("*.json"))
    assert paths
    for path in paths:
        record, tensors, state = read_record(path)
        masks = tensors["input"].shape[1] == 4
        constructor = record["constructor"]
        model = official(constructor["extra"], constructor["decode_head"], masks).eval()
        assert sum(p.numel() for p in model.parameters()) == record["num_parameters"]
        report = load_checkpoint(model, {"state_dict": state, "meta": {}})
        assert report.dialect == ("bpr" if masks else "hrnet backbone")
        loaded = [name.removeprefix("backbone.") for name in model.state_dict()]
        assert sorted(report.loaded) == sorted(loaded)
        assert sorted(report.used) == sorted(state) and not report.unexpected
        maps = model.forward_maps(tensors["input"])
        found = {f"feature.0.{k}": x for k, x in enumerate(maps)}
        found |= {"feature.1": model.decode_head(maps), "output": model(tensors["input"])}
        for key in found.keys() & tensors.keys():
            error = relative_error(found[key].squeeze(2), tensors[key])
            assert error <= TOLERANCE, f"{path.stem}, {key}: {error:.1e}"
        assert found.keys() == {k for k in tensors if k.startswith(("feature", "output"))}


@torch.no_grad()
def test_a_still_clip_is_refined_like_its_image():
    image = randomise(make_boundary_refiner("hrnet", **SMALL))
    clip = make_boundary_refiner("hrnet", num_frames=5, **SMALL).eval()
    report = load_checkpoint(clip, image.state_dict())
    assert {"backbone.conv1.weight", "backbone.conv_mask.weight"} <= {
        f"backbone.{name.removeprefix('backbone.')}" for name in report.inflated
    }
    patches = with_masks(torch.randn(2, 3, 1, 33, 40), torch.rand(2, 1, 33, 40) > 0.5)
    expected = image(patches)
    found = clip(patches.expand(-1, -1, 5, -1, -1))
    assert found.shape == (2, 2, 5, 33, 40)
    assert relative_error(found, expected.expand_as(found)) <= TOLERANCE
    assert torch.equal(image(patches[:, :, 0]), expected)


def test_masks_are_signs_behind_the_colours():
    masks = torch.tensor([[[[0, 255], [1, 0]]]])
    found = with_masks(torch.full((1, 3, 1, 2, 2), 9.0), masks)
    assert found[0, 3, 0].tolist() == [[-1, 1], [1, -1]] and (found[:, :3] == 9).all()


def test_a_classifier_starts_a_refiner_and_training_reaches_every_parameter():
    classifier = randomise(create_model("hrnet", num_frames=1, num_classes=7, **SMALL))
    model = make_boundary_refiner("hrnet", num_frames=3, **SMALL).train()
    report = load_checkpoint(model, classifier.state_dict())
    assert any("conv_mask" in name for name in report.reinitialised)
    clips = with_masks(torch.randn(2, 3, 3, 32, 32), torch.rand(2, 3, 32, 32) > 0.5)
    model(clips).square().mean().backward()
    assert all(p.grad is not None for p in model.parameters())
    names = sorted(name for name, _ in model.named_parameters())
    assert sorted(sum(model.layer_groups(), [])) == names


def test_contradictions_are_named():
    with pytest.raises(ConfigError, match="on 'swin_t': expected an HRNet"):
        make_boundary_refiner("swin_t")
    model = make_boundary_refiner("hrnet", **SMALL)
    with pytest.raises(ConfigError, match=r"with masks has the shape \(1, 3, 1, 8, 8\), expected"):
        model(torch.zeros(1, 3, 1, 8, 8))


def test_the_published_small_one_is_there():
    model = make_boundary_refiner()
    assert model.backbone.feature_info[3].channels == 144
