"""Swin's own options: what is refused, and what the windows follow."""

import pytest
import torch

import videonet
from tests.models.families import small_model
from videonet.errors import ConfigError


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"cls_token": True}, "no class token"),
        ({"window_rule": "fits"}, "window_rule is 'fits', expected one of fit, swin"),
        ({"num_heads": (1, 2)}, "depths has 4 stages, but num_heads 2"),
        ({"embed_dim": 10}, "width 10 of stage 0 is no multiple of its 3 heads"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ConfigError, match=message):
        videonet.create_model("swin_t", **arguments)


def test_frames_smaller_than_a_patch_are_named():
    with pytest.raises(ConfigError, match="2 pixels high"):
        small_model("swin_t")(torch.randn(1, 3, 4, 2, 64))


def test_no_class_token_may_be_said():
    for cls_token in (None, False):
        assert small_model("swin_t", cls_token=cls_token).cls_token is None


def test_windows_are_no_larger_than_the_grid_they_are_built_for():
    model = small_model("swin_t", crop_size=(64, 128))
    assert [stage.window for stage in model.layers] == [
        (8, 7, 7),
        (8, 7, 7),
        (8, 4, 7),
        (8, 2, 4),
    ]


def test_one_image_and_a_still_moment_differ_from_motion():
    """The order of frames matters: reversed in time, a clip gives other logits."""
    model = small_model("swin_t", num_frames=8).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        clip = torch.randn(1, 3, 8, 64, 64)
        assert not torch.allclose(model(clip), model(clip.flip(2)), atol=1e-3)


def test_attention_stays_within_windows_and_crosses_them_by_the_shift():
    """A change at one pixel reaches its own window in the first block, the next in the second."""
    model = small_model("swin_t", num_frames=1, depths=(2,), num_heads=(2,), window_size=(1, 4, 4))
    stage = model.layers[0].eval()
    x = torch.randn(1, 1, 16, 16, 24, requires_grad=True)
    still, shifted = stage.plans(x)
    for plans, reach in (((still,), (0, 4)), ((still, shifted), (0, 8))):
        y = x
        for block, plan in zip(stage.blocks, plans, strict=False):
            y = block(y, plan)
        (gradient,) = torch.autograd.grad(y[0, 0, 2, 2].sum(), x, retain_graph=True)
        rows = gradient[0, 0].abs().sum((1, 2)).nonzero().flatten().tolist()
        assert rows == list(range(*reach))
