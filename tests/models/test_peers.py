"""Other libraries' MViTs with random weights: after loading, the same logits.

Small ones always; the published sizes are slow.
"""

import pytest
import torch
from torchvision.models.video import mvit as torchvision_mvit

from tests.models.invariants import TOLERANCE, assert_same_logits, randomise
from videonet.checkpoint import load_checkpoint
from videonet.errors import CheckpointError
from videonet.models import create_model

WIDTHS = {"dim_mul": {1: 2.0, 3: 2.0}, "head_mul": {1: 2.0, 3: 2.0}}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mvit_v1_b", "mvit_v2_s"])
def test_torchvision(name):
    peer = getattr(torchvision_mvit, name)()
    assert_same_logits(create_model(name), peer, (1, 3, 16, 224, 224), "torchvision")


SIZES = {"tiny": "t", "small": "s", "base": "b", "large": "l"}


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_timm(size):
    timm = pytest.importorskip("timm")
    model = create_model(f"mvit_v2_{SIZES[size]}", num_frames=1, num_classes=1000)
    assert_same_logits(model, timm.create_model(f"mvitv2_{size}"), (1, 3, 224, 224), "timm")


def small_timm(**changes):
    timm_mvit = pytest.importorskip("timm.models.mvitv2")
    cfg = timm_mvit.MultiScaleVitCfg(
        depths=(1, 2, 1),
        embed_dim=(16, 32, 64),
        num_heads=(1, 2, 4),
        stride_q=((1, 1), (2, 2), (2, 2)),
        stride_kv=((4, 4), (2, 2), (1, 1)),
        **changes,
    )
    return timm_mvit.MultiScaleVit(cfg, img_size=64, num_classes=7)


def small_torchvision(**changes):
    """An MViTv2 of two blocks."""
    cubes, rows = [3, 3, 3], []
    for heads, width, q_stride, kv_stride in ((1, 16, 1, 4), (2, 32, 2, 2)):
        strides = [1, q_stride, q_stride], [1, kv_stride, kv_stride]
        rows.append(torchvision_mvit.MSBlockConfig(heads, 16, width, cubes, cubes, *strides))
    return torchvision_mvit.MViT(
        (64, 64),
        8,
        rows,
        residual_pool=True,
        rel_pos_embed=True,
        proj_after_attn=True,
        num_classes=7,
        **changes,
    )


def small_v2_clip(**changes):
    """The same here."""
    return create_model(
        "mvit_v2_s",
        num_frames=8,
        crop_size=64,
        num_classes=7,
        depth=2,
        embed_dim=16,
        dim_mul={1: 2.0},
        head_mul={1: 2.0},
        pool_q_stride={0: (1, 1, 1), 1: (1, 2, 2)},
        pool_kv_stride_adaptive=(1, 4, 4),
        **changes,
    )


def small_image_v2(**changes):
    return create_model(
        "mvit_v2_s",
        num_frames=1,
        crop_size=64,
        num_classes=7,
        depth=4,
        embed_dim=16,
        **WIDTHS,
        pool_q_stride={0: (1, 1, 1), 1: (1, 2, 2), 2: (1, 1, 1), 3: (1, 2, 2)},
        **changes,
    )


@pytest.mark.parametrize(
    "theirs, ours",
    [
        ({}, {}),
        ({"expand_attn": False}, {"dim_mul_in_att": False}),
        ({"use_abs_pos": True}, {"use_abs_pos": True}),
        (
            {"use_cls_token": True, "residual_pooling": False},
            {"cls_token": True, "residual_pooling": False},
        ),
    ],
    ids=["plain", "wider in the MLP", "absolute positions", "class token"],
)
def test_small_timm(theirs, ours):
    assert_same_logits(small_image_v2(**ours), small_timm(**theirs), (2, 3, 64, 64), "timm")


def test_a_timm_class_token_needs_its_residual():
    """timm adds the class token's query, so its weights mean something else in the other model."""
    theirs = small_timm(use_cls_token=True)
    with pytest.raises(CheckpointError, match="build it with residual_with_cls_token=True"):
        load_checkpoint(small_image_v2(cls_token=True), theirs.state_dict())
    ours = small_image_v2(cls_token=True, residual_with_cls_token=True)
    assert_same_logits(ours, theirs, (2, 3, 64, 64), "timm")


