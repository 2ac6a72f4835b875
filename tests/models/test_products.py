"""Which products torch makes of linear layers."""

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

import videonet

DIVIDED = {"space_time": "divided", "tubelet_frames": 1}
MODELS = [
    ("vit_xs", {}),
    ("vit_xs", DIVIDED),
    ("vit_xs", DIVIDED | {"space_time": "space"}),
    *((name, {}) for name in sorted(videonet.list_models("*_xs")) if name != "vit_xs"),
]


@pytest.mark.parametrize(("name", "arguments"), MODELS)
def test_weights_are_not_copied_for_every_row_of_one_clip(name, arguments):
    """As torch does in inference where the input of a layer is a view with gaps."""
    model = videonet.create_model(
        name, num_classes=3, num_frames=8, crop_size=48, **arguments
    ).eval()
    clip = torch.zeros(1, 3, 8, 48, 48)
    with (
        torch.inference_mode(),
        torch.autocast("cpu", dtype=torch.bfloat16),
        profile(activities=[ProfilerActivity.CPU], record_shapes=True) as record,
    ):
        model(clip)
    copied = [e.input_shapes for e in record.events() if e.name == "aten::bmm" and _of_linear(e)]
    assert not copied


def _of_linear(event) -> bool:
    """Whether a linear layer has made this call."""
    parent = event.cpu_parent
    return parent is not None and (parent.name == "aten::linear" or _of_linear(parent))
