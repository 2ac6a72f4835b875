"""A head of learned queries over all tokens, on every architecture."""

import pytest
import torch

from tests.models.invariants import randomise, relative_error
from videonet.errors import ConfigError
from videonet.models import create_model, list_models

OPTIONS = {"num_queries": 2, "num_heads": 2, "num_blocks": 0, "mlp_ratio": 1.0}


def with_head(name, **options):
    torch.manual_seed(0)
    model = create_model(name, num_classes=5)
    model.use_head("attentive", **OPTIONS | options)
    return model


@pytest.mark.parametrize("name", list_models("*_xs"))
def test_it_reads_the_tokens_of_every_architecture(name):
    model = with_head(name)
    clip = torch.randn(2, 3, 8, 48, 48)
    tokens = model.tokens_of(model.forward_features(clip))
    assert tokens.shape[0] == 2 and tokens.shape[2] == model.token_width == model.num_features
    outputs = model(clip)
    outputs.square().sum().backward()
    assert outputs.shape == (2, 5)
    assert all(p.grad.any() for p in model.head.parameters())
    vectors = model.forward_head(model.forward_features(clip), pre_logits=True)
    assert vectors.shape == (2, model.num_features)
    groups = model.layer_groups()
    assert sorted(sum(groups, [])) == sorted(name for name, _ in model.named_parameters())
    assert "head.pooler.query_tokens" in groups[-1]
    assert "head.pooler.query_tokens" in model.no_weight_decay()


def test_blocks_of_the_head_are_no_layers_of_the_backbone():
    plain, deep = create_model("vit_xs", num_classes=5), with_head("vit_xs", num_blocks=2)
    assert len(deep.layer_groups()) == len(plain.layer_groups())


def test_queries_tell_frames_apart_where_they_are_told_how_many_there_are():
    """Tokens of which each is repeated in all frames: only the positions can make a difference."""
    model = randomise(with_head("vit_xs", frames=4, num_prefix_tokens=1)).eval()
    frames = torch.randn(1, 4, 9, 96)
    prefix = torch.randn(1, 1, 96)

    def read(cells):
        return model.head.read(torch.cat((prefix, cells.flatten(1, 2)), dim=1))

    with torch.no_grad():
        assert relative_error(read(frames.flip(1)), read(frames)) > 1e-3
        within = frames[:, :, torch.randperm(9)]
        assert relative_error(read(within), read(frames)) < 1e-5
        model.head.pooler.time_embed.zero_()
        assert relative_error(read(frames.flip(1)), read(frames)) < 1e-5
    with pytest.raises(ConfigError, match="a clip has 35 tokens, 1 of them no cells"):
        model.head.read(torch.randn(1, 35, 96))


def test_another_number_of_classes_keeps_the_kind_of_head():
    model = with_head("vit_xs")
    model.reset_classifier(3)
    assert model.head.pooler.query_tokens.shape == (1, 2, 96)
    assert model(torch.randn(1, 3, 8, 48, 48)).shape == (1, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_query": 2}, "no argument 'num_query'"),
        ({"num_heads": 5}, "heads"),
        ({"num_queries": 0}, "num_queries is 0"),
        ({"dim": 3}, "leave out dim"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        with_head("vit_xs", **options)
