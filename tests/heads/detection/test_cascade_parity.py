"""Cascade heads of detectron2: boxes, masks, losses and gradients against recorded ones."""

import pytest
import torch

from tests.heads.detection.records import cascade_heads, frames_of
from tests.models.invariants import TOLERANCE, read_record, relative_error
from videonet.checkpoint import load_checkpoint
from videonet.heads.detection.frames import FrameTarget

LEVELS = ("p2", "p3", "p4", "p5")


def load(shared_dir, variant):
    record, tensors, state = read_record(shared_dir / "reference" / "cascade" / variant)
    heads = cascade_heads(record["constructor"])
    report = load_checkpoint(heads, state)
    assert sorted(report.loaded) == sorted(heads.state_dict())
    assert sorted(report.used) == sorted(state)
    maps = [tensors[f"input.{level}"].unsqueeze(2).requires_grad_() for level in LEVELS]
    proposals = [tensors[f"input.proposals.{n}"] for n in range(len(maps[0]))]
    return record, tensors, heads, maps, proposals


def test_detections(shared_dir):
    record, tensors, heads, maps, proposals = load(shared_dir, "box_and_mask")
    heads.eval()
    frames = frames_of(record["input"]["image_size"], len(proposals))
    with torch.no_grad():
        found = heads.detect(maps, proposals, frames)
    for number, one in enumerate(found):
        assert one.labels.equal(tensors[f"output.labels.{number}"])
        assert relative_error(one.boxes, tensors[f"output.boxes.{number}"]) <= TOLERANCE
        assert relative_error(one.scores, tensors[f"output.scores.{number}"]) <= TOLERANCE
        masks = tensors[f"output.masks.{number}"][:, 0]
        assert relative_error(one.masks, masks) <= TOLERANCE


def test_stages(shared_dir):
    record, tensors, heads, maps, proposals = load(shared_dir, "box_and_mask")
    heads.eval()
    frames = frames_of(record["input"]["image_size"], len(proposals))
    boxes = proposals
    for stage in range(heads.stages):
        with torch.no_grad():
            logits, deltas = heads.run_stage(stage, maps, boxes, frames)
        found = {
            "proposals": torch.cat(list(boxes)),
            "scores": logits,
            "deltas": deltas[:, 0],
            "boxes": heads.decode(stage, deltas, torch.cat(list(boxes)))[:, 0],
        }
        for name, value in found.items():
            assert relative_error(value, tensors[f"feature.stage{stage}.{name}"]) <= TOLERANCE
        boxes = heads.refine(stage, logits, deltas, boxes, frames)


def test_losses_and_gradients(shared_dir):
    record, tensors, heads, maps, proposals = load(shared_dir, "train")
    heads.train()
    # The record's constructor says that ground truth is not appended; its numbers say that it is.
    heads.append_truth = record["sampled_per_image"][0] > len(proposals[0])
    targets = [
        FrameTarget(
            tensors[f"input.gt_boxes.{n}"],
            tensors[f"input.gt_classes.{n}"],
            tensors[f"input.gt_masks.{n}"].bool(),
        )
        for n in range(len(proposals))
    ]
    frames = frames_of(record["input"]["image_size"], len(proposals), targets)
    _, losses = heads(maps, proposals, frames)
    names = {"loss_cls": "loss_classifier", "loss_box_reg": "loss_box_reg"}
    expected = {"loss_mask": tensors["output.loss_mask"]}
    for theirs, ours in names.items():
        for stage in range(heads.stages):
            expected[f"{ours}_stage{stage}"] = tensors[f"output.{theirs}_stage{stage}"]
    assert losses.keys() == expected.keys()
    for name, value in losses.items():
        assert value.item() == pytest.approx(expected[name].item(), rel=TOLERANCE), name
    sum(losses.values()).backward()
    for level, x in zip(LEVELS, maps, strict=True):
        assert relative_error(x.grad[:, :, 0], tensors[f"feature.grad.{level}"]) <= TOLERANCE
