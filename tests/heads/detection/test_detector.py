"""Detectors as a whole: images, clips, odd inputs, precision, the static-clip law."""

import math

import pytest
import torch

from tests.heads.detection.small import TinyBackbone, small_backbone, small_detector, target
from tests.models.invariants import relative_error
from videonet.checkpoint import load_checkpoint
from videonet.errors import ConfigError, DataError
from videonet.heads.detection.pasting import from_run_lengths

KINDS = {
    "mask_rcnn": {},
    "torchvision": {"rules": "torchvision"},
    "mmdet": {"rules": "mmdet"},
    "cascade": {"cascade": True},
    "cascade_mmdet": {"cascade": True, "rules": "mmdet"},
}
FULL = [[4, 4, 40, 50], [30, 10, 60, 30]]


def tiny(**options):
    stride = options.pop("temporal_stride", 1)
    return small_detector(TinyBackbone(temporal_stride=stride), **options)


def finite(losses):
    assert all(math.isfinite(value.item()) for value in losses.values()), losses
    return sum(losses.values())


@pytest.mark.parametrize("kind", KINDS)
def test_training_and_detecting(kind):
    model = tiny(**KINDS[kind])
    clip = torch.rand(2, 3, 2, 64, 64)
    losses = model.train()(clip, [[target(FULL, [0, 2]), target(FULL[:1], [1])]] * 2)
    finite(losses).backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    with torch.no_grad():
        found = model.eval()(clip)
    assert [len(frames) for frames in found] == [2, 2]
    for one in found[0]:
        assert 0 < len(one) <= 10 and one.masks.shape == (len(one), 64, 64)
        assert one.masks.dtype == torch.bool and one.labels.max() < 3
        assert one.scores.diff().le(0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_losses_without_any_object_are_finite(kind):
    model = tiny(**KINDS[kind]).train()
    before = {n: b.clone() for n, b in model.named_buffers() if "mask_heads" in n}
    losses = model(torch.rand(1, 3, 2, 64, 64), [[target([]), target([])]])
    finite(losses).backward()
    regression = [v for n, v in losses.items() if "mask" in n or "box_reg" in n]
    assert not any(regression)
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    for name, buffer in model.named_buffers():
        assert buffer.isfinite().all() and before.get(name, buffer).equal(buffer)


def test_degenerate_objects_change_no_loss():
    model = tiny().train()
    odd = [[10, 10, 10, 30], [20, 20, 20, 20], [50, 40, 30, 60]]
    images = torch.rand(1, 3, 64, 64)
    values = []
    for boxes in (FULL, FULL + odd):
        torch.manual_seed(0)
        values.append(model(images, [target(boxes)]))
        finite(values[-1])
    assert values[0] == values[1]


def test_a_mask_of_one_pixel_and_one_of_none():
    model = tiny().train()
    truth = target([[20, 20, 21, 21], [40, 40, 56, 60]])
    truth["masks"][1] = False
    losses = model(torch.rand(1, 3, 64, 64), [truth])
    finite(losses)
    assert losses["loss_mask"] > 0


def test_500_instances():
    model = tiny(heads={"most": 500, "score_threshold": 0.0}, rpn={"after_nms": (300, 300)})
    corners = torch.cartesian_prod(torch.arange(25.0), torch.arange(20.0)) * 5
    boxes = torch.cat((corners, corners + 4), dim=1).tolist()
    image = torch.rand(1, 3, 128, 128)
    finite(model.train()(image, [target(boxes, size=(128, 128))])).backward()
    with torch.no_grad():
        ((found,),) = model.eval()(image, masks="run_lengths")
    assert len(found) == len(found.masks) > 100


def test_frames_that_are_not_annotated_are_not_learnt_from():
    model = tiny().train()
    clip = torch.rand(1, 3, 2, 64, 64)
    truth = target(FULL)
    torch.manual_seed(0)
    alone = model(clip[:, :, :1], [[truth]])
    torch.manual_seed(0)
    among = model(clip, [[truth, None]])
    for name, value in alone.items():
        assert among[name].item() == pytest.approx(value.item(), rel=1e-5)
    assert finite(model(clip, [[None, None]])) == 0


def test_boxes_without_masks_are_learnt_from():
    losses = tiny().train()(torch.rand(2, 3, 64, 64), [target(FULL), target(FULL, masks=False)])
    assert finite(losses) > 0


def test_sampling_per_clip():
    drawn = {}
    for sample_per in ("frame", "clip"):
        model = tiny(sample_per=sample_per, heads={"num_sampled": 12}).train()
        seen = []
        run = model.roi_heads.run_stage
        model.roi_heads.run_stage = lambda s, m, b, f, run=run, seen=seen: (
            seen.append([len(x) for x in b]) or run(s, m, b, f)
        )
        finite(model(torch.rand(2, 3, 4, 64, 64), [[target(FULL)] * 4] * 2))
        drawn[sample_per] = seen[0]
    assert drawn["frame"] == [12] * 8
    assert [sum(drawn["clip"][:4]), sum(drawn["clip"][4:])] == [12, 12]


def test_images_of_several_sizes_have_the_detections_that_each_has_alone():
    model = tiny()
    images = [torch.rand(3, 50, 64), torch.rand(3, 61, 33)]
    with torch.no_grad():
        together = model(images)
        # padding is alike: the batch is as large as its largest image
        alone = [
            model([images[0], torch.zeros(3, 61, 33)])[0],
            model([torch.zeros(3, 50, 64), images[1]])[1],
        ]
    for (one,), (other,), image in zip(together, alone, images, strict=True):
        assert one.masks.shape[1:] == image.shape[1:]
        assert one.labels.equal(other.labels)
        assert relative_error(one.boxes, other.boxes) <= 1e-5
        assert one.boxes[:, 2].max() <= image.shape[2] and one.boxes[:, 3].max() <= image.shape[1]


def test_detections_in_another_size():
    model = tiny()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        ((here,),) = model(image)
        ((there,),) = model(image, output_sizes=[(128, 96)])
    scale = torch.tensor([1.5, 2.0, 1.5, 2.0])
    assert relative_error(there.boxes, here.boxes * scale) <= 1e-6
    assert there.masks.shape[1:] == (128, 96)


def test_kinds_of_masks():
    model = tiny()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        found = {
            kind: model(image, masks=kind)[0][0] for kind in ("bitmaps", "run_lengths", "none")
        }
    runs = torch.stack([from_run_lengths(m) for m in found["run_lengths"].masks])
    assert runs.equal(found["bitmaps"].masks) and runs.any()
    assert found["none"].masks is None
    with pytest.raises(ConfigError, match="masks are 'rle', expected one of bitmaps"):
        model(image, masks="rle")


def test_nothing_is_found():
    model = tiny(heads={"score_threshold": 2.0})
    with torch.no_grad():
        ((found,),) = model(torch.rand(1, 3, 64, 64))
        ((no_boxes,),) = model(torch.full((1, 3, 64, 64), float("nan")))
    assert len(found) == len(no_boxes) == 0 and found.masks.shape == (0, 64, 64)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype):
    model = tiny(cascade=True)
    image = torch.rand(1, 3, 64, 64)
    with torch.autocast("cpu", dtype):
        losses = model.train()(image, [target(FULL)])
        finite(losses).backward()
        with torch.no_grad():
            ((found,),) = model.eval()(image)
    assert {value.dtype for value in losses.values()} == {torch.float32}
    assert found.boxes.dtype == found.scores.dtype == torch.float32 and len(found)


