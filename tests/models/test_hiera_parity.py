"""Hiera against recorded outputs of its repository, and against live peers."""

import pytest
import torch

from tests.models.invariants import (
    TOLERANCE,
    Logits,
    assert_everything_loaded,
    assert_same_logits,
    randomise,
    read_record,
    relative_error,
)
from videonet.checkpoint import load_checkpoint
from videonet.models import create_model

RECORDS = ["eps_probe", "image", "q_pool2", "rect", "tiny"]
RENAMED = {"stages": "depths", "mask_unit_size": "mask_unit"}


def model_of(constructor):
    """Our model for the official ``Hiera(**constructor)``."""
    arguments = dict(constructor)
    *frames, height, width = arguments.pop("input_size")
    arguments = {RENAMED.get(key, key): value for key, value in arguments.items()}
    for key in [key for key in arguments if key.startswith("decoder_")]:
        del arguments[key]
    arguments |= {"num_frames": frames[0] if frames else 1, "crop_size": (height, width)}
    return create_model("hiera_b", **arguments)


@pytest.mark.parametrize("variant", RECORDS)
def test_recorded_hiera(shared_dir, variant):
    record, tensors, state = read_record(shared_dir / "reference" / "hiera_video" / variant)
    model = model_of(record["constructor"])
    assert sum(p.numel() for p in model.parameters()) == record["num_parameters"]
    report = load_checkpoint(model, {"model_state": state})
    assert report.dialect == "hiera"
    assert_everything_loaded(report, model, state)
    with torch.no_grad():
        maps = model.eval().forward_intermediates(tensors["input"])
        pooled = model.forward_head(model.forward_features(tensors["input"]), pre_logits=True)
        found = {"output": model(tensors["input"]), "feature.norm": pooled}
    for i, volume in enumerate(maps):  # (B, C, T, H, W), of images (B, C, 1, H, W)
        cells = volume.permute(0, 2, 3, 4, 1)
        found[f"feature.{i}"] = cells if record["modality"] == "video" else cells[:, 0]
    assert set(found) == {"output", *record["features"]}
    for name, value in found.items():
        assert value.shape == tensors[name].shape, name
        assert relative_error(value, tensors[name]) <= TOLERANCE, name


def test_a_pretrained_encoder_on_the_units_that_are_kept(shared_dir):
    """The record is of the maps of all stages, fused; with and without the other units' pixels."""
    record, tensors, state = read_record(shared_dir / "reference" / "hiera_video" / "mae")
    model = model_of(record["constructor"]).eval()
    report = load_checkpoint(model, state)
    assert report.dialect == "hiera, pre-trained"
    assert sorted(report.reinitialised) == sorted(
        [*(f"norm.{leaf}" for leaf in ("weight", "bias")), "head.projection.weight"]
        + ["head.projection.bias"]
    )
    others = ("decoder_", "mask_token", "encoder_norm.", "multi_scale_fusion_heads.")
    assert sorted(report.used) == sorted(name for name in state if not name.startswith(others))
    assert not report.unexpected

    fused, sizes = 0.0, ((8, 8), (4, 4), (2, 2), (2, 2))
    with torch.no_grad():
        stages = model.run_stages(tensors["input"], model.run_block, keep=tensors["mask"])
        for i, (stage, size) in enumerate(zip(stages, sizes, strict=True)):
            cells = stage.x.unflatten(2, (1, *size))  # (B, K, t, h, w, C)
            if (kernel := state.get(f"multi_scale_fusion_heads.{i}.weight")) is not None:
                maps = cells.flatten(0, 1).permute(0, 4, 1, 2, 3)
                bias = state[f"multi_scale_fusion_heads.{i}.bias"]
                maps = torch.nn.functional.conv3d(maps, kernel, bias, stride=kernel.shape[2:])
                cells = maps.permute(0, 2, 3, 4, 1).unflatten(0, cells.shape[:2])
            elif i == 2:
                continue  # the fusion takes the maps before each pooling, and the last one
            fused = fused + cells
        weight, bias = (state[f"encoder_norm.{leaf}"] for leaf in ("weight", "bias"))
        found = torch.nn.functional.layer_norm(fused, fused.shape[-1:], weight, bias, 1e-6)
        assert relative_error(found, tensors["feature.encoder"]) <= TOLERANCE
        features = model.forward_features(tensors["input"], tensors["mask"])
    torch.testing.assert_close(features, cells.flatten(1, 4))


def test_every_record_is_tested(shared_dir):
    folder = shared_dir / "reference" / "hiera_video"
    assert {*RECORDS, "mae"} <= {path.stem for path in folder.glob("*.json")}


SMALL = {"embed_dim": 16, "num_heads": 2}


def small_timm(**changes):
    timm_hiera = pytest.importorskip("timm.models.hiera")
    arguments = {"img_size": (64, 96), "num_classes": 7, "stages": (1, 2, 1, 1)} | SMALL
    return timm_hiera.Hiera(**(arguments | changes))


def small_image(**changes):
    arguments = {"crop_size": (64, 96), "num_classes": 7, "depths": (1, 2, 1, 1)} | SMALL
    return create_model("hiera_b", num_frames=1, **(arguments | changes))


