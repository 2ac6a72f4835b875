"""The attentive probe: a learned query reads all tokens (V-JEPA 2, arXiv 2506.09985).

A few transformer blocks work on the tokens first; then the query attends to them once. It takes the
tokens (B, N, C) of any backbone, those of several clips one after the other. Parameter names are
those of the official implementation.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from videonet.errors import ConfigError
from videonet.heads.classification import ClassificationHead
from videonet.ops.attention import attention, check_heads
from videonet.ops.linear import init_linear
from videonet.ops.mlp import Mlp
from videonet.ops.transformer_block import TransformerBlock, scale_down

NORM_EPS = 1e-5  # in the official probes; transformers has 1e-6


class CrossAttention(nn.Module):
    """Queries attend to tokens; there is no linear layer behind it."""

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        check_heads(dim, num_heads)
        self.num_heads = num_heads
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        """(B, Q, dim) and (B, N, dim) -> (B, Q, dim)."""
        parts = (self.q(queries), *self.kv(tokens).chunk(2, dim=2))
        q, k, v = (part.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for part in parts)
        y = attention(q, k, v, q_grid=(1, 1, q.shape[2]), k_grid=(1, 1, k.shape[2]))
        return y.transpose(1, 2).flatten(2)


class CrossAttentionBlock(nn.Module):
    """Attention of queries to tokens, then the MLP. The tokens are normed, the queries are not."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, norm_eps: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.xattn = CrossAttention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), dim)

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        """(B, Q, dim) and (B, N, dim) -> (B, Q, dim)."""
        queries = queries + self.xattn(queries, self.norm1(tokens))
        return queries + self.mlp(self.norm2(queries))


class AttentivePooler(nn.Module):
    """From tokens to as many vectors as there are learned queries.

    Args:
        dim: width of the tokens.
        num_heads, mlp_ratio: of all blocks.
        num_blocks: transformer blocks on the tokens before the queries read them.
        num_queries: number of learned queries.
        norm_eps: of all norms.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 16,
        *,
        num_blocks: int = 3,
        num_queries: int = 1,
        mlp_ratio: float = 4.0,
        norm_eps: float = NORM_EPS,
    ):
        super().__init__()
        if num_queries < 1:
            raise ConfigError(f"num_queries is {num_queries}, expected 1 or more")
        self.query_tokens = nn.Parameter(torch.zeros(1, num_queries, dim))
        blocks = [
            TransformerBlock(dim, num_heads, mlp_ratio=mlp_ratio, norm_eps=norm_eps)
            for _ in range(num_blocks)
        ]
        self.blocks = nn.ModuleList(blocks)
        self.cross_attention_block = CrossAttentionBlock(dim, num_heads, mlp_ratio, norm_eps)
        nn.init.trunc_normal_(self.query_tokens, std=0.02)
        self.apply(init_linear)
        for number, block in enumerate(blocks, start=1):
            scale_down(block.last_weights(), number)
        scale_down([self.cross_attention_block.mlp.get_parameter("fc2.weight")], num_blocks + 1)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, dim) -> (B, num_queries, dim)."""
        for block in self.blocks:
            tokens = block(tokens, (1, 1, tokens.shape[1]))
        queries = self.query_tokens.repeat(tokens.shape[0], 1, 1)
        return self.cross_attention_block(queries, tokens)


class AttentiveProbe(nn.Module):
    """A classifier on the tokens of a backbone that stays as it is.

    Args:
        dim: width of the tokens.
        num_classes: K.
        dropout: before the classifier.
        **pooler: further arguments of :class:`AttentivePooler`.
    """

    def __init__(self, dim: int, num_classes: int, *, dropout: float = 0.0, **pooler):
        super().__init__()
        self.pooler = AttentivePooler(dim, **pooler)
        self.head = ClassificationHead(dim, num_classes, dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (B, N, dim) -> logits (B, K), those of the mean of the queries' vectors."""
        return self.head(self.pooler(tokens).mean(dim=1))

    def no_weight_decay(self) -> set[str]:
        """Names of the learned queries."""
        return {"pooler.query_tokens"}

    def layer_groups(self) -> list[list[str]]:
        """All parameters are one layer."""
        return [[name for name, _ in self.named_parameters()]]
