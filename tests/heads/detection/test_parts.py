"""Boxes, anchors, matching, sampling and pasting against torchvision's and plain computations."""

from dataclasses import replace

import pytest
import torch
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.ops import MultiScaleRoIAlign, box_iou, generalized_box_iou_loss

from videonet.errors import ConfigError
from videonet.heads.detection import DETECTRON2, MMDET, TORCHVISION, BoxLoss, RoIHeads
from videonet.heads.detection.anchors import Anchors
from videonet.heads.detection.boxes import are_usable, box_loss, decode_boxes, encode_boxes
from videonet.heads.detection.conventions import find_conventions
from videonet.heads.detection.frames import Frames
from videonet.heads.detection.mask_targets import cut_masks
from videonet.heads.detection.matching import match_boxes, sample_boxes
from videonet.heads.detection.pasting import (
    from_run_lengths,
    paste_masks,
    paste_run_lengths,
    to_run_lengths,
)
from videonet.heads.detection.pooling import RoIPooler
from videonet.heads.detection.region_heads import FrozenBatchNorm, MaskHead

WEIGHTS = (10.0, 10.0, 5.0, 5.0)


def some_boxes(count, size=100, seed=0, least=1.0):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator) * size
    sides = torch.rand(count, 2, generator=generator) * size / 2 + least
    return torch.cat((corners, corners + sides), dim=1)


def test_deltas_are_those_of_torchvision():
    boxes, references = some_boxes(20), some_boxes(20, seed=1)
    deltas = encode_boxes(boxes, references, WEIGHTS)
    coder = BoxCoder(WEIGHTS)
    assert torch.allclose(deltas, coder.encode_single(boxes, references), atol=1e-5)
    assert torch.allclose(
        decode_boxes(deltas[:, None], references, WEIGHTS)[:, 0], boxes, atol=1e-3
    )
    wild = torch.randn(20, 8) * 50
    expected = coder.decode_single(wild, references).reshape(20, 2, 4)
    assert torch.allclose(decode_boxes(wild.reshape(20, 2, 4), references, WEIGHTS), expected)


def test_shrinking_is_limited_where_asked():
    box = torch.tensor([[0.0, 0.0, 100.0, 100.0]])
    deltas = torch.tensor([[[0.0, 0.0, -100.0, -100.0]]])
    sides = [
        (b[0, 0, 2] - b[0, 0, 0]).item()
        for b in (decode_boxes(deltas, box, (1, 1, 1, 1), c) for c in (False, True))
    ]
    assert sides[0] == 0 and sides[1] == pytest.approx(1.6)


def test_losses_of_boxes():
    boxes, references = some_boxes(6), some_boxes(6, seed=1)
    deltas = torch.randn(6, 4)
    targets = encode_boxes(boxes, references, WEIGHTS)
    l1 = box_loss(BoxLoss("l1", 2.0), deltas, references, boxes, WEIGHTS)
    assert torch.allclose(l1, 2 * (deltas - targets).abs().sum())
    giou = box_loss(BoxLoss("giou", 10.0), deltas, references, boxes, WEIGHTS)
    decoded = decode_boxes(deltas[:, None], references, WEIGHTS)[:, 0]
    assert torch.allclose(giou, 10 * generalized_box_iou_loss(decoded, boxes, reduction="sum"))
    with pytest.raises(ConfigError, match="the box loss is 'ciou', expected one of smooth_l1"):
        BoxLoss("ciou")


def test_usable_boxes():
    inf, nan = float("inf"), float("nan")
    boxes = torch.tensor(
        [[0, 0, 1, 1], [0, 0, 0, 5], [3, 3, 2, 4], [0, 0, inf, 1], [0, nan, 1, 1], [0, 0, 9, 9]]
    )
    assert are_usable(boxes).tolist() == [True, False, False, False, False, True]
    assert are_usable(boxes, 2.0).tolist() == [False] * 5 + [True]
    assert are_usable(boxes, None).tolist() == [True, True, True, False, False, True]


def test_anchors_are_those_of_torchvision():
    sizes, ratios, maps = [(6, 12), (20, 40)], (0.5, 1.0, 2.0), [(7, 9), (4, 5)]
    generator = AnchorGenerator(sizes, (ratios,) * 2)
    images = ImageList(torch.zeros(1, 3, 56, 72), [(56, 72)])
    (expected,) = generator(images, [torch.zeros(1, 1, *size) for size in maps])
    found = Anchors(sizes, ratios, (8, 14), TORCHVISION).of_maps(maps, (56, 72), expected.device)
    assert torch.cat(found).equal(expected)


