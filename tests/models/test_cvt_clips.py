"""CvT as a video model: the static-clip law and the learning of temporal taps."""

import pytest
import torch

from tests.models.invariants import (
    TOLERANCE,
    assert_still_clips_are_images,
    assert_temporal_parameters_learn,
    randomise,
    relative_error,
    still_clip_logits,
)
from videonet.checkpoint import load_checkpoint
from videonet.errors import ConfigError
from videonet.models import create_model
from videonet.models.cvt import MODELS, VARIANTS

SIDE = 64
SMALL = {"depths": (1, 1, 2), "embed_dims": (16, 32, 48), "num_heads": (1, 2, 3)}
SMALL |= {"num_classes": 7, "crop_size": SIDE}
EXACT = {
    "mean of the cells": {"cls_token": False},
    "class token": {"cls_key_log_frames": True},
    "class token in every stage": {"cls_token": (True,) * 3, "cls_key_log_frames": True},
    "average projections": {"cls_token": False, "projection": "avg"},
    "five taps": {"cls_token": False, "temporal_kernel": 5},
    "strides in time": {"cls_token": False, "temporal_stride": (2, 1, 1)},
}


def pair(frames, **options):
    """The image model and the clip model of the same options."""
    arguments = SMALL | options
    image = create_model("cvt_13", num_frames=1, **(arguments | {"temporal_kernel": 1}))
    return image, create_model("cvt_13", num_frames=frames, **arguments)


@pytest.mark.parametrize("frames", [2, 4, 8])
@pytest.mark.parametrize("size", [(SIDE, SIDE), (84, 52)], ids=["built", "other"])
@pytest.mark.parametrize("options", EXACT.values(), ids=EXACT)
def test_a_still_clip_has_the_logits_of_its_image(options, frames, size):
    report = assert_still_clips_are_images(*pair(frames, **options), frames, size, seed=frames)
    assert report.inflated and not report.notes


def test_a_bare_class_token_breaks_the_law_and_is_reported():
    image, clip, report = still_clip_logits(*pair(8), 8, (SIDE, SIDE))
    assert relative_error(clip, image) > TOLERANCE
    assert any("class token's keys" in note for note in report.notes)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(MODELS))
def test_the_law_at_published_width(name):
    stages = len(VARIANTS[name].get("depths", (1, 2, 10)))
    arguments = {"depths": (1,) * stages, "crop_size": SIDE, "cls_key_log_frames": True}
    image = create_model(name, num_frames=1, **arguments)
    video = create_model(name, num_frames=4, **arguments)
    assert_still_clips_are_images(image, video, 4, (SIDE, SIDE))


def test_features_of_a_still_clip_are_those_of_its_image_in_every_frame():
    image, video = pair(4, cls_token=False)
    load_checkpoint(video.eval(), randomise(image).state_dict())
    picture = torch.randn(1, 3, 1, SIDE, SIDE)
    with torch.no_grad():
        flat = image.forward_intermediates(picture)
        deep = video.forward_intermediates(picture.expand(-1, -1, 4, -1, -1))
    for one, many in zip(flat, deep, strict=True):
        assert relative_error(many, one.expand_as(many)) <= TOLERANCE


def test_taps_in_time_learn_from_the_first_step():
    image, video = pair(4, cls_token=False)
    load_checkpoint(video, randomise(image).state_dict())
    kernels = {n: p for n, p in video.named_parameters() if p.dim() == 5 and p.shape[2] == 3}
    assert len(kernels) == 3 + 3 * 4  # embeddings, and q, k and v of four blocks
    assert_temporal_parameters_learn(video, 4, (SIDE, SIDE), list(kernels))
    for name, kernel in kernels.items():
        assert not kernel[:, :, [0, 2]].any()
        assert (kernel.grad.abs().sum(dim=(0, 1, 3, 4)) > 0).all(), name


def test_paths_are_dropped_in_the_last_stage_alone():
    """As in the official configs: DROP_PATH_RATE [0, 0, 0.1]."""
    model = create_model("cvt_13", **SMALL, drop_path_rate=0.1)
    rates = [[block.drop_path.p for block in stage.blocks] for stage in model.stages]
    assert rates == [[0.0], [0.0], [0.0, 0.1]]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"embed_dims": (16, 32)}, "dim is .16, 32., but there are 3 stages"),
        ({"projection": "linear"}, "projection is 'linear', expected dw_bn or avg"),
        ({"activation": "tanh"}, "activation is 'tanh', expected one of gelu"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        create_model("cvt_13", **(SMALL | options))


def test_frames_that_are_too_small_are_named():
    with pytest.raises(ConfigError, match="2 pixels wide"):
        create_model("cvt_13", **SMALL)(torch.randn(1, 3, 4, SIDE, 2))