@pytest.mark.parametrize("with_class", [False, True])
def test_a_torchvision_residual_of_the_class_token(with_class):
    """The names are the same for both values of torchvision's option: the report says so."""
    theirs = small_torchvision(residual_with_cls_embed=with_class)
    same, other = (
        small_v2_clip(residual_with_cls_token=value) for value in (with_class, not with_class)
    )
    randomise(theirs, 0)
    clip = torch.randn(2, 3, 8, 64, 64)
    with torch.no_grad():
        expected = theirs.eval()(clip)
        for model, fits in ((same, True), (other, False)):
            report = load_checkpoint(model, theirs.state_dict())
            assert any("residual_with_cls_embed" in note for note in report.notes)
            error = (model.eval()(clip) - expected).abs().max() / expected.abs().max()
            assert (error < 1e-4) == fits


def test_the_residual_of_an_own_state_dict():
    """It looks like PySlowFast's, which has no such option: it loads, and the report says so."""
    model = small_v2_clip(residual_with_cls_token=True)
    report = load_checkpoint(model, small_v2_clip(residual_with_cls_token=True).state_dict())
    assert any("residual_with_cls_token" in note for note in report.notes)
    report = load_checkpoint(small_v2_clip(), small_v2_clip().state_dict())
    assert not any("residual_with_cls_token" in note for note in report.notes)


def small_pytorchvideo(**changes):
    vision_transformers = pytest.importorskip("pytorchvideo.models.vision_transformers")
    settings = {
        "spatial_size": 64,
        "temporal_size": 8,
        "depth": 4,
        "patch_embed_dim": 16,
        "embed_dim_mul": [[1, 2.0], [3, 2.0]],
        "atten_head_mul": [[1, 2.0], [3, 2.0]],
        "pool_q_stride_size": [[1, 1, 2, 2], [3, 1, 2, 2]],
        "pool_kv_stride_adaptive": [1, 8, 8],
        "pool_kvq_kernel": [3, 3, 3],
        "head_num_classes": 7,
    }
    create = vision_transformers.create_multiscale_vision_transformers
    return create(**(settings | changes))


def small_v1(num_frames, **changes):
    strides = {1: (1, 2, 2), 3: (1, 2, 2)}
    settings = {"crop_size": 64, "num_classes": 7, "depth": 4, "embed_dim": 16} | WIDTHS
    return create_model(
        "mvit_v1_b", num_frames=num_frames, pool_q_stride=strides, **(settings | changes)
    )


@pytest.mark.parametrize(
    "theirs, ours",
    [
        ({}, {}),
        ({"cls_embed_on": False}, {"cls_token": False}),
        ({"sep_pos_embed": False}, {"sep_pos_embed": False}),
        ({"enable_patch_embed_norm": True}, {"norm_stem": True}),
        ({"pooling_mode": "max"}, {"pool_mode": "max"}),
        ({}, {"separate_qkv": True}),
    ],
    ids=["plain", "no class token", "joint positions", "stem norm", "max pooling", "q, k, v"],
)
def test_small_pytorchvideo(theirs, ours):
    """Its pooling norms have another eps, so even the weights are not all the same."""
    peer, model = small_pytorchvideo(**theirs), small_v1(8, **ours)
    assert_same_logits(model, peer, (2, 3, 8, 64, 64), "pytorchvideo")


def test_small_pytorchvideo_image_model():
    """A 2D stem and separate positions, where ours has a joint table."""
    peer = small_pytorchvideo(
        temporal_size=1,
        use_2d_patch=True,
        conv_patch_embed_kernel=[7, 7],
        conv_patch_embed_stride=[4, 4],
        conv_patch_embed_padding=[3, 3],
        pool_kv_stride_adaptive=[1, 4, 4],
        pool_kvq_kernel=[1, 3, 3],
    )
    assert_same_logits(small_v1(1), peer, (2, 3, 64, 64), "pytorchvideo")


def test_a_tiny_epsilon_matters():
    """Where the pooled values are small, eps 1e-5 and 1e-6 are different functions."""
    peer, model = small_pytorchvideo(), small_v1(8)
    randomise(peer)
    with torch.no_grad():
        for name, parameter in peer.named_parameters():
            if "pool_" in name:
                parameter.mul_(1e-3)
    report = load_checkpoint(model, peer.state_dict())
    assert any("eps" in note for note in report.notes)
    clip = torch.randn(1, 3, 8, 64, 64)
    with torch.no_grad():
        expected, found = peer(clip), model.eval()(clip)
        for block in model.blocks:
            for p in "qkv":
                if (norm := getattr(block.attn, f"norm_{p}")) is not None:
                    norm.eps = 1e-5
        other = model(clip)
    scale = expected.abs().max()
    assert (found - expected).abs().max() <= TOLERANCE * scale
    assert (other - expected).abs().max() > 100 * TOLERANCE * scale