def test_rounding_and_order_of_anchors():
    orders = {}
    for rules in (TORCHVISION, DETECTRON2, MMDET):
        anchors = Anchors([(10, 21)], (0.5, 2.0), (8,), rules).around_origin(0)
        orders[rules.name] = (anchors[:, 2:] - anchors[:, :2]).prod(dim=1).sqrt().round().tolist()
        assert (anchors == anchors.round()).all().item() == rules.round_anchors
    assert orders["mmdet"] == [10, 21, 10, 21] and orders["detectron2"] == [10, 10, 21, 21]
    with pytest.raises(ConfigError, match="expected as many for each of 2 levels"):
        Anchors([(8,), (8, 16)], (1.0,), (4, 8), DETECTRON2)


@pytest.mark.parametrize("low_quality", [False, True])
def test_matches_are_those_of_torchvision(low_quality):
    truth, boxes = some_boxes(7), some_boxes(300, seed=1)
    matched, labels = match_boxes(truth, boxes, 0.6, 0.3, low_quality=low_quality)
    expected = Matcher(0.6, 0.3, low_quality)(box_iou(truth, boxes))
    assert labels.tolist() == [1 if m >= 0 else 0 if m == -1 else -1 for m in expected]
    assert matched[labels == 1].equal(expected[labels == 1])


def test_a_box_that_is_the_best_of_a_worse_ground_truth():
    truth = torch.tensor([[0.0, 0, 10, 10], [0.0, 0, 12, 6]])
    boxes = torch.tensor([[0.0, 0, 10, 9], [50.0, 50, 60, 60]])
    found = {
        to_best: match_boxes(truth, boxes, 0.95, 0.3, low_quality=True, to_best=to_best)
        for to_best in (True, False)
    }
    assert [found[b][0][0].item() for b in (True, False)] == [0, 1]
    assert found[True][1].tolist() == [1, 0]
    _, labels = match_boxes(truth, boxes, 0.95, 0.3, low_quality=True, least=0.92)
    assert labels.tolist() == [-1, 0]


def test_ground_truth_that_nothing_overlaps_matches_nothing():
    far = torch.tensor([[500.0, 500.0, 510.0, 510.0]])
    _, labels = match_boxes(far, some_boxes(20), 0.7, 0.3, low_quality=True)
    assert not labels.any()
    for truth, boxes in ((far[:0], some_boxes(3)), (far, far[:0])):
        matched, labels = match_boxes(truth, boxes, 0.7, 0.3, low_quality=True)
        assert len(matched) == len(labels) == len(boxes) and not labels.any()


def test_samples_of_a_group_keep_the_share_of_positives():
    labels = [torch.tensor([1] * 30 + [0] * 50 + [-1] * 20), torch.tensor([0] * 100)]
    drawn = sample_boxes(labels, 64, 0.25)
    chosen = torch.cat([of_frame[places] for of_frame, places in zip(labels, drawn, strict=True)])
    assert (chosen == 1).sum() == 16 and (chosen == 0).sum() == 48
    assert all(places.diff().gt(0).all() for places in drawn)
    assert sum(map(len, sample_boxes(labels, 1000, 0.5))) == 180
    assert sample_boxes([], 64, 0.25) == []


def test_pooling_is_that_of_torchvision_for_frames():
    maps = [torch.rand(1, 4, 2, s, s) for s in (64, 32, 16)]
    boxes = [some_boxes(20, 200, least=2.0), some_boxes(9, 100, seed=1)]
    boxes = [b.clamp(max=256) for b in boxes]
    frames = Frames([(256, 256)] * 2, (256, 256), 2)
    found = RoIPooler(7, (4, 8, 16), TORCHVISION)(maps, boxes, frames)
    pool = MultiScaleRoIAlign(["0", "1", "2"], 7, 2)
    flat = {str(n): x[0].transpose(0, 1) for n, x in enumerate(maps)}
    expected = pool(flat, boxes, frames.sizes)
    assert torch.allclose(found[:, :, 0], expected, atol=1e-6)
    aligned = RoIPooler(7, (4, 8, 16), DETECTRON2)(maps, boxes, frames)
    assert not torch.allclose(aligned, found, atol=1e-3)


