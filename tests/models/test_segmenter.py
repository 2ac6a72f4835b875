"""Necks and semantic heads on every family: the static-clip law, checkpoints, layers."""

import pytest
import torch

import videonet
from tests.models.families import family_of, small_arguments, smallest_of
from tests.models.invariants import TOLERANCE, randomise, relative_error
from videonet.checkpoint import load_checkpoint
from videonet.checkpoint.dialects.dense import PART_ROWS
from videonet.errors import CheckpointError, ConfigError
from videonet.heads.fpn import FPN
from videonet.heads.hor_fpn import HorFPN
from videonet.heads.hrfpn import HRFPN
from videonet.heads.necks import NECKS
from videonet.heads.semantic import FCNHead, SemanticFPNHead, hrnet_head
from videonet.heads.simple_pyramid import MultiLevelNeck, SimplePyramid
from videonet.heads.uper import UPerHead
from videonet.models.segmenter import make_segmenter

NINE = ["mvit", "swin", "vit", "cvt", "dilateformer", "hornet", "cyclemlp", "asmlp", "hrnet"]
SIZE = (61, 75)
# Class, and arguments of both models; what is in TIME belongs to the video model alone.
ON_MAPS = {
    "fpn": (FPN, {"num_outs": 6}),
    "fpn_with_all_options": (
        FPN,
        {"start_level": 1, "num_outs": 5, "extra": "input", "norm": "layer", "relu": True},
    ),
    "hor_fpn": (HorFPN, {"num_outs": 5, "norm": "batch"}),
    "hor_fpn_filter": (HorFPN, {"filter_size": (1, 5, 4)}),
    "hrfpn": (HRFPN, {"pooling": "max"}),
    "simple_pyramid": (SimplePyramid, {"num_outs": 5}),
    "multi_level": (MultiLevelNeck, {"scales": (2.0, 1.0, 0.5, 1.5)}),
    "uper": (UPerHead, {}),
    "uper_gated": (UPerHead, {"gates": {"kernel": 3}, "align_corners": True}),
    "uper_filter": (UPerHead, {"gates": {"filter_size": (1, 5, 4)}}),
    "semantic_fpn": (SemanticFPNHead, {}),
    "hrnet": (hrnet_head, {"classifier_kernel": 3}),
    "fcn": (FCNHead, {"indices": [-1], "num_convs": 2, "concat_input": True, "dilation": 2}),
}
TIME = {
    "hor_fpn_filter": {"filter_size": (3, 5, 4)},
    "uper_filter": {"gates": {"filter_size": (4, 5, 4)}},
}


def backbones(family, frames=4):
    """The smallest image model of a family, with random weights, and its video model with them."""
    name = smallest_of(f"{family}_*")
    arguments = small_arguments(name) | family_of(name).exact | {"num_classes": 0}
    image = randomise(videonet.create_model(name, **arguments | {"num_frames": 1}))
    video = videonet.create_model(name, **arguments | {"num_frames": frames}).eval()
    load_checkpoint(video, image.state_dict())
    return image, video


def small_segmenter(backbone, classes=3, **options):
    head = {"channels": 8}
    return make_segmenter(backbone, classes, "uper", auxiliary=1, head_options=head, **options)


def assert_every_frame_is_the_image(images, clips):
    for one, many in zip(images, clips, strict=True):
        assert many.shape[3:] == one.shape[3:]
        error = relative_error(many, one.expand(-1, -1, many.shape[2], -1, -1))
        assert error <= TOLERANCE, f"{error:.1e}"


@torch.no_grad()
@pytest.mark.parametrize("family", NINE)
def test_the_law_through_every_neck_and_head(family):
    image, video = backbones(family)
    picture = torch.randn(1, 3, 1, *SIZE)
    maps = image.forward_intermediates(picture)
    clip_maps = video.forward_intermediates(picture.expand(-1, -1, 6, -1, -1))
    widths = [x.shape[1] for x in maps]
    for case, (kind, options) in ON_MAPS.items():
        if kind in NECKS.values():
            arguments = {"in_channels": widths, "out_channels": 8} | options
            if "scales" in options:
                arguments["scales"] = options["scales"][: len(widths)]
        else:
            arguments = {"in_channels": widths, "num_classes": 5, "channels": 8} | options
        flat = randomise(kind(**arguments))
        deep = kind(**arguments | TIME.get(case, {}) | {"temporal_kernel": 3}).eval()
        report = load_checkpoint(deep, flat.state_dict())
        assert report.inflated or case == "hrnet"
        expected, found = flat(maps), deep(clip_maps)
        if isinstance(found, list):
            assert len(found) == deep.num_outs
        else:
            assert found.shape == (1, 5, *clip_maps[-1 if case == "fcn" else 0].shape[2:])
            expected, found = [expected], [found]
        assert_every_frame_is_the_image(expected, found)


@torch.no_grad()
@pytest.mark.parametrize("family", NINE)
def test_a_still_clip_is_segmented_like_its_image(family):
    image, video = map(small_segmenter, backbones(family))
    video.eval()
    load_checkpoint(video, randomise(image).state_dict())
    # Video Swin's patches see zeros behind an odd number of frames.
    frames = 2 if family == "swin" else 3
    picture = torch.randn(1, 3, 1, *SIZE)
    found = video.forward_heads(picture.expand(-1, -1, frames, -1, -1))
    assert [tuple(x.shape) for x in found] == [(1, 3, frames, *SIZE)] * 2
    assert_every_frame_is_the_image(image.forward_heads(picture), found)
    torch.testing.assert_close(image(picture[:, :, 0]), image(picture))


