"""Patches along the boundaries of masks: the official results, edges, clips."""

import pytest
import torch

from tests.models.invariants import read_record
from videonet.errors import ConfigError
from videonet.ops.boundary_patches import (
    PatchRule,
    Reassembly,
    boundary_values,
    cut_patches,
    find_patches,
)


def cases(shared_dir):
    """The recorded runs of the official tools that need no network."""
    for path in sorted((shared_dir / "reference" / "bpr").glob("*.json")):
        record, tensors, state = read_record(path)
        if not state:
            yield record, tensors


def rule_of(constructor):
    return PatchRule(
        constructor["patch_size"], constructor["padding"], constructor["iou_thresh"], "official"
    )


def test_official_patches_and_masks(shared_dir):
    seen = 0
    for record, tensors in cases(shared_dir):
        rule, image = rule_of(record["constructor"]), tensors["input.image"].movedim(-1, 0)
        for k, name in enumerate(record["input"]["mask.<i>"]["instances"]):
            mask = tensors[f"input.mask.{k}"]
            found = find_patches(mask, rule)
            size = torch.full((len(found), 2), rule.size)
            boxes = torch.cat((found.corners, found.corners + size), dim=1).float()
            scored = torch.cat((boxes, found.scores[:, None]), dim=1)
            results = {
                f"feature.boundary.{k}": boundary_values(mask).to(torch.uint8),
                f"feature.boxes_before_move.{k}": torch.cat(
                    (found.boxes, found.scores[:, None]), dim=1
                ),
                f"output.boxes.{k}": scored,
                f"output.mask_patches.{k}": cut_patches(mask, found.corners, rule),
                f"output.image_patches.{k}": cut_patches(image, found.corners, rule).movedim(1, -1),
            }
            whole = Reassembly(mask, rule)
            if len(found):
                whole.add(found.corners, tensors[f"input.refined_times_256.{k}"] / 256)
            results[f"output.mask.{k}"] = whole.refined().to(torch.uint8)
            for key in results.keys() & tensors.keys():
                assert torch.equal(results[key], tensors[key].to(results[key].dtype)), (name, key)
                seen += 1
    assert seen > 30


def disk(height=40, width=50, radius=12, centre=(20, 25)):
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2


@pytest.mark.parametrize("edges", ["official", "covered"])
@pytest.mark.parametrize("size", [(40, 50), (17, 50), (16, 16), (15, 40), (3, 5), (1, 1)])
def test_patches_lie_in_images_of_any_size(edges, size):
    mask, rule = torch.ones(size), PatchRule(16, 3, 0.25, edges)
    found = find_patches(mask, rule)
    reach = found.corners + 16
    covered = torch.zeros(size, dtype=torch.bool)
    for x, y in found.corners.tolist():
        covered[y : y + 16, x : x + 16] = True
    if edges == "official":
        assert (len(found) > 0) == (min(size) > 16)
        assert (reach <= torch.tensor([size[1], size[0]]) - 1).all()
    else:
        assert covered[0].all() and covered[-1].all() and covered[:, -1].all()
        assert (reach <= torch.tensor([size[1], size[0]]).clamp(min=16)).all()
    assert (found.corners >= 0).all()
    whole = Reassembly(mask, rule)
    whole.add(found.corners, torch.zeros(len(found), 22, 22))
    assert torch.equal(whole.refined(), ~covered)


def test_masks_without_a_boundary_have_no_patches():
    for mask in (torch.zeros(40, 50), torch.zeros(3, 40, 50)):
        assert len(find_patches(mask, PatchRule(16))) == 0
        assert not Reassembly(mask, PatchRule(16)).refined().any()


def test_a_still_clip_has_the_patches_of_its_image():
    rule, mask = PatchRule(16), disk()
    image, clip = find_patches(mask, rule), find_patches(mask.expand(3, -1, -1), rule)
    assert len(image) > 3
    for name in ("corners", "scores", "boxes"):
        assert torch.equal(getattr(image, name), getattr(clip, name))


def test_patches_of_a_clip_follow_the_boundaries_of_all_frames():
    frames = torch.stack([disk(radius=5, centre=(20, x)) for x in (10, 40)])
    found = find_patches(frames, PatchRule(16))
    columns = found.corners[:, 0]
    assert (columns < 10).any() and (columns > 20).any()
    both = cut_patches(frames, found.corners, PatchRule(16))
    assert both.shape == (len(found), 2, 16, 16)
    whole = Reassembly(frames, PatchRule(16))
    whole.add(found.corners, both[:, 1:].float(), frames=[1])
    whole.add(found.corners, torch.zeros_like(both[:, :1]).float(), frames=[0])
    assert torch.equal(whole.refined()[1], frames[1]) and not whole.refined()[0].any()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"size": 33}, "33 pixels wide, expected an even number"),
        ({"padding": -1}, "padding of -1"),
        ({"overlap": 2.0}, "up to 2.0, expected 0 to 1"),
        ({"edges": "zero"}, "'zero', expected official or covered"),
    ],
)
def test_contradictions_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        PatchRule(**options)
