"""Backbones of detectors and segmentations: their maps for any frames, clips, and options."""

import pytest
import torch

from tests.models.families import SMALL_VIT
from tests.models.invariants import TOLERANCE, randomise, relative_error
from videonet.checkpoint import load_checkpoint
from videonet.errors import ConfigError
from videonet.models import create_model
from videonet.models.backbones import create_backbone

MVIT = {
    "depth": 5,
    "embed_dim": 8,
    "crop_size": 64,
    "cls_token": False,
    "dim_mul": {1: 2.0, 3: 2.0},
    "head_mul": {1: 2.0, 3: 2.0},
    "pool_q_stride": {i: (1, 2, 2) if i in (1, 3) else (1, 1, 1) for i in range(5)},
    "pool_kv_stride_adaptive": (1, 2, 2),
    "global_blocks": (2, 4),
    "padded_keys": True,
    "wide_global_strides": True,
}
SWIN = {"embed_dim": 8, "depths": (2, 2, 2), "num_heads": (1, 2, 2), "window_rule": "detection"}
STAGES = {"depths": (1, 1, 2, 1)}
# Model, arguments of both, arguments of the image, arguments of the clip.
BACKBONES = {
    "mvit": ("mvit_v2_s", MVIT, {"window_size": (1, 8, 8)}, {"window_size": (2, 8, 8)}),
    "swin": ("swin_t", SWIN, {"window_size": (1, 4, 4)}, {"window_size": (4, 4, 4)}),
    "hornet": ("hornet_gf_t", STAGES | {"base_dim": 8}, {}, {}),
    "asmlp": ("asmlp_t", STAGES | {"embed_dim": 8}, {}, {}),
    "cyclemlp": ("cyclemlp_b1", {"layers": (1, 2, 1), "embed_dims": (8, 12, 16)}, {}, {}),
    "vitdet": (
        "vitdet_b",
        SMALL_VIT
        | {"position_size": 112, "crop_size": 64, "num_classes": 0, "global_blocks": (1, 3)},
        {"window_size": (1, 3, 3)},
        {"window_size": (2, 3, 3)},
    ),
}
BACKBONES["cyclemlp"][1]["mlp_ratios"] = (2, 2, 2)


def pair(family, frames, **changes):
    """The image backbone with random weights, and the clip backbone inflated from it."""
    name, arguments, of_image, of_clip = BACKBONES[family]
    if family != "vitdet":
        arguments = arguments | {"output_norms": True}
    arguments = arguments | changes
    image = randomise(create_model(name, num_frames=1, **arguments | of_image))
    clip = create_model(name, num_frames=frames, **arguments | of_clip)
    return image, clip.eval(), load_checkpoint(clip, image.state_dict())


def assert_every_frame_has_the_maps_of_its_image(image, clip, frames, size):
    pictures = torch.randn(2, 3, 1, *size)
    with torch.no_grad():
        expected = image.forward_intermediates(pictures)
        found = clip.forward_intermediates(pictures.expand(-1, -1, frames, -1, -1))
    assert len(found) == len(expected) == len(image.feature_info)
    for own, other, info in zip(found, expected, clip.feature_info, strict=True):
        assert own.shape[1] == info.channels
        assert relative_error(own, other.expand_as(own)) <= TOLERANCE


@pytest.mark.parametrize("frames", [2, 9, 10])  # of 5 cells, in windows of 2 or 4
@pytest.mark.parametrize("family", BACKBONES)
def test_the_static_clip_law(family, frames):
    image, clip, report = pair(family, 8)
    assert not report.reinitialised and not report.missing
    assert_every_frame_has_the_maps_of_its_image(image, clip, frames, (75, 94))


@pytest.mark.parametrize("family", BACKBONES)
@pytest.mark.parametrize("size", [(64, 64), (47, 101), (32, 33)], ids=str)
def test_maps_of_any_size_have_their_strides(family, size):
    image = pair(family, 8)[0]
    with torch.no_grad():
        maps = image.forward_intermediates(torch.randn(1, 3, *size))
    for found, info in zip(maps, image.feature_info, strict=True):
        for cells, pixels, stride in zip(found.shape[3:], size, info.strides[1:], strict=True):
            assert pixels // stride <= cells <= -(-pixels // stride)


@pytest.mark.parametrize("family", ["mvit", "swin", "hornet", "asmlp", "cyclemlp"])
def test_a_model_with_output_norms_gives_the_list_of_normed_maps(family):
    model = pair(family, 8)[0]
    picture = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        maps = model(picture)
        features = model.forward_features(picture)
        for norm in model.output_norms.values():
            norm.weight.mul_(2)
            norm.bias.mul_(2)
        twice = model(picture)
    assert isinstance(maps, list) and len(maps) == len(model.feature_info)
    for found, other in zip(twice, maps, strict=True):
        torch.testing.assert_close(found, 2 * other)
    assert model.num_classes == 0
    assert model.forward_head(features).shape == (1, model.num_features)
    with pytest.raises(ConfigError, match="gives feature maps, not classes"):
        model.reset_classifier(3)