@pytest.mark.parametrize("family", NINE)
def test_training_reaches_every_parameter_and_every_parameter_has_a_layer(family):
    _, video = backbones(family)
    model = small_segmenter(video).train()
    sum(x.square().mean() for x in model.forward_heads(torch.randn(2, 3, 4, 64, 64))).backward()
    names = [name for name, _ in model.named_parameters()]
    assert sorted(sum(model.layer_groups(), [])) == sorted(names)
    assert any(name.startswith("decode_head.") for name in model.layer_groups()[-1])
    assert model.no_weight_decay() <= set(names)
    silent = [name for name, p in model.named_parameters() if p.grad is None]
    assert not silent


def test_a_plain_backbone_gets_a_simple_pyramid_and_three_stages_a_fourth_level():
    _, vit = backbones("vit")
    assert isinstance(small_segmenter(vit, neck_channels=8).neck, SimplePyramid)
    with pytest.raises(ConfigError, match="have one resolution"):
        make_segmenter(vit, 3, "semantic_fpn", neck="fpn")
    _, cvt = backbones("cvt")
    options = {"neck_channels": 8, "neck_options": {"num_outs": 4}}
    model = make_segmenter(cvt, 3, "semantic_fpn", **options).eval()
    maps = model.forward_maps(torch.randn(1, 3, 2, 64, 64))
    assert len(cvt.feature_info) < 4 == len(maps)
    neck = MultiLevelNeck([4, 4, 4, 4], 6).eval()
    sides = [x.shape[3:] for x in neck([torch.randn(1, 4, 2, 5, 1)] * 4)]
    assert sides == [(20, 4), (10, 2), (5, 1), (2, 1)]


def test_a_classifier_starts_a_segmenter():
    name = smallest_of("swin_*")
    arguments = small_arguments(name) | {"num_frames": 1}
    classifier = randomise(videonet.create_model(name, **arguments))
    model = small_segmenter(videonet.create_model(name, **arguments))
    report = load_checkpoint(model, classifier.state_dict())
    assert report.reinitialised and all(
        entry.startswith(("decode_head.", "auxiliary_head.")) for entry in report.reinitialised
    )
    assert "norm.weight" in report.dropped
    stem = model.backbone.get_parameter("patch_embed.proj.weight")
    assert torch.equal(stem, classifier.get_parameter("patch_embed.proj.weight"))


def as_mmsegmentation(state):
    """Our names of a segmenter -> those of mmsegmentation, kernels 2D."""
    theirs = {}
    for name, tensor in state.items():
        new = next((new for row in PART_ROWS if (new := row.to_theirs(name))), name)
        theirs[new] = tensor.squeeze(2) if tensor.dim() == 5 else tensor
    return {"state_dict": theirs, "meta": {"mmseg_version": "1.2.2"}}


@torch.no_grad()
def test_a_checkpoint_of_mmsegmentation_with_its_backbone():
    name = smallest_of("swin_*")
    arguments = small_arguments(name) | {"num_frames": 1, "num_classes": 0}

    def build(**options):
        return small_segmenter(videonet.create_model(name, **arguments), **options).eval()

    model = randomise(build())
    content = as_mmsegmentation(model.state_dict())
    names = content["state_dict"]
    assert "decode_head.psp_modules.0.1.bn.running_mean" in names
    assert "auxiliary_head.convs.0.bn.weight" in names and "backbone.patch_embed.proj.bias" in names
    other = build()
    report = load_checkpoint(other, content)
    assert sorted(report.used) == sorted(names) and not report.reinitialised
    picture = torch.randn(1, 3, 64, 64)
    assert torch.equal(other(picture), model(picture))
    # For other classes the rest is kept; without an auxiliary head its weights are left out.
    report = load_checkpoint(build(classes=4), content)
    assert {entry.rpartition(".")[0] for entry in report.reinitialised} == {
        "decode_head.conv_seg",
        "auxiliary_head.conv_seg",
    }
    alone = build()
    alone.auxiliary_head = None
    report = load_checkpoint(alone, content)
    assert set(report.dropped) == {n for n in names if n.startswith("auxiliary_head.")}
    assert all("of training alone" in e.reason for e in report.source if e.status == "dropped")
    incomplete = {n: x for n, x in names.items() if "decode_head.bottleneck" not in n}
    with pytest.raises(CheckpointError, match="decode_head.bottleneck.conv.weight"):
        load_checkpoint(build(), incomplete)


def test_bad_arguments_are_named():
    _, video = backbones("hrnet")
    with pytest.raises(ConfigError, match="expected one of uper, semantic_fpn"):
        make_segmenter(video, 3, "deeplab")
    with pytest.raises(ConfigError, match="head uper: .*'depth'"):
        make_segmenter(video, 3, head_options={"depth": 3})
    with pytest.raises(ConfigError, match="the neck is 'pan', expected one of fpn"):
        make_segmenter(video, 3, neck="pan")
    with pytest.raises(ConfigError, match="neck fpn: .*'depth'"):
        make_segmenter(video, 3, neck="fpn", neck_options={"depth": 3})
