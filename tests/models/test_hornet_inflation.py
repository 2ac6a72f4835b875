"""A still clip through an inflated HorNet gives the logits of its image."""

import pytest
import torch

from tests.models.invariants import (
    assert_still_clips_are_images,
    assert_temporal_parameters_learn,
    relative_error,
)
from videonet.checkpoint import load_checkpoint
from videonet.errors import CheckpointError
from videonet.models import create_model
from videonet.models.hornet import MODELS

SMALL = {"base_dim": 8, "depths": (1, 1, 2, 1)}
CROP = 64


def image_and_video(name, frames, crop_size=CROP, **arguments):
    arguments = {"num_classes": 7} | arguments
    image = create_model(name, num_frames=1, crop_size=CROP, **arguments)
    return image, create_model(name, num_frames=frames, crop_size=crop_size, **arguments)


@pytest.mark.parametrize("frames", [2, 3, 4, 8])
@pytest.mark.parametrize("size", [(CROP, CROP), (96, 48)], ids=["built", "other"])
@pytest.mark.parametrize("name", ["hornet_t", "hornet_gf_t"])
def test_a_still_clip_has_the_logits_of_its_image(name, frames, size):
    image, video = image_and_video(name, frames, **SMALL)
    report = assert_still_clips_are_images(image, video, frames, size, seed=frames)
    assert report.inflated and not report.notes


@pytest.mark.parametrize("name", ["hornet_t", "hornet_gf_t"])
def test_the_law_holds_with_other_temporal_kernels_and_strides(name):
    image, video = image_and_video(name, 8, temporal_kernel=5, temporal_stride=1, **SMALL)
    assert_still_clips_are_images(image, video, 8, (CROP, CROP))


def test_the_law_holds_for_a_video_model_built_for_another_resolution():
    """The image model resizes its filters at run time, the loader by the same rule."""
    size = (96, 128)
    image, video = image_and_video("hornet_gf_t", 8, crop_size=size, **SMALL)
    report = assert_still_clips_are_images(image, video, 8, size)
    filters = [n for n, _ in video.named_parameters() if n.endswith("complex_weight")]
    assert report.interpolated == filters and len(filters) == 3


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(MODELS))
def test_the_law_at_published_depth(name):
    image, video = image_and_video(name, 4, base_dim=16)
    assert_still_clips_are_images(image, video, 4, (CROP, CROP))


def test_features_of_a_still_clip_are_those_of_its_image_in_every_frame():
    image, video = image_and_video("hornet_gf_t", 8, **SMALL)
    assert_still_clips_are_images(image, video, 8, (CROP, CROP))
    picture = torch.randn(1, 3, 1, CROP, CROP)
    with torch.no_grad():
        flat = image.forward_intermediates(picture)
        deep = video.forward_intermediates(picture.expand(-1, -1, 8, -1, -1))
    for one, many in zip(flat, deep, strict=True):
        assert many.shape[2] == 4
        assert relative_error(many, one.expand_as(many)) <= 1e-4


def test_inflated_filters_are_constant_over_temporal_frequencies():
    image, video = image_and_video("hornet_gf_t", 8, **SMALL)
    report = load_checkpoint(video, image.state_dict())
    name = "stages.2.0.gnconv.dwconv.complex_weight"
    flat, deep = image.get_parameter(name), video.get_parameter(name)
    assert name in report.inflated and deep.shape[1] == 4
    assert torch.equal(deep, flat.expand_as(deep))


def test_temporal_parts_learn_from_the_first_step():
    image, video = image_and_video("hornet_gf_t", 8, **SMALL)
    assert_still_clips_are_images(image, video, 8, (CROP, CROP))
    kernels = [
        n
        for n, p in video.named_parameters()
        if n.endswith(".weight") and p.dim() == 5
        if p.shape[2] > 1
    ]
    filters = [n for n, _ in video.named_parameters() if n.endswith("complex_weight")]
    assert len(kernels) == 6 and len(filters) == 3
    assert_temporal_parameters_learn(video, 8, (CROP, CROP), kernels + filters)
    for name in kernels:
        gradient = video.get_parameter(name).grad
        assert all(gradient[:, :, t].abs().sum() > 0 for t in (0, 2)), name
    for name in filters:
        gradient = video.get_parameter(name).grad
        apart = gradient - gradient.mean(dim=1, keepdim=True)
        assert apart.abs().max() > 1e-3 * gradient.abs().max(), name


def test_a_filter_of_another_width_does_not_fit():
    image, video = image_and_video("hornet_gf_t", 8, **SMALL)
    state = image.state_dict()
    name = "stages.2.0.gnconv.dwconv.complex_weight"
    state[name] = state[name][:-1]
    with pytest.raises(CheckpointError, match=name):
        load_checkpoint(video, state)
