"""Attention over clips and frames: weights, masks, levels."""

from __future__ import annotations

import pytest
import torch

from videonet.errors import ConfigError
from videonet.heads.aggregation import (
    AttentionPool,
    VideoAttentionHead,
    stack_clips,
)


def random_pool(score: str) -> AttentionPool:
    torch.manual_seed(0)
    pool = AttentionPool(6, 4, score)
    torch.nn.init.normal_(pool.query)
    return pool


def test_scores_are_those_of_the_papers():
    x = torch.randn(2, 5, 6)
    additive, dot = random_pool("additive"), random_pool("dot")
    for pool, scores in (
        (additive, torch.tanh(additive.key(x)) @ additive.query),
        (dot, dot.key(x) @ dot.query / 2.0),  # sqrt(4)
    ):
        pooled, weights = pool(x)
        assert torch.allclose(weights, scores.softmax(dim=1), atol=1e-6)
        assert torch.allclose(pooled, torch.einsum("bn,bnc->bc", weights, x), atol=1e-6)


@pytest.mark.parametrize("score", ["additive", "dot"])
def test_it_begins_as_the_mean(score):
    x = torch.randn(2, 5, 6)
    assert torch.allclose(AttentionPool(6, 4, score)(x)[0], x.mean(dim=1), atol=1e-6)


@pytest.mark.parametrize("levels", [1, 2])
@pytest.mark.parametrize("score", ["additive", "dot"])
def test_padding_and_order_do_not_matter(levels, score):
    torch.manual_seed(0)
    head = VideoAttentionHead(6, 3, levels=levels, hidden=4, score=score).eval()
    for name, parameter in head.named_parameters():
        if name.endswith("query"):
            torch.nn.init.normal_(parameter)
    videos = [torch.randn(n, *([7] if levels == 2 else []), 6) for n in (1, 4, 2)]
    together = head(*stack_clips(videos))
    for video, row in zip(videos, together, strict=True):
        assert torch.allclose(head(video.unsqueeze(0))[0], row, atol=1e-5)
        assert torch.allclose(head(video.flip(0).unsqueeze(0))[0], row, atol=1e-5)
    assert together.shape == (3, 3) and not torch.allclose(together[0], together[1])


def test_every_parameter_learns():
    head = VideoAttentionHead(6, 3, levels=2, hidden=4)
    for step in range(2):  # the scores' projections follow the queries, which begin at zero
        head.zero_grad()
        head(torch.randn(4, 5, 7, 6)).square().sum().backward()
        with torch.no_grad():
            for parameter in head.parameters():
                parameter -= 0.1 * parameter.grad
        silent = [n for n, p in head.named_parameters() if not p.grad.any()]
        assert step == 0 or not silent, silent


def test_wrong_input_is_named():
    with pytest.raises(ConfigError, match="cosine"):
        AttentionPool(6, 4, "cosine")
    with pytest.raises(ConfigError, match="levels"):
        VideoAttentionHead(6, 3, levels=3)
    with pytest.raises(ConfigError, match="4 dimensions"):
        VideoAttentionHead(6, 3, levels=2)(torch.randn(2, 5, 6))
