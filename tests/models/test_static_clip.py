"""The static-clip law: a clip that repeats one image has the logits of that image."""

import pytest
import torch

from tests.models.invariants import randomise, relative_error, still_clip_logits
from videonet.checkpoint import load_checkpoint
from videonet.models import create_model
from videonet.models.mvit import MODELS, V1_VARIANTS, V2_VARIANTS

CROP = 64
# What the image papers set otherwise than the video papers.
AS_IMAGE = {"pool_kv_stride_adaptive": (1, 4, 4)}
SHALLOW = {  # in place of the deep plans
    "depth": 4,
    "dim_mul": {1: 2.0, 3: 2.0},
    "head_mul": {1: 2.0, 3: 2.0},
    "pool_q_stride": {0: (1, 1, 1), 1: (1, 2, 2), 2: (1, 1, 1), 3: (1, 2, 2)},
}
VARIANTS = V1_VARIANTS | V2_VARIANTS


def settings(name, deepest=16):
    """Arguments of the narrow image model `name` that make its video model the same but for T."""
    variant = VARIANTS[name]
    arguments = {
        "cls_token": name in V1_VARIANTS,
        "embed_dim": 12 * variant.get("num_heads", 1),
        "num_classes": 11,
        "crop_size": CROP,
    }
    shallow = SHALLOW if variant["depth"] > deepest else {}
    return arguments | shallow | variant.get("image", {})


def image_and_clip_logits(name, frames, size, seed=0, deepest=16, **overrides):
    arguments = settings(name, deepest) | overrides
    image = create_model(name, num_frames=1, **arguments)
    video = create_model(name, num_frames=frames, **(AS_IMAGE | arguments))
    return still_clip_logits(image, video, frames, size, seed)


def without_class_token(name):
    return not settings(name)["cls_token"]


@pytest.mark.parametrize("frames", [2, 4, 8, 16])
@pytest.mark.parametrize("size", [(CROP, CROP), (96, 48)], ids=["built", "other"])
@pytest.mark.parametrize("name", sorted(filter(without_class_token, MODELS)))
def test_a_still_clip_has_the_logits_of_its_image(name, frames, size):
    image, clip, report = image_and_clip_logits(name, frames, size, seed=frames)
    assert relative_error(clip, image) <= 1e-4
    assert report.inflated and not report.notes


@pytest.mark.parametrize("frames", [2, 4, 8, 16])
@pytest.mark.parametrize("size", [(CROP, CROP), (96, 48)], ids=["built", "other"])
@pytest.mark.parametrize("name", sorted(MODELS))
def test_the_frame_constant_makes_it_exact_with_a_class_token(name, frames, size):
    image, clip, report = image_and_clip_logits(
        name, frames, size, seed=frames, cls_token=True, cls_key_log_frames=True
    )
    assert relative_error(clip, image) <= 1e-4
    assert not report.notes


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(MODELS))
def test_the_law_at_published_depth(name):
    options = {"cls_key_log_frames": True} if settings(name)["cls_token"] else {}
    image, clip, _ = image_and_clip_logits(name, 4, (CROP, CROP), deepest=1000, **options)
    assert relative_error(clip, image) <= 1e-4


@pytest.mark.parametrize("name", ["mvit_v1_b", "mvit_v2_h"])
def test_a_class_token_without_the_constant_breaks_the_law_and_is_reported(name):
    image, clip, report = image_and_clip_logits(name, 8, (CROP, CROP))
    assert relative_error(clip, image) > 1e-4
    assert any("class token's keys" in note for note in report.notes)


@pytest.mark.parametrize("mode", ["max", "avg"])
@pytest.mark.parametrize("pool_first", [False, True])
def test_the_law_holds_for_every_pooling(mode, pool_first):
    image, clip, _ = image_and_clip_logits(
        "mvit_v2_s", 8, (CROP, CROP), pool_mode=mode, pool_first=pool_first
    )
    assert relative_error(clip, image) <= 1e-4


@pytest.mark.parametrize("joint", [True, False])
def test_the_law_holds_with_absolute_positions_of_either_kind(joint):
    arguments = settings("mvit_v1_b") | {"cls_token": False}
    image = randomise(create_model("mvit_v1_b", num_frames=1, **arguments), 3)
    options = AS_IMAGE | arguments | {"sep_pos_embed": not joint}
    video = create_model("mvit_v1_b", num_frames=8, **options).eval()
    load_checkpoint(video, image.state_dict())
    picture = torch.randn(1, 3, 1, CROP, CROP)
    with torch.no_grad():
        error = relative_error(video(picture.expand(-1, -1, 8, -1, -1)), image(picture))
    assert error <= 1e-4


def test_features_of_a_still_clip_are_those_of_its_image_in_every_frame():
    arguments = settings("mvit_v2_b")
    image = randomise(create_model("mvit_v2_b", num_frames=1, **arguments), 5)
    video = create_model("mvit_v2_b", num_frames=8, **(AS_IMAGE | arguments)).eval()
    load_checkpoint(video, image.state_dict())
    picture = torch.randn(1, 3, 1, CROP, CROP)
    with torch.no_grad():
        flat = image.forward_intermediates(picture)
        deep = video.forward_intermediates(picture.expand(-1, -1, 8, -1, -1))
    for one, many in zip(flat, deep, strict=True):
        assert relative_error(many, one.expand_as(many)) <= 1e-4


def test_averaged_kernels_break_the_law_only_at_the_ends():
    """I3D's rule sums to the flat kernel inside the clip; the zero padding in time shows."""
    arguments = settings("mvit_v2_s")
    image = randomise(create_model("mvit_v2_s", num_frames=1, **arguments), 7)
    video = create_model("mvit_v2_s", num_frames=8, **(AS_IMAGE | arguments)).eval()
    report = load_checkpoint(video, image.state_dict(), inflation="average")
    assert any("ends" in note for note in report.notes)
    clip = torch.randn(1, 3, 1, CROP, CROP).expand(-1, -1, 8, -1, -1)
    with torch.no_grad():
        stem = video.patch_embed.proj(clip)
        flat = image.patch_embed.proj(clip[:, :, :1])
        assert relative_error(stem[:, :, 1:], flat.expand_as(stem)[:, :, 1:]) <= 1e-5
        assert relative_error(stem[:, :, :1], flat) > 1e-2
        assert relative_error(video(clip), image(clip[:, :, :1])) > 1e-4
