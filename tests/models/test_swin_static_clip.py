"""Swin: a clip that repeats one image has the logits of that image."""

import pytest
import torch

from tests.models.invariants import (
    assert_still_clips_are_images,
    assert_temporal_parameters_learn,
    randomise,
    relative_error,
    still_clip_logits,
)
from videonet.checkpoint import load_checkpoint
from videonet.models import create_model
from videonet.models.swin import MODELS, VARIANTS

CROP = 64
SHALLOW = {"depths": (2, 2, 2, 2)}


def pair(name, frames, crop=CROP, **overrides):
    """Image and video model of one narrow size."""
    stages = len(VARIANTS[name]["depths"])
    narrow = {"num_classes": 11, "crop_size": crop, "embed_dim": 4 * VARIANTS[name]["num_heads"][0]}
    arguments = narrow | (SHALLOW if stages == 4 else {}) | overrides
    image = create_model(name, num_frames=1, **arguments)
    return image, create_model(name, num_frames=frames, **arguments)


@pytest.mark.parametrize("frames", [2, 4, 8, 16])
@pytest.mark.parametrize("size", [(CROP, CROP), (96, 48), (80, 112)], ids=str)
@pytest.mark.parametrize("name", ["swin_xs", "swin_t"])
def test_a_still_clip_has_the_logits_of_its_image(name, frames, size):
    report = assert_still_clips_are_images(*pair(name, frames), frames, size, seed=frames)
    assert report.inflated and not report.notes
    assert not report.reinitialised and not report.interpolated


def test_the_law_holds_where_windows_shift_in_time():
    image, video = pair("swin_t", 32, depths=(2, 2), num_heads=(2, 4), embed_dim=8)
    plan = video.layers[0].plans(torch.zeros(1, 16, 16, 16, 1))[1]
    assert plan.windows.shift == (4, 3, 3)
    assert_still_clips_are_images(image, video, 32, (CROP, CROP))


@pytest.mark.parametrize("rule", ["swin", "torchvision"])
def test_the_law_holds_for_the_rules_of_both_image_codes(rule):
    for size in ((CROP, CROP), (96, 48)):
        assert_still_clips_are_images(*pair("swin_t", 8, window_rule=rule), 8, size)


def test_the_official_video_index_breaks_the_law_on_small_grids_only():
    image, video = pair("swin_t", 8, 56, window_rule="video_swin", depths=(2, 2), num_heads=(2, 4))
    assert_still_clips_are_images(image, video, 8, (56, 56))  # 14x14, then 7x7 cells
    expected, found, _ = still_clip_logits(image, video, 8, (40, 40))  # 10x10, then 5x5
    assert relative_error(found, expected) > 1e-3


def test_a_clip_padded_in_time_is_the_official_one_and_no_image():
    image, video = pair("swin_t", 24)  # 12 cells in windows of 8
    expected, found, _ = still_clip_logits(image, video, 24, (CROP, CROP))
    assert relative_error(found, expected) > 1e-4


def test_the_law_holds_with_absolute_positions():
    image, video = pair("swin_t", 8, use_abs_pos=True)
    report = assert_still_clips_are_images(image, video, 8, (CROP, CROP))
    assert "pos_embed_temporal" in report.inflated
    assert_temporal_parameters_learn(video, 8, (CROP, CROP), ["pos_embed_temporal"])


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(MODELS))
def test_the_law_at_published_depth_and_size(name):
    crop = VARIANTS[name].get("crop_size", 224)
    image, video = pair(name, 4, crop, depths=VARIANTS[name]["depths"])
    assert_still_clips_are_images(image, video, 4, (crop, crop))


def test_every_temporal_offset_and_tap_learns_at_the_first_step():
    image, video = pair("swin_t", 8)
    load_checkpoint(video, randomise(image).state_dict())
    names = [n for n, _ in video.named_parameters() if n.endswith("bias_table")]
    assert_temporal_parameters_learn(video, 8, (CROP, CROP), ["patch_embed.proj.weight", *names])
    stage = video.layers[0]
    gradient = stage.blocks[0].attn.relative_position_bias_table.grad
    by_offset = gradient.unflatten(0, [2 * w - 1 for w in stage.window]).abs().sum((1, 2, 3))
    assert (by_offset[4:11] > 0).all()  # 4 frames of cells have offsets -3 to 3
    assert (video.patch_embed.proj.weight.grad.abs().sum((0, 1, 3, 4)) > 0).all()


def test_features_of_a_still_clip_are_those_of_its_image_in_every_frame():
    image, video = pair("swin_t", 8)
    load_checkpoint(video.eval(), randomise(image).state_dict())
    picture = torch.randn(1, 3, 1, CROP, CROP)
    with torch.no_grad():
        flat = image.forward_intermediates(picture)
        deep = video.forward_intermediates(picture.expand(-1, -1, 8, -1, -1))
    for one, many in zip(flat, deep, strict=True):
        assert relative_error(many, one.expand_as(many)) <= 1e-4
