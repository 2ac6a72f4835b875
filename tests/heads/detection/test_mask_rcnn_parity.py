"""torchvision's Mask R-CNN: every step, and all losses with their gradients, as recorded."""

import pytest
import torch

from tests.heads.detection.records import mask_rcnn, prepared
from tests.models.invariants import TOLERANCE, read_record, relative_error
from videonet.checkpoint import load_checkpoint
from videonet.heads.detection.frames import Frames
from videonet.heads.detection.pasting import paste_masks

EVALUATED = ("eval", "eval_v2_heads")
TRAINED = ("train_all", "train_first")


def load(shared_dir, variant):
    record, tensors, state = read_record(shared_dir / "reference" / "mask_rcnn" / variant)
    model = mask_rcnn(record["constructor"])
    report = load_checkpoint(model, state)
    assert len(report.loaded) == len(model.state_dict())
    assert sorted(report.used) == sorted(state)
    assert not report.unexpected
    return record, tensors, model.eval()


def cropped(batch, sizes):
    """The images of a padded batch without their padding."""
    return [image[:, :h, :w] for image, (h, w) in zip(batch, sizes, strict=True)]


@pytest.mark.parametrize("variant", EVALUATED)
def test_detections(shared_dir, variant):
    record, tensors, model = load(shared_dir, variant)
    batch, sizes, _, given = prepared(record, tensors)
    with torch.no_grad():
        found = model(cropped(batch, sizes), masks="regions", output_sizes=given)
    for number, (one,) in enumerate(found):
        assert (one.labels + 1).equal(tensors[f"output.labels.{number}"])
        assert relative_error(one.boxes, tensors[f"output.boxes.{number}"]) <= TOLERANCE
        assert relative_error(one.scores, tensors[f"output.scores.{number}"]) <= TOLERANCE
        masks = paste_masks(one.masks, one.boxes, given[number], by_sampling=False, threshold=None)
        expected = tensors[f"output.masks.{number}"][:, 0]
        assert (masks - expected).abs().max() <= TOLERANCE
        assert ((masks >= 0.5) == (expected >= 0.5)).all()


@pytest.mark.parametrize("variant", EVALUATED)
def test_steps(shared_dir, variant):
    record, tensors, model = load(shared_dir, variant)
    batch, sizes, _, _ = prepared(record, tensors)
    assert relative_error(batch, tensors["feature.batch"]) <= TOLERANCE
    frames = Frames(sizes, tuple(batch.shape[2:]))
    with torch.no_grad():
        maps = model.features(batch.unsqueeze(2))
        proposals, _ = model.rpn(maps, frames)
        pooled = model.roi_heads.box_pooler(maps, proposals, frames)
        logits, deltas = model.roi_heads.run_stage(0, maps, proposals, frames)
        found = model.roi_heads.detect(maps, proposals, frames)
        boxes = [one.boxes for one in found]
        masks = model.roi_heads.mask_heads[0](model.roi_heads.mask_pooler(maps, boxes, frames))
    anchors = model.rpn.anchors.of_maps(
        [tuple(x.shape[3:]) for x in maps], frames.padded, batch.device
    )
    assert torch.cat(anchors).equal(tensors["feature.anchors"])
    for level, x in enumerate(maps):
        assert relative_error(x[:, :, 0], tensors[f"feature.map.{level}"]) <= TOLERANCE
    for number, one in enumerate(proposals):
        assert relative_error(one, tensors[f"feature.proposals.{number}"]) <= TOLERANCE
    assert relative_error(pooled[:12, :, 0], tensors["feature.pooled"]) <= TOLERANCE
    background_last = tensors["feature.class_logits"].roll(-1, dims=1)
    assert relative_error(logits, background_last) <= TOLERANCE
    assert relative_error(deltas.flatten(1), tensors["feature.box_deltas"][:, 4:]) <= TOLERANCE
    assert relative_error(masks, tensors["feature.mask_logits"][:, 1:]) <= TOLERANCE


@pytest.mark.parametrize("variant", TRAINED)
def test_losses_and_gradients(shared_dir, variant, monkeypatch):
    record, tensors, model = load(shared_dir, variant)
    if variant == "train_first":  # the record's sampler takes the first ones
        monkeypatch.setattr(torch, "randperm", torch.arange)
    batch, sizes, targets, _ = prepared(record, tensors, training=True)
    model.train()
    model.backbone.eval()
    maps = []
    features = model.features
    monkeypatch.setattr(model, "features", lambda x: maps.extend(features(x)) or maps)
    drawn = []
    regions = model.roi_heads._regions

    def keep(*arguments, **options):
        drawn.append(regions(*arguments, **options))
        return drawn[-1]

    monkeypatch.setattr(model.roi_heads, "_regions", keep)
    losses = model(cropped(batch, sizes), targets)
    assert losses.keys() == {
        name.removeprefix("output.") for name in tensors if name.startswith("output.")
    }
    for name, value in losses.items():
        assert value.item() == pytest.approx(tensors[f"output.{name}"].item(), rel=TOLERANCE), name
    for number, region in enumerate(drawn[0]):
        assert relative_error(region.boxes, tensors[f"feature.rois.{number}"]) <= TOLERANCE
    grads = torch.autograd.grad(sum(losses.values()), maps)
    for level, gradient in enumerate(grads):
        expected = tensors[f"feature.grad.{level}"]
        assert (gradient[:, :, 0] - expected).abs().max() <= TOLERANCE * expected.abs().max()
