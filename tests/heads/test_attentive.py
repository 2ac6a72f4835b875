"""The attentive probe, on tokens of any backbone."""

import pytest
import torch

from tests.models.families import small_model
from tests.models.invariants import randomise, relative_error
from videonet.errors import ConfigError
from videonet.heads.attentive import AttentivePooler, AttentiveProbe


@pytest.mark.parametrize("name", ["mvit_v2_s", "vit_b", "hiera_b", "vjepa2_l", "swin_t"])
def test_tokens_of_any_backbone(name):
    model = small_model(name).eval()
    with torch.no_grad():
        features = model.forward_features(torch.randn(2, 3, 4, 64, 64))
    tokens = features.flatten(1, -2)
    probe = AttentiveProbe(tokens.shape[2], 5, num_heads=2, num_blocks=1)
    probe(tokens).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in probe.parameters())
    assert probe(tokens).shape == (2, 5)


def test_the_order_of_tokens_and_copies_of_all_of_them_have_no_effect():
    """So a clip twice, or a still clip, has the logits of one."""
    probe = randomise(AttentiveProbe(12, 4, num_heads=3, num_blocks=2))
    tokens = torch.randn(2, 7, 12)
    with torch.no_grad():
        logits = probe(tokens)
        assert relative_error(probe(tokens[:, torch.randperm(7)]), logits) < 1e-5
        assert relative_error(probe(tokens.repeat(1, 3, 1)), logits) < 1e-5


def test_it_is_what_the_formulas_say():
    """One cross attention: the query is not normed, and nothing is projected behind it."""
    pooler = randomise(AttentivePooler(8, 2, num_blocks=0, num_queries=3, norm_eps=1e-3))
    tokens, block = torch.randn(1, 5, 8), pooler.cross_attention_block
    with torch.no_grad():
        queries = pooler.query_tokens[0]
        q, k, v = block.xattn.q(queries), *block.xattn.kv(block.norm1(tokens[0])).chunk(2, dim=1)
        heads = [
            (q[:, part] @ k[:, part].T / 2).softmax(dim=1) @ v[:, part]
            for part in (slice(0, 4), slice(4, 8))
        ]
        expected = queries + torch.cat(heads, dim=1)
        expected = expected + block.mlp(block.norm2(expected))
        found = pooler(tokens)
    assert block.norm1.eps == block.norm2.eps == 1e-3
    assert found.shape == (1, 3, 8)
    torch.testing.assert_close(found[0], expected, atol=1e-5, rtol=1e-5)


def test_parameters_of_the_optimiser():
    probe = AttentiveProbe(12, 4, num_heads=3, num_blocks=1)
    (names,) = probe.layer_groups()
    assert sorted(names) == sorted(name for name, _ in probe.named_parameters())
    assert probe.no_weight_decay() <= set(names)


def test_wrong_settings_are_named():
    with pytest.raises(ConfigError, match="a width of 12 is no multiple of its 5 heads"):
        AttentiveProbe(12, 4, num_heads=5)
    with pytest.raises(ConfigError, match="num_queries is 0"):
        AttentivePooler(12, 3, num_queries=0)
