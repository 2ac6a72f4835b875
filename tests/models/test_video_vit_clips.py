"""The video ViTs at other lengths and sizes, and what they take from image checkpoints."""

import pytest
import torch
import torch.nn.functional as F

from tests.models.invariants import (
    TOLERANCE,
    assert_still_clips_are_images,
    randomise,
    relative_error,
)
from videonet.checkpoint import load_checkpoint
from videonet.errors import CheckpointError, ConfigError
from videonet.models import create_model
from videonet.models.positions import sine_positions

SMALL = {"embed_dim": 24, "depth": 2, "num_heads": 3, "patch_size": 8, "num_classes": 7}
FIXED = {"sine_grid": (4, 4, 4)}
NAMES = ("timesformer_b", "vivit_b", "videomae_b", "mae_b", "dinov2_reg_b")


def small(name, frames=8, size=32, **changes):
    arguments = SMALL | (FIXED if name == "videomae_b" and frames > 1 else {})
    return create_model(name, **arguments | {"num_frames": frames, "crop_size": size} | changes)


@pytest.mark.parametrize(("frames", "size"), [(8, 48), (16, 32), (4, 32), (8, (32, 48))], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_loading_for_another_clip_is_running_that_clip(name, frames, size):
    """Positions resized once, when they are loaded, or at every call: the same logits."""
    source = randomise(small(name))
    target = small(name, frames, size).eval()
    report = load_checkpoint(target, source.state_dict())
    tables = {n for n in source.state_dict() if "pos_embed" in n and "class" not in n}
    assert set(report.interpolated) <= tables and not report.missing and not report.unexpected
    assert bool(report.interpolated) == bool(tables)
    height, width = (size, size) if isinstance(size, int) else size
    clip = torch.randn(2, 3, frames, height, width)
    with torch.no_grad():
        assert relative_error(target(clip), source(clip)) <= TOLERANCE


def test_a_joint_table_is_resized_along_time_height_and_width():
    model = randomise(small("vivit_b"))
    table = model.pos_embed[:, 1:].detach().unflatten(1, (4, 4, 4))  # (1, T, H, W, C)
    found = model.absolute_positions((8, 6, 4))[:, 1:]
    frames = table[0].permute(0, 3, 1, 2)
    frames = F.interpolate(frames, size=(6, 4), mode="bicubic", antialias=True)
    expected = F.interpolate(frames.flatten(1).T[None], size=8, mode="linear")[0].T
    expected = expected.unflatten(1, (24, 24)).permute(0, 2, 1).flatten(0, 1)
    torch.testing.assert_close(found[0], expected, atol=1e-5, rtol=1e-5)


def test_a_joint_table_of_another_length_and_size_needs_its_grid():
    source = randomise(small("vivit_b"))
    target = small("vivit_b", 16, 48).eval()
    with pytest.raises(CheckpointError, match="cannot tell its grid.*position_grid"):
        load_checkpoint(target, source.state_dict())
    with pytest.raises(CheckpointError, match=r"65, .*position_grid is \(4, 4, 5\)"):
        load_checkpoint(target, source.state_dict(), position_grid=(4, 4, 5))
    report = load_checkpoint(target, source.state_dict(), position_grid=(4, 4, 4))
    assert report.interpolated == ["pos_embed"]
    clip = torch.randn(1, 3, 16, 48, 48)
    with torch.no_grad():
        assert relative_error(target(clip), source(clip)) <= TOLERANCE


def test_fixed_positions_number_the_cells_and_follow_the_clip():
    model = small("videomae_b")
    assert not [name for name in model.state_dict() if "pos" in name]
    own = model.absolute_positions((4, 4, 4))
    assert torch.equal(own, sine_positions((4, 4, 4), 24))
    assert torch.equal(own[0, 5, 0], torch.tensor(5.0, dtype=torch.float64).sin().float())
    longer = model.absolute_positions((8, 4, 4)).unflatten(1, (8, 16))
    expected = own.unflatten(1, (4, 16))
    torch.testing.assert_close(longer[:, 0], expected[:, 0])  # not those of a grid of 8 frames
    torch.testing.assert_close(longer[:, 1], 0.75 * expected[:, 0] + 0.25 * expected[:, 1])


def test_nearest_positions_are_those_of_the_nearest_cell():
    model = randomise(small("timesformer_b"))
    space, time = model.pos_embed_spatial.unflatten(1, (4, 4)), model.pos_embed_temporal
    found = model.absolute_positions((16, 8, 4))[:, 1:].unflatten(1, (16, 8, 4))
    assert torch.equal(found[0, 5, 7, 2], time[0, 2] + space[0, 3, 2])
    with pytest.raises(ConfigError, match="position_resize is 'cubic', expected bicubic or"):
        small("vit_b", position_resize="cubic")


@pytest.mark.parametrize("frames", [2, 4, 8])
@pytest.mark.parametrize("size", [(32, 32), (48, 40)], ids=["built", "other"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("videomae_b", {"sine_grid": None}),
        ("videomae_b", {"sine_grid": None, "cos_attn": True}),
        ("mae_b", {"cls_key_log_frames": True}),
        ("vivit_b", {"cls_key_log_frames": True}),
        ("dinov2_reg_g", {"cls_key_log_frames": True}),
        ("timesformer_b", {}),
    ],
    ids=str,
)
def test_a_still_clip_has_the_logits_of_its_image(name, options, size, frames):
    arguments = SMALL | {"crop_size": 32} | options
    image = create_model(name, num_frames=1, **arguments)
    report = assert_still_clips_are_images(
        image, create_model(name, num_frames=frames, **arguments), frames, size, seed=frames
    )
    assert report.inflated and not report.notes


def test_an_image_vit_becomes_a_videomae():
    """Its class token goes, its head and the norm before it are new, the key bias cancels."""
    image = randomise(create_model("vit_b", num_frames=1, crop_size=32, **SMALL))
    clip = small("videomae_b", num_classes=5)
    state = {n.replace("head.projection", "head"): t for n, t in image.state_dict().items()}
    report = load_checkpoint(clip, state)
    assert report.dialect == "timm vit" and not report.missing and not report.unexpected
    assert set(report.dropped) == {"cls_token", "pos_embed"} | {
        f"{layer}.{leaf}" for layer in ("norm", "head") for leaf in ("weight", "bias")
    }
    assert any("positions are fixed" in note for note in report.notes)
    for ours, theirs in zip(clip.blocks, image.blocks, strict=True):
        query, _, value = theirs.attn.qkv.bias.chunk(3)
        assert torch.equal(ours.attn.q_bias, query) and torch.equal(ours.attn.v_bias, value)


@pytest.mark.parametrize("key_bias", [True, False])
def test_a_bias_of_the_keys_changes_nothing_and_converts(key_bias):
    source = randomise(small("videomae_b", key_bias=key_bias))
    target = small("videomae_b", key_bias=not key_bias).eval()
    report = load_checkpoint(target, source.state_dict())
    assert not report.missing and not report.unexpected and not report.reinitialised
    clip = torch.randn(1, 3, 8, 32, 32)
    with torch.no_grad():
        assert relative_error(target(clip), source(clip)) <= TOLERANCE


@pytest.mark.parametrize("normed", [{"cos_attn": True}, {"qk_norm": True}], ids=str)
def test_where_a_bias_of_the_keys_matters_it_is_not_left_out(normed):
    source = small("videomae_b", key_bias=True, **normed)
    with pytest.raises(CheckpointError, match=r"missing .*q_bias"):
        load_checkpoint(small("videomae_b", **normed), source.state_dict())


def test_a_norm_before_a_pooling_is_none_behind_it():
    """Where the head is kept; of names that PySlowFast has too, the report says what it took."""
    state = create_model("vit_b", num_frames=1, crop_size=32, **SMALL).state_dict()
    model = create_model("mae_b", num_frames=1, crop_size=32, **SMALL)
    with pytest.raises(CheckpointError, match=r"missing \(fc_norm"):
        load_checkpoint(model, {"format": "videonet", "model_state": state})
    report = load_checkpoint(model, state)
    assert torch.equal(model.fc_norm.weight, state["norm.weight"])
    assert "norm is taken for the norm behind the pooling, as pyslowfast has it" in report.notes


def test_wrong_options_are_named():
    with pytest.raises(ConfigError, match="'token_avg' reads the class token"):
        small("videomae_b", pooling="token_avg")
    with pytest.raises(ConfigError, match="swiglu halves the MLP's width of 63"):
        small("vit_b", activation="swiglu", mlp_ratio=63 / 24)
