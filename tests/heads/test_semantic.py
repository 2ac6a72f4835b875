"""Necks and semantic heads by themselves: sizes, messages, training; many views of a clip."""

import pytest
import torch
import torch.nn.functional as F

from videonet.errors import ConfigError
from videonet.heads.conv_norm import ConvNorm, GatedConvNorm, make_norm
from videonet.heads.fpn import FPN
from videonet.heads.hor_fpn import HorFPN
from videonet.heads.hrfpn import HRFPN
from videonet.heads.semantic import FCNHead, SemanticFPNHead
from videonet.heads.semantic_views import (
    mean_probabilities,
    segment,
    sliding_logits,
    window_starts,
)
from videonet.heads.simple_pyramid import SimplePyramid
from videonet.heads.uper import UPerHead
from videonet.ops.resize import resize_space

WIDTHS = [4, 6, 8]


def tiny_maps(batch=1, frames=2):
    sides = [(2, 3), (1, 2), (1, 1)]
    return [torch.randn(batch, c, frames, *s) for c, s in zip(WIDTHS, sides, strict=True)]


@pytest.mark.parametrize("kind", [FPN, HorFPN, HRFPN, SimplePyramid])
def test_maps_of_a_single_cell_have_a_pyramid(kind):
    outs = kind(WIDTHS, 8, num_outs=5)(tiny_maps())
    assert all(tuple(x.shape[:3]) == (1, 8, 2) and min(x.shape[3:]) >= 1 for x in outs)


@pytest.mark.parametrize("kind", [UPerHead, FCNHead, SemanticFPNHead])
def test_maps_of_a_single_cell_have_logits(kind):
    assert kind(WIDTHS, 3, 8).eval()(tiny_maps()).shape == (1, 3, 2, 2, 3)


def test_frames_are_images_side_by_side_without_taps_along_time():
    for module in (
        FPN(WIDTHS, 8, num_outs=4, norm="group:4"),
        HorFPN(WIDTHS, 8, filter_size=(1, 4, 3)),
        SimplePyramid(WIDTHS, 8),
        UPerHead(WIDTHS, 3, 8, norm="layer"),
    ):
        maps = tiny_maps(frames=3)
        whole, alone = module.eval()(maps), module([x[:, :, 1:2] for x in maps])
        pairs = zip(whole, alone, strict=True) if isinstance(whole, list) else [(whole, alone)]
        for many, one in pairs:
            torch.testing.assert_close(many[:, :, 1:2], one)


def test_one_image_in_a_batch_trains_or_says_how():
    maps = tiny_maps(frames=1)
    with pytest.raises(ConfigError, match="more than one clip in a batch, or build UPerHead"):
        UPerHead(WIDTHS, 3, 8).train()(maps)
    for norm in ("group", "layer"):
        UPerHead(WIDTHS, 3, 64, norm=norm).train()(maps).sum().backward()
    UPerHead(WIDTHS, 3, 8).train()(tiny_maps(batch=2)).sum().backward()


def test_a_new_classifier_keeps_the_rest():
    head = UPerHead(WIDTHS, 3, 8).double().eval()
    bottleneck = head.bottleneck.conv.weight.clone()
    head.reset_classifier(7)
    assert head([x.double() for x in tiny_maps()]).shape[1] == head.num_classes == 7
    assert torch.equal(head.bottleneck.conv.weight, bottleneck)


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: FPN(WIDTHS, start_level=3), "starts at map 3 and ends at 2, but there are 3"),
        (lambda: FPN(WIDTHS, num_outs=2), "num_outs is 2, but 3 maps are used"),
        (lambda: FPN(WIDTHS, extra="conv"), "extra is 'conv', expected one of pool, input"),
        (lambda: FPN(WIDTHS, fuse="max"), "fuse is 'max', expected sum or avg"),
        (lambda: FPN(WIDTHS, 12, norm="group"), "32 groups of a norm do not divide 12"),
        (lambda: FPN(WIDTHS, temporal_kernel=2), "2×3×3 has no centre"),
        (lambda: FPN(WIDTHS)(tiny_maps()[:2]), "FPN takes 3 maps, but got 2"),
        (lambda: FPN([4, 6, 9])(tiny_maps()), r"map 2 .* FPN expects \(B, 9, T, H, W\)"),
        (lambda: HorFPN(WIDTHS, 8, width_ratio=2, project=False), "need a projection to 8"),
        (lambda: HRFPN(WIDTHS, pooling="sum"), "pooling is 'sum', expected avg or max"),
        (lambda: SimplePyramid([4], scales=[3]), "scale of a level is 3, expected 4, 2, 1"),
        (lambda: UPerHead(WIDTHS, 3, 12, gates={"order": 5}), "order 5 does not fit width 12"),
        (lambda: UPerHead(WIDTHS, 0), "a head has 0 classes"),
        (lambda: FCNHead(WIDTHS, 3, indices=[3]), r"indices are \[3\], but the head gets 3 maps"),
        (lambda: FCNHead(WIDTHS, 3, num_convs=0), "18 channels do not become 256"),
        (lambda: SemanticFPNHead(WIDTHS, 3, strides=[4, 8]), "2 strides are given for 3 maps"),
        (lambda: make_norm("group:0", 4), "0 groups of a norm do not divide 4"),
        (lambda: make_norm("instance", 4), "'instance', expected one of batch, group, layer"),
        (lambda: ConvNorm(4, 4, 2), "1×2×2 has no centre"),
        (lambda: GatedConvNorm(4, 4, order=4), "order 4 does not fit width 4"),
    ],
)
def test_contradictions_are_named(build, message):
    with pytest.raises(ConfigError, match=message):
        build()