def test_norms_of_single_outputs():
    model = pair("swin", 8, output_norms=(0, 2))[0]
    assert sorted(model.output_norms) == ["0", "2"]
    bare = create_model("swin_t", num_frames=1, num_classes=0, **SWIN | {"window_size": (1, 4, 4)})
    load_checkpoint(bare.eval(), model.state_dict())
    picture = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        first, second, _ = model(picture)
        plain = bare.forward_intermediates(picture)
    torch.testing.assert_close(second, plain[1])
    assert (first - plain[0]).abs().max() > 0.1
    with pytest.raises(ConfigError, match=r"output_norms are \(3,\), but this Swin has 3 maps"):
        pair("swin", 8, output_norms=(3,))


@pytest.mark.parametrize("family", ["mvit", "swin", "hornet", "asmlp", "cyclemlp", "vitdet"])
def test_every_parameter_of_a_backbone_learns(family):
    clip = pair(family, 4)[1].train()
    maps = clip.forward_intermediates(torch.randn(1, 3, 4, 64, 64))
    sum(x.square().mean() for x in maps).backward()
    silent = [n for n, p in clip.named_parameters() if p.grad is None and "filter" not in n]
    assert not silent


@pytest.mark.parametrize("family, key", [("mvit", "norm_k.bias"), ("vitdet", "qkv.bias")])
def test_padding_is_a_key_where_windows_reach_beyond_the_frame(family, key):
    """A constant on all keys cancels in the softmax unless there are keys without it."""

    def difference(size, padded):
        image = pair(family, 8, padded_keys=padded)[0].double()
        picture = torch.randn(1, 3, *size, dtype=torch.float64)
        with torch.no_grad():
            before = image.forward_intermediates(picture)
            for name, parameter in image.named_parameters():
                if name.endswith(key):
                    third = len(parameter) // 3
                    keys = parameter if family == "mvit" else parameter[third : 2 * third]
                    keys += 1.0
            after = image.forward_intermediates(picture)
        return max(relative_error(a, b) for a, b in zip(after, before, strict=True))

    whole, beyond = ((64, 64), (72, 88)) if family == "mvit" else ((96, 96), (64, 112))
    assert difference(whole, True) < 1e-10
    assert difference(beyond, False) < 1e-10
    if family == "mvit":  # in a ViT the padding has the bias too
        assert difference(beyond, True) > 1e-4


@pytest.mark.parametrize("family", ["mvit", "vitdet"])
def test_where_no_window_is_padded_both_rules_agree(family):
    padded = pair(family, 8)[0]
    plain = pair(family, 8, padded_keys=False)[0]
    plain.load_state_dict(padded.state_dict())
    whole, beyond = ((64, 96), (72, 88)) if family == "mvit" else ((96, 48), (64, 112))
    for size, same in ((whole, True), (beyond, False)):
        picture = torch.randn(1, 3, *size)
        with torch.no_grad():
            a, b = padded.forward_intermediates(picture), plain.forward_intermediates(picture)
        errors = [relative_error(x, y) for x, y in zip(a, b, strict=True)]
        assert max(errors) <= 1e-5 if same else max(errors) > 1e-3


