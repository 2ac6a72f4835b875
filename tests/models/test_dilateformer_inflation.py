"""A still clip through an inflated DilateFormer gives the logits of its image."""

import pytest
import torch

from tests.models.invariants import (
    assert_still_clips_are_images,
    assert_temporal_parameters_learn,
    relative_error,
)
from videonet.models import create_model
from videonet.models.dilateformer import MODELS

SMALL = {"embed_dim": 12, "depths": (1, 1, 2, 1), "num_heads": (3, 3, 6, 6)}
CROP = 64


def image_and_video(name, frames, **arguments):
    arguments = {"num_classes": 7, "crop_size": CROP} | arguments
    return [create_model(name, num_frames=n, **arguments) for n in (1, frames)]


@pytest.mark.parametrize("frames", [2, 3, 4, 8])
@pytest.mark.parametrize("size", [(CROP, CROP), (96, 48)], ids=["built", "other"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temporal_dilation": (1, 2, 3), "temporal_stride": 1},
        {"temporal_kernel": 5, "temporal_dilation": 2},
        {"tokenizer": "patches", "merging_way": "conv2_2", "positions_per_stage": True},
        {"tokenizer": "pointwise", "dilate_attention": (False, True, True, True)},
    ],
    ids=["published", "dilated in time", "five frames", "patches", "windows last"],
)
def test_a_still_clip_has_the_logits_of_its_image(frames, size, options):
    image, video = image_and_video("dilateformer_t", frames, **SMALL, **options)
    report = assert_still_clips_are_images(image, video, frames, size, seed=frames)
    assert report.inflated and not report.notes


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(MODELS))
def test_the_law_at_published_depth(name):
    image, video = image_and_video(name, 4, embed_dim=24)
    assert_still_clips_are_images(image, video, 4, (CROP, CROP))


def test_features_of_a_still_clip_are_those_of_its_image_in_every_frame():
    image, video = image_and_video("dilateformer_t", 8, **SMALL)
    assert_still_clips_are_images(image, video, 8, (CROP, CROP))
    picture = torch.randn(1, 3, 1, CROP, CROP)
    with torch.no_grad():
        flat = image.forward_intermediates(picture)
        deep = video.forward_intermediates(picture.expand(-1, -1, 8, -1, -1))
    for one, many in zip(flat, deep, strict=True):
        assert many.shape[2] == 4
        assert relative_error(many, one.expand_as(many)) <= 1e-4


def test_temporal_taps_learn_from_the_first_step():
    image, video = image_and_video("dilateformer_t", 8, **SMALL)
    assert_still_clips_are_images(image, video, 8, (CROP, CROP))
    kernels = [n for n, p in video.named_parameters() if p.dim() == 5 and p.shape[2] > 1]
    assert len(kernels) == 6  # the tokenizer's first and each block's positions
    clip = torch.randn(2, 3, 8, CROP, CROP)
    assert_temporal_parameters_learn(video, 8, (CROP, CROP), kernels)
    video.zero_grad()
    video(clip).square().sum().backward()
    for name in kernels:
        gradient = video.get_parameter(name).grad
        assert all(gradient[:, :, t].abs().sum() > 0 for t in (0, 2)), name


def test_moving_clips_differ_from_their_frames_in_any_order():
    """Windows see neighbouring frames before the temporal taps have learnt anything."""
    image, video = image_and_video("dilateformer_t", 8, **SMALL)
    assert_still_clips_are_images(image, video, 8, (CROP, CROP))
    clip = torch.randn(1, 3, 8, CROP, CROP)
    with torch.no_grad():
        shuffled = video(clip[:, :, [0, 4, 2, 6, 1, 5, 3, 7]])
        assert relative_error(shuffled, video(clip)) > 1e-3
