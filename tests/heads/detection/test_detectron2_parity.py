"""detectron2's Cascade Mask R-CNN on MViTv2, from the image to boxes and masks, as recorded."""

import pytest
import torch

from tests.heads.detection.records import cascade_detector
from tests.models.invariants import TOLERANCE, read_record, relative_error
from videonet.checkpoint import load_checkpoint
from videonet.heads.detection.batches import pad_clips
from videonet.heads.detection.frames import Frames
from videonet.models import create_model

backbones = pytest.importorskip("tests.models.test_detection_parity")


@pytest.fixture(scope="module")
def loaded():
    from tests.conftest import SHARED

    path = SHARED / "reference" / "det_mvit" / "cascade_mask_rcnn"
    if not path.with_suffix(".json").exists():
        pytest.skip(f"{path} is not there")
    record, tensors, state = read_record(path)
    arguments = record["constructor"]
    backbone = create_model("mvit", num_classes=0, **backbones.mvit_arguments(arguments["MViT"]))
    model = cascade_detector(arguments, backbone).eval()
    report = load_checkpoint(model, {"model": state})
    assert sorted(report.used) == sorted(state)
    assert len(report.loaded) == len(model.state_dict())
    mean, std = (torch.tensor(arguments[f"pixel_{key}"]) for key in ("mean", "std"))
    image = (tensors["input"] - mean[:, None, None]) / std[:, None, None]
    return record, tensors, model, image


@torch.no_grad()
def run(loaded):
    """Pyramid, logits of all anchors, and the heads' detections of the recorded proposals.

    The record's anchors are random: filling the model with random values has met the buffers that
    detectron2 keeps them in. Only one of level p5 has an area, and none is stored. So the heads get
    the recorded proposals, and of the RPN the logits are compared.
    """
    _, tensors, model, image = loaded
    padded, _ = pad_clips([image], model.pad_multiple)
    frames = Frames([tuple(image.shape[1:])], tuple(padded.shape[3:]))
    pyramid = model.features(padded)
    logits, _ = model.rpn.predict(pyramid)
    (found,) = model.roi_heads.detect(pyramid[:4], [tensors["feature.proposals"]], frames)
    return pyramid, logits, found


def test_detections(loaded, monkeypatch):
    record, tensors, model, image = loaded
    proposals = tensors["feature.proposals"]
    monkeypatch.setattr(model.rpn, "forward", lambda maps, frames: ([proposals], {}))
    with torch.no_grad():
        ((found,),) = model([image], output_sizes=[record["input"]["requested_output_size"]])
    assert found.labels.equal(tensors["output.labels"])
    assert relative_error(found.boxes, tensors["output.boxes"]) <= TOLERANCE
    assert relative_error(found.scores, tensors["output.scores"]) <= TOLERANCE
    assert found.masks.equal(tensors["output.masks"].bool())


def test_steps(loaded):
    _, tensors, _, _ = loaded
    pyramid, logits, found = run(loaded)
    for level, x in zip(("p2", "p3", "p4", "p5", "p6"), pyramid, strict=True):
        assert relative_error(x[:, :, 0], tensors[f"feature.{level}"]) <= TOLERANCE
    distances = (tensors["feature.objectness"][:, None] - logits[3][0]).abs()
    assert distances.min(dim=1).values.max() <= 1e-6
    assert relative_error(found.boxes, tensors["feature.boxes_before_postprocess"]) <= TOLERANCE
    assert relative_error(found.masks, tensors["feature.mask_probabilities"][:, 0]) <= TOLERANCE