def test_the_published_plan_of_mvit():
    """Global blocks, windows and strides of MViTv2-T, as in detectron2."""
    windows = {"window_size": (1, 56, 56), "wide_global_strides": True}
    model = create_model("mvit_v2_t", num_frames=1, embed_dim=16, **windows)
    plans = model.plans
    assert [i for i, plan in enumerate(plans) if plan.window is None] == [2, 7, 9]
    assert [plan.window[1] for plan in plans if plan.window] == [56, 56, 28, 14, 14, 14, 14]
    assert [plan.kv_stride[1] for plan in plans] == [4, 2, 4, 1, 1, 1, 1, 2, 1, 1]
    windowed = [block.attn for block in model.blocks if block.attn.window]
    for attention in windowed:  # tables of the window at hand: nothing to interpolate
        strides = [p.stride[1] for p in (attention.pool_q, attention.pool_k)]
        rows = 2 * max(attention.window[1] // s for s in strides) - 1
        assert len(attention.rel_pos_h) == rows


@pytest.mark.parametrize(
    "name, depth, blocks",
    [("b", 12, (2, 5, 8, 11)), ("l", 24, (5, 11, 17, 23)), ("h", 32, (7, 15, 23, 31))],
)
def test_the_published_plan_of_vitdet(name, depth, blocks):
    model = create_model(f"vitdet_{name}", num_frames=1, embed_dim=48, num_classes=0)
    assert len(model.blocks) == depth
    everywhere = tuple(i for i, b in enumerate(model.blocks) if b.attn.window is None)
    assert everywhere == blocks
    rows = {len(block.attn.rel_pos_h) for block in model.blocks}
    assert rows == {2 * 14 - 1, 2 * 64 - 1}
    assert model.pos_embed.shape[1] == 14 * 14


@pytest.mark.parametrize(
    "family, changes, message",
    [
        ("mvit", {"global_blocks": (7,)}, "names block 7, but there are 5"),
        ("mvit", {"position_resize": "nearest"}, "expected trilinear or bicubic"),
        ("vitdet", {"cls_token": True}, "windows need cls_token=False"),
        ("vitdet", {"space_time": "divided"}, "need space_time='joint'"),
        ("vitdet", {"global_blocks": (4,)}, "names block 4, but there are 4"),
    ],
)
def test_what_cannot_be_is_named(family, changes, message):
    with pytest.raises(ConfigError, match=message):
        pair(family, 8, **changes)


@pytest.mark.parametrize("name", ["mvit_v2_s", "vit_b"])
def test_global_blocks_need_windows(name):
    with pytest.raises(ConfigError, match="without window_size"):
        create_model(name, num_frames=1, cls_token=False, global_blocks=(1,))


def test_relative_positions_and_output_norms_are_not_decayed():
    decayed = pair("vitdet", 8)[1].no_weight_decay()
    assert {"blocks.0.attn.rel_pos_t", "blocks.3.attn.rel_pos_h"} <= decayed


def test_published_groups_of_hornet():
    model = create_model("hornet_t", num_frames=1, base_dim=16, output_norms=True)
    groups = model.layer_groups("layers")
    names = [name for name, _ in model.named_parameters()]
    place = {name: i for i, group in enumerate(groups) for name in group}
    assert len(groups) == 14 and sorted(place) == sorted(names)
    expected = {
        "downsample_layers.0.0.weight": 0,
        "stages.0.1.gamma1": 1,
        "downsample_layers.1.1.weight": 2,
        "stages.1.2.gamma1": 2,
        "downsample_layers.2.1.weight": 3,
        "stages.2.0.gamma1": 3,
        "stages.2.1.gamma1": 3,
        "stages.2.2.gamma1": 4,
        "stages.2.17.gamma1": 11,
        "downsample_layers.3.1.weight": 12,
        "stages.3.0.gamma1": 12,
        "output_norms.0.weight": 13,
        "output_norms.3.bias": 13,
    }
    assert {name: place[name] for name in expected} == expected
    stages = {n: i for i, group in enumerate(model.layer_groups("stages")) for n in group}
    assert len(model.layer_groups("stages")) == 8 and sorted(stages) == sorted(names)
    assert stages["downsample_layers.3.1.weight"] == 0
    assert stages["stages.3.0.gamma1"] == 4 and stages["output_norms.1.bias"] == 7
    with pytest.raises(ConfigError, match="expected one of blocks, layers, stages"):
        model.layer_groups("pairs")
    with pytest.raises(ConfigError, match="four stages, but this HorNet has 2"):
        create_model("hornet_xs").layer_groups("layers")


@pytest.mark.parametrize("family", BACKBONES)
def test_output_norms_are_behind_the_last_block(family):
    model = pair(family, 8)[0]
    *others, last = model.layer_groups()
    names = [name for group in (*others, last) for name in group]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    assert set(last) == {name for name in names if name.startswith("output_norms.")}
    assert model.layer_groups("layers") == [*others, last] or family == "hornet"


@pytest.mark.parametrize(
    "name, small",
    [
        ("mvit_v2_t", {"embed_dim": 8}),
        ("mvit_v2_xs", {}),
        ("swin_t", {"embed_dim": 12}),
        ("hornet_gf_t", STAGES | {"base_dim": 8}),
        ("asmlp_t", STAGES | {"embed_dim": 8}),
        ("cyclemlp_xs", {}),
        ("vitdet_b", SMALL_VIT),
        ("hrnet_xs", {}),
    ],
)
@pytest.mark.parametrize("frames", [1, 4])
def test_published_backbones_by_name(name, small, frames):
    model = create_backbone(name, num_frames=frames, **small).eval()
    assert model.num_classes == 0
    with torch.no_grad():
        maps = model.forward_intermediates(torch.randn(1, 3, frames, 64, 96))
    assert [x.shape[1] for x in maps] == [info.channels for info in model.feature_info]
    assert bool(model.output_norms) == (not name.startswith(("vitdet", "hrnet")))


def test_published_filters_of_hornet_detectors():
    model = create_backbone("hornet_gf_t", num_frames=1, base_dim=8)
    sizes = [tuple(stage[0].gnconv.dwconv.complex_weight.shape[2:4]) for stage in model.stages[2:]]
    assert sizes == [(24, 13), (12, 7)]


def test_models_without_published_detectors_are_named():
    with pytest.raises(ConfigError, match="no detector is published on videomae_b"):
        create_backbone("videomae_b")
