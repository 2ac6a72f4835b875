"""A head of what tokens are on average, and how much they change over time."""

import pytest
import torch

from tests.models.invariants import relative_error
from videonet.config import load_config
from videonet.errors import ConfigError
from videonet.finetuning.features import head_arguments
from videonet.heads.statistics import EPS, TokenStatistics
from videonet.models import create_model, list_models


@pytest.mark.parametrize("name", list_models("*_xs"))
def test_it_reads_the_tokens_of_every_architecture(name):
    torch.manual_seed(0)
    model = create_model(name, num_classes=5).eval()
    clip = torch.randn(2, 3, 8, 48, 48)
    sizes = ["DATA.NUM_FRAMES", "8", "DATA.TEST_CROP_SIZE", "48", "DATA.TRAIN_CROP_SIZE", "48"]
    cfg = load_config(None, ["MODEL.NAME", name, *sizes])
    options = head_arguments(model, cfg)["statistics"]
    frames, prefix = options["frames"], options["num_prefix_tokens"]
    features = model.forward_features(clip)
    tokens = model.tokens_of(features)
    model.use_head("statistics", **options)

    cells = tokens[:, prefix:].reshape(2, frames, -1, model.token_width)
    expected = [tokens[:, :prefix].mean(dim=1)] if prefix else []
    expected.append(cells.mean(dim=(1, 2)))
    if frames > 1:
        variance = cells.double().std(dim=1, correction=0).square()
        expected.append((variance + EPS).sqrt().mean(dim=1).float())
        expected.append((cells[:, 1:] - cells[:, :-1]).abs().mean(dim=(1, 2)))
    vectors = model.forward_head(features, pre_logits=True)
    assert relative_error(vectors, torch.cat(expected, dim=1)) < 1e-4
    assert vectors.shape == (2, model.num_features)

    outputs = model.train()(clip)
    outputs.square().sum().backward()
    assert outputs.shape == (2, 5) and model.head.projection.weight.grad.any()
    names = [name for name, _ in model.named_parameters()]
    assert sorted(sum(model.layer_groups(), [])) == sorted(names)


def test_regions_tell_where_something_changes():
    cells = torch.zeros(1, 2, 5, 5, 4)  # (B, T, H, W, dim)
    cells[:, 1, 4, 4] = 2.0
    found = TokenStatistics(4, frames=2, regions=2)(cells.flatten(1, 3))
    mean, *regions = found.view(9, 4)[:, 0].tolist()
    assert mean == pytest.approx(1 / 25)
    deviations, steps = regions[:4], regions[4:]
    assert deviations == pytest.approx([EPS**0.5] * 3 + [1 / 9], abs=2e-3)  # odd sides overlap
    assert steps == pytest.approx([0, 0, 0, 2 / 9])
    one = TokenStatistics(4, frames=2)(cells.flatten(1, 3)).view(3, 4)[:, 0]
    assert one[1:].tolist() == pytest.approx([1 / 25, 2 / 25], abs=2e-3)
    with pytest.raises(ConfigError, match="6 cells, which are no square: regions is 2"):
        TokenStatistics(4, frames=2, regions=2)(torch.ones(1, 12, 4))


def test_steps_tell_a_fast_change_from_a_slow_one():
    slow, fast = torch.tensor([0.0, 0, 1, 1]), torch.tensor([0.0, 1, 0, 1])
    found = TokenStatistics(1, frames=4)(torch.stack((slow, fast)).unsqueeze(2))
    torch.testing.assert_close(found[:, 1], found[:, 1].flip(0))  # as much of each
    assert found[:, 2].tolist() == pytest.approx([1 / 3, 1])


def test_a_place_that_never_changes_has_a_gradient():
    tokens = torch.ones(1, 8, 4, requires_grad=True)
    TokenStatistics(4, frames=2)(tokens).sum().backward()
    assert tokens.grad.isfinite().all()


def test_half_precision_loses_no_small_change():
    tokens = 100 + torch.tensor([0.0, 0.5]).repeat_interleave(3).view(1, 6, 1).expand(1, 6, 4)
    found = TokenStatistics(4, frames=2)(tokens.bfloat16())
    assert found.dtype is torch.float32
    assert relative_error(found, TokenStatistics(4, frames=2)(tokens.bfloat16().float())) == 0


def test_tokens_of_other_frames_and_options_that_there_are_not_are_refused():
    with pytest.raises(ConfigError, match="not those of 3 frames"):
        TokenStatistics(4, frames=3)(torch.ones(1, 8, 4))
    with pytest.raises(ConfigError, match="and regions are 0, 0 and 1"):
        TokenStatistics(4, frames=0)
    model = create_model("vit_xs", num_classes=2)
    with pytest.raises(ConfigError, match="expected attentive or statistics"):
        model.use_head("mean")
    with pytest.raises(ConfigError, match="no argument 'queries'"):
        model.use_head("statistics", queries=2)


def test_without_classes_a_model_gives_what_its_own_pooling_makes():
    model, clip = create_model("vit_xs", num_classes=2), torch.randn(1, 3, 8, 48, 48)
    model.use_head("statistics", frames=4, num_prefix_tokens=1)
    for classes, width in ((2, 4 * 96), (0, 96), (3, 4 * 96)):
        model.reset_classifier(classes)
        assert model.num_features == width
        assert model(clip).shape == (1, classes or width)