@pytest.mark.parametrize(
    "theirs, ours",
    [
        ({}, {}),
        ({"q_pool": 2}, {"q_pool": 2}),
        ({"mask_unit_attn": (True, False, True, False)},) * 2,
        ({"mlp_ratio": 2.5, "num_heads": 1}, {"mlp_ratio": 2.5, "num_heads": 1}),
        (
            {"abs_win_pos_embed": True, "global_pos_size": (7, 5), "init_values": 0.1},
            {"global_pos_size": (7, 5), "layer_scale": 0.1},
        ),
        (
            {"abs_win_pos_embed": True, "use_expand_proj": False},
            {"global_pos_size": (14, 14), "use_expand_proj": False},
        ),
    ],
    ids=["plain", "two poolings", "stages within units", "widths", "window", "window, no linear"],
)
def test_small_timm(theirs, ours):
    assert_same_logits(small_image(**ours), small_timm(**theirs), (2, 3, 64, 96), "timm hiera")


def test_small_timm_video():
    clips = {
        "patch_kernel": (3, 7, 7),
        "patch_stride": (2, 4, 4),
        "patch_padding": (1, 3, 3),
        "q_stride": (1, 2, 2),
        "mask_unit_size": (1, 8, 8),
        "sep_pos_embed": True,
    }
    peer = small_timm(img_size=(6, 64, 96), **clips)
    model = create_model(
        "hiera_b", num_frames=6, crop_size=(64, 96), num_classes=7, depths=(1, 2, 1, 1), **SMALL
    )
    assert_same_logits(model, peer, (2, 3, 6, 64, 96), "timm hiera")


def test_timm_without_a_classifier():
    peer, model = small_timm(num_classes=0), small_image()
    report = load_checkpoint(model, randomise(peer).state_dict())
    assert report.dialect == "timm hiera" and not report.unexpected
    assert report.reinitialised == ["head.projection.weight", "head.projection.bias"]


def small_transformers(kind="HieraForImageClassification"):
    transformers = pytest.importorskip("transformers")
    config = transformers.HieraConfig(
        embed_dim=16,
        num_heads=[2, 4, 8, 16],
        depths=[1, 2, 1, 1],
        image_size=[64, 64],
        num_labels=7,
        decoder_hidden_size=16,
        decoder_depth=1,
        decoder_num_heads=2,
    )
    return getattr(transformers, kind)(config)


def test_small_transformers():
    peer = Logits(small_transformers())
    assert_same_logits(small_image(crop_size=64), peer, (2, 3, 64, 64), "transformers hiera")


@pytest.mark.parametrize(
    "kind, dialect, new",
    [
        ("HieraModel", "transformers hiera", []),
        ("HieraForPreTraining", "transformers hiera, pre-trained", ["norm.weight", "norm.bias"]),
    ],
)
def test_transformers_without_a_classifier(kind, dialect, new):
    peer, model = randomise(small_transformers(kind)), small_image(crop_size=64)
    report = load_checkpoint(model, peer.state_dict())
    assert report.dialect == dialect and not report.unexpected
    assert report.reinitialised == [*new, "head.projection.weight", "head.projection.bias"]


def test_positions_of_transformers_at_another_size():
    """It interpolates them as a whole, which is an option here."""
    peer = randomise(small_transformers())
    options = {"tile_positions": False, "antialias_positions": False}
    built, other = (small_image(crop_size=side, **options).eval() for side in (64, 96))
    assert not load_checkpoint(built, peer.state_dict()).interpolated
    assert load_checkpoint(other, peer.state_dict()).interpolated == ["pos_embed"]
    image = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        positions = peer.hiera.embeddings.interpolate_pos_encoding(
            torch.zeros(1, 24 * 24, 16), peer.hiera.embeddings.position_embeddings, 96, 96
        )
        assert relative_error(built.absolute_positions((1, 24, 24)), positions) <= 1e-5
        assert relative_error(other.pos_embed, positions) <= 1e-5
        assert relative_error(other(image), built(image)) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("size", ["tiny", "small", "base", "base_plus", "large"])
def test_timm_at_full_size(size):
    timm = pytest.importorskip("timm")
    name = "hiera_bp" if size == "base_plus" else f"hiera_{size[0]}"
    model = create_model(name, num_frames=1, num_classes=1000)
    peer = timm.create_model(f"hiera_{size}_224")
    assert_same_logits(model, peer, (1, 3, 224, 224), "timm hiera")


@pytest.mark.slow
def test_timm_with_window_positions_at_full_size():
    timm = pytest.importorskip("timm")
    options = {"global_pos_size": (16, 16), "layer_scale": 1e-5, "use_expand_proj": False}
    model = create_model("hiera_s", num_frames=1, num_classes=1000, crop_size=256, **options)
    peer = timm.create_model("hiera_small_abswin_256")
    assert_same_logits(model, peer, (1, 3, 256, 256), "timm hiera")


@pytest.mark.slow
def test_transformers_at_full_size():
    transformers = pytest.importorskip("transformers")
    config = transformers.HieraConfig(num_labels=1000)
    peer = Logits(transformers.HieraForImageClassification(config))
    model = create_model("hiera_b", num_frames=1, num_classes=1000)
    assert_same_logits(model, peer, (1, 3, 224, 224), "transformers hiera")
