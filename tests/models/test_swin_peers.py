"""Other libraries' Swins with random weights: after loading, the same logits."""

import pytest
import torch
from torchvision import models as torchvision_models
from torchvision.models import video as torchvision_video

from tests.models.invariants import assert_same_logits
from videonet.models import create_model

INDEX = ("relative_position_index",)
IMAGE = {"num_frames": 1, "num_classes": 1000}
SMALL = {"embed_dim": 16, "depths": (2, 1, 2), "num_heads": (1, 2, 4)}


@pytest.mark.slow
@pytest.mark.parametrize("size", "tsb")
def test_torchvision_images(size):
    peer = getattr(torchvision_models, f"swin_{size}")()
    model = create_model(f"swin_{size}", **IMAGE)
    assert_same_logits(model, peer, (1, 3, 224, 224), "torchvision_swin", INDEX)


@pytest.mark.slow
@pytest.mark.parametrize("size", "tsb")
def test_torchvision_clips(size):
    peer = getattr(torchvision_video, f"swin3d_{size}")()
    shape = (1, 3, 16, 224, 224)
    assert_same_logits(create_model(f"swin_{size}"), peer, shape, "torchvision_swin", INDEX)


TIMM = {"tiny": "t", "small": "s", "base": "b", "large": "l"}


@pytest.mark.slow
@pytest.mark.parametrize("size", TIMM)
def test_timm(size):
    timm = pytest.importorskip("timm")
    peer = timm.create_model(f"swin_{size}_patch4_window7_224", num_classes=1000)
    model = create_model(f"swin_{TIMM[size]}", **IMAGE)
    assert_same_logits(model, peer, (1, 3, 224, 224), "timm_swin")


@pytest.mark.parametrize("crop, window", [((64, 64), 4), ((64, 96), 8)], ids=["even", "shrinks"])
def test_small_timm(crop, window):
    """Its windows too are no larger than the grid that they are built for.

    Where they do not divide the grid, timm shifts before it pads, which no other code does.
    """
    swin_transformer = pytest.importorskip("timm.models.swin_transformer")
    theirs = {"img_size": crop, "window_size": window, "num_classes": 7}
    peer = swin_transformer.SwinTransformer(**theirs, **SMALL)
    window_size = (1, window, window)
    ours = {"num_frames": 1, "num_classes": 7, "crop_size": crop, "window_size": window_size}
    assert_same_logits(create_model("swin_t", **ours, **SMALL), peer, (2, 3, *crop), "timm_swin")


@pytest.mark.parametrize("size", [(64, 64), (50, 90), (20, 72)], ids=str)
def test_small_torchvision_images(size):
    peer = torchvision_models.swin_transformer.SwinTransformer(
        patch_size=[4, 4], mlp_ratio=3.0, window_size=[4, 4], num_classes=7, **SMALL
    )
    model = create_model(
        "swin_t",
        num_frames=1,
        num_classes=7,
        window_size=(1, 4, 4),
        window_rule="torchvision",
        mlp_ratio=3.0,
        **SMALL,
    )
    assert_same_logits(model, peer, (2, 3, *size), "torchvision_swin", INDEX)


@pytest.mark.parametrize("shape", [(4, 64, 64), (11, 50, 90), (2, 20, 72)], ids=str)
def test_small_torchvision_clips(shape):
    peer = torchvision_video.swin_transformer.SwinTransformer3d(
        patch_size=[2, 4, 4], window_size=[2, 4, 4], num_classes=7, **SMALL
    )
    options = {"window_size": (2, 4, 4), "window_rule": "video_swin", "num_classes": 7}
    model = create_model("swin_t", **options, **SMALL)
    assert_same_logits(model, peer, (1, 3, *shape), "torchvision_swin", INDEX)


def test_the_four_rules_agree_where_no_grid_is_smaller_than_the_window():
    clip = torch.randn(1, 3, 8, 64, 96)
    logits = []
    for rule in ("fit", "swin", "torchvision", "video_swin"):
        torch.manual_seed(0)
        model = create_model(
            "swin_t", num_frames=8, crop_size=64, window_size=(4, 3, 3), window_rule=rule, **SMALL
        )
        with torch.no_grad():
            logits.append(model.eval()(clip))
    for other in logits[1:]:
        assert torch.equal(other, logits[0])
