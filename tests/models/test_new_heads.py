"""A new head is of the model: its type, its device, its mode."""

import pytest
import torch

from videonet.errors import ConfigError
from videonet.models import create_model, list_models


@pytest.mark.parametrize("name", list_models("*_xs"))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_a_new_head_has_the_type_and_mode_of_the_model(name, dtype):
    model = create_model(name, num_classes=5, head_dropout=0.5).to(dtype).eval()
    model.requires_grad_(False)
    model.reset_classifier(4)
    clip = torch.randn(1, 3, 8, 48, 48, dtype=dtype)
    with torch.no_grad():
        first, second = model(clip), model(clip)
    assert first.shape == (1, 4) and first.dtype == dtype and torch.equal(first, second)
    assert all(parameter.requires_grad for parameter in model.head.parameters())
    model.train()
    model.reset_classifier(3)
    assert all(module.training for module in model.head.modules())


def test_a_new_head_is_on_the_device_of_the_model():
    with torch.device("meta"):
        model = create_model("mvit_v2_xs", num_classes=5)
    model.reset_classifier(4)
    assert model.head.projection.weight.is_meta


@pytest.mark.parametrize("count", [-1, 2.0, "3", None, True])
def test_a_number_of_classes_that_is_none_is_refused(count):
    model = create_model("mvit_v2_xs", num_classes=5)
    with pytest.raises(ConfigError, match="expected a whole number, 0 or more"):
        model.reset_classifier(count)
    assert model.num_classes == 5 and model.head.projection.out_features == 5


def test_a_head_of_somebody_else_is_replaced():
    model = create_model("mvit_v2_xs", num_classes=5).double()
    model.head = torch.nn.Identity()
    model.reset_classifier(4)
    assert model.head.projection.weight.dtype == torch.float64