def test_steps_of_two_frames():
    model = tiny(temporal_stride=2)
    clip = torch.rand(1, 3, 4, 64, 64)
    with torch.no_grad():
        (found,) = model(clip)
    assert len(found) == 4
    assert found[0] is found[1] and found[2] is found[3]
    assert not found[0].boxes.equal(found[2].boxes)
    # ground truth of a step is that of its first frame
    model.train()
    truth, other = target(FULL, [0, 1]), target([])
    values = []
    for targets in ([truth, other, other, truth], [truth, truth, other, other]):
        torch.manual_seed(0)
        values.append(model(clip, [targets]))
    assert values[0] == values[1]


def test_without_masks_and_with_new_classes():
    model = tiny(masks=False)
    model.reset_classifier(7)
    with torch.no_grad():
        ((found,),) = model(torch.rand(1, 3, 64, 64))
    assert found.masks is None and model.num_classes == 7
    names = [name for group in model.layer_groups() for name in group]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())


BAD = {
    "the frames of clip 0 differ in size: 32x32 and 64x64": (
        [[torch.rand(3, 64, 64), torch.rand(3, 32, 32)]],
        None,
    ),
    "the clips of a batch are alike in frames and channels, but are 1 frames of 3 channels and": (
        [torch.rand(3, 64, 64), torch.rand(3, 2, 64, 64)],
        None,
    ),
    "the batch has the shape": (torch.rand(64, 64), None),
    "a detector in training mode needs targets": (torch.rand(1, 3, 64, 64), None),
    "there are targets for 2 clips, expected 1": (torch.rand(1, 3, 64, 64), [target([])] * 2),
    "there are targets for 1 frames of clip 0, expected 2": (
        torch.rand(1, 3, 2, 64, 64),
        [[target([])]],
    ),
    "labels of frame 0 of clip 0 run from 3 to 3, expected 0 to 2": (
        torch.rand(1, 3, 64, 64),
        [target(FULL, [3, 3])],
    ),
    "masks of frame 0 of clip 0 have the shape": (
        torch.rand(1, 3, 32, 64),
        [target(FULL)],
    ),
    "the target of frame 0 of clip 0 has no labels": (
        torch.rand(1, 3, 64, 64),
        [{"boxes": torch.zeros(0, 4)}],
    ),
    "a box of frame 0 of clip 0 is not finite": (
        torch.rand(1, 3, 64, 64),
        [target([[0, 0, float("nan"), 5]], masks=False)],
    ),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_one_sentence(message):
    clips, targets = BAD[message]
    with pytest.raises(DataError, match=message):
        tiny().train()(clips, targets)


@pytest.mark.parametrize("name", ["hornet_t", "mvit_v2_t", "cyclemlp_b1"])
@pytest.mark.parametrize("kind", ["mask_rcnn", "cascade_mmdet"])
def test_a_still_clip_has_the_detections_of_its_image(name, kind):
    image = small_detector(small_backbone(name), **KINDS[kind])
    clip = small_detector(small_backbone(name, frames=4), **KINDS[kind])
    load_checkpoint(clip, image.state_dict())
    clip.eval()
    pixels = torch.rand(1, 3, 59, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ((expected,),) = image(pixels, masks="regions")
        (found,) = clip(pixels.unsqueeze(2).expand(-1, -1, 4, -1, -1), masks="regions")
    assert len(found) == 4 and len(expected) > 2
    for one in found:
        assert one.labels.equal(expected.labels)
        assert relative_error(one.boxes, expected.boxes) <= 1e-4
        assert relative_error(one.scores, expected.scores) <= 1e-4
        assert relative_error(one.masks, expected.masks) <= 1e-4