@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
def test_resizing_is_that_of_every_frame_in_either_memory_order(mode):
    x = torch.randn(2, 3, 4, 5, 7)
    corners = None if mode == "nearest" else True
    expected = [F.interpolate(f, (9, 4), mode=mode, align_corners=corners) for f in x.unbind(2)]
    for layout in (torch.contiguous_format, torch.channels_last_3d):
        found = resize_space(x.contiguous(memory_format=layout), (9, 4), mode, align_corners=True)
        torch.testing.assert_close(found, torch.stack(expected, dim=2))


def brightness(clip):
    """Logits of two classes that depend on every pixel by itself."""
    return torch.cat((clip[:, :1], -clip[:, 1:2]), dim=1)


def test_windows_cover_the_clip_and_the_last_ones_end_with_it():
    assert window_starts(10, 4, 3) == [0, 3, 6]
    assert window_starts(11, 4, 3) == [0, 3, 6, 7]
    assert window_starts(3, 4, 3) == [0]


def test_windows_of_pixels_by_themselves_change_nothing():
    clip = torch.randn(2, 3, 2, 11, 17)
    found = sliding_logits(brightness, clip, (4, 6), (3, 5))
    torch.testing.assert_close(found, brightness(clip))


def test_logits_are_averaged_over_the_windows_that_see_a_pixel():
    calls = []

    def number(clip):
        calls.append(clip.shape[3:])
        return torch.full_like(clip[:, :1], float(len(calls)))

    found = sliding_logits(number, torch.zeros(1, 3, 1, 4, 6), (4, 4), (4, 2))
    assert calls == [(4, 4)] * 2
    assert found[0, 0, 0, 0].tolist() == [1, 1, 1.5, 1.5, 2, 2]


def test_probabilities_are_averaged_over_scales_and_mirror_images():
    clip = torch.randn(1, 3, 2, 8, 12)

    def position(view):  # knows left from right, and the size
        columns = torch.arange(view.shape[4], dtype=view.dtype).expand_as(view[:, 0])
        return torch.stack((columns, torch.zeros_like(columns)), dim=1)

    plain = position(clip).softmax(1)
    found = mean_probabilities(position, clip, flip=True)
    torch.testing.assert_close(found, (plain + plain.flip(-1)) / 2)
    half = resize_space(position(resize_space(clip, (4, 6))), (8, 12)).softmax(1)
    found = mean_probabilities(position, clip, scales=(1.0, 0.5))
    torch.testing.assert_close(found, (plain + half) / 2)
    found = segment(brightness, clip, window=(3, 5), flip=True)
    torch.testing.assert_close(found, brightness(clip).softmax(1))


def test_views_that_there_are_not_are_named():
    clip = torch.zeros(1, 3, 1, 8, 8)
    with pytest.raises(ConfigError, match=r"windows of \(4, 4\) cannot have strides of \(5, 4\)"):
        sliding_logits(brightness, clip, (4, 4), (5, 4))
    with pytest.raises(ConfigError, match="one or more positive numbers"):
        mean_probabilities(brightness, clip, scales=())