def test_pasting_is_that_of_torchvision():
    masks, size = torch.rand(12, 28, 28), (70, 90)
    boxes = some_boxes(12, 60, least=0.3)
    boxes[:, :2] -= 15  # over the border
    expected = paste_masks_in_image(masks[:, None], boxes, size)[:, 0]
    found = paste_masks(masks, boxes, size, by_sampling=False, threshold=None)
    assert torch.allclose(found, expected, atol=1e-6)
    outside = torch.tensor([[200.0, 200.0, 220.0, 220.0], [-40.0, 5.0, -20.0, 9.0]])
    assert not paste_masks(masks[:2], outside, size, by_sampling=False).any()


def test_pasting_by_sampling_covers_the_box():
    boxes = torch.tensor(
        [[10.0, 20.0, 30.0, 50.0], [40.2, 40.2, 40.9, 40.9], [-5.0, -5.0, 3.0, 3.0]]
    )
    found = paste_masks(torch.ones(3, 28, 28), boxes, (64, 48), by_sampling=True)
    expected = torch.zeros(3, 64, 48, dtype=torch.bool)
    expected[0, 20:50, 10:30] = True
    expected[1, 40, 40] = True  # one pixel
    expected[2, :3, :3] = True
    assert found.equal(expected)
    runs = paste_run_lengths(torch.ones(3, 28, 28), boxes, (64, 48), by_sampling=True)
    assert torch.stack([from_run_lengths(r) for r in runs]).equal(expected)


@pytest.mark.parametrize("by_sampling", [False, True])
def test_pasting_no_masks(by_sampling):
    nothing = torch.zeros(0, 28, 28), torch.zeros(0, 4)
    assert paste_masks(*nothing, (5, 6), by_sampling=by_sampling).shape == (0, 5, 6)
    assert paste_run_lengths(*nothing, (5, 6), by_sampling=by_sampling) == []


def test_run_lengths_go_down_the_columns():
    mask = torch.tensor([[1, 0, 0], [1, 1, 0]]).bool()
    assert to_run_lengths(mask) == {"size": [2, 3], "counts": [0, 2, 1, 1, 2]}
    assert to_run_lengths(~mask) == {"size": [2, 3], "counts": [2, 1, 1, 2]}
    for fill in (torch.zeros, torch.ones):
        full = fill(3, 4).bool()
        assert from_run_lengths(to_run_lengths(full)).equal(full)


def test_mask_targets():
    masks = torch.zeros(50, 40, 40, dtype=torch.bool)
    for number, mask in enumerate(masks):
        mask[10:20, : number // 2 + 5] = True
    boxes = torch.tensor([[0.0, 10.0, 20.0, 20.0]]).repeat(50, 1)
    hard = cut_masks(masks, torch.arange(50), boxes, 20, DETECTRON2)
    widths = hard.mean(dim=1).sum(dim=1)
    assert widths.tolist() == [min(n // 2 + 5, 20) for n in range(50)]
    soft = cut_masks(masks, torch.arange(50), boxes, 20, TORCHVISION)
    assert len(soft.unique()) > 2 >= len(hard.unique())
    reversed_ = cut_masks(masks, torch.arange(50).flip(0), boxes, 20, DETECTRON2)
    assert reversed_.equal(hard.flip(0))


@pytest.mark.parametrize("norm", [None, "batch", "frozen", "group", "layer"])
def test_norms_of_heads(norm):
    head = MaskHead(8, 3, conv_dims=(32, 32), deconv_dim=8, norm=norm).train()
    kept = [m.running_mean.clone() for m in head.modules() if isinstance(m, FrozenBatchNorm)]
    regions = torch.rand(5, 8, 1, 14, 14)
    head(regions).sum().backward()
    assert head(regions).shape == (5, 3, 28, 28) and head(regions[:0]).shape == (0, 3, 28, 28)
    assert len(kept) == (2 if norm == "frozen" else 0)
    for module, mean in zip(
        (m for m in head.modules() if isinstance(m, FrozenBatchNorm)), kept, strict=True
    ):
        assert module.running_mean.equal(mean) and module.weight.grad is None


def test_unknown_conventions_and_too_many_stages():
    with pytest.raises(ConfigError, match="the conventions are 'caffe', expected one of torchv"):
        find_conventions("caffe")
    with pytest.raises(ConfigError, match="there are 4 stages, but thresholds and weights for 3"):
        RoIHeads(8, 3, (4, 8), replace(MMDET, resample=False), stages=4)
