"""The attentive probe: a learned query reads all tokens (V-JEPA 2, arXiv 2506.09985).

A few transformer blocks work on the tokens first; then the query attends to them once. It takes the
tokens (B, N, C) of any backbone, those of several clips one after the other. Parameter names are
those of the official implementation.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from videonet.errors import ConfigError
from videonet.heads.classification import ClassificationHead, TokenHead
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

    def keys(self, queries: Tensor) -> Tensor:
        """What the heads of queries (Q, dim) look for in a token, (Q, heads, dim).

        The bias of the keys cancels in the softmax.
        """
        q = self.q(queries).unflatten(1, (self.num_heads, -1))  # (Q, heads, D)
        weights = self.kv.weight.unflatten(0, (2, self.num_heads, -1))[0]  # (heads, D, dim)
        return torch.einsum("qhd,hdc->qhc", q, weights) * q.shape[2] ** -0.5

    def values(self, means: Tensor) -> Tensor:
        """The mean token that each head of each query reads, (B, Q, heads, dim) -> (B, Q, dim)."""
        weights = self.kv.weight.unflatten(0, (2, self.num_heads, -1))[1]  # (heads, D, dim)
        bias = self.kv.bias.chunk(2)[1]
        return torch.einsum("bqhc,hdc->bqhd", means, weights).flatten(2) + bias


class CrossAttentionBlock(nn.Module):
    """Attention of queries to tokens, then the MLP. The tokens are normed, the queries are not."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, norm_eps: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.xattn = CrossAttention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), dim)

    def forward(self, queries: Tensor, tokens: Tensor, positions: Tensor | None = None) -> Tensor:
        """(B, Q, dim) and (B, N, dim) -> (B, Q, dim).

        Args:
            queries, tokens: of each clip.
            positions: (N, dim), added to the normed tokens; None for none.
        """
        tokens = self.norm1(tokens)
        tokens = tokens if positions is None else tokens + positions
        return self.add(queries, self.xattn(queries, tokens))

    def add(self, queries: Tensor, read: Tensor) -> Tensor:
        """Add what the queries have read to them, then the MLP."""
        queries = queries + read
        return queries + self.mlp(self.norm2(queries))


class Keys(NamedTuple):
    """What queries look for.

    Attributes:
        tokens: (rows, dim), multiplied with tokens that are normed without gain and offset.
        frames: (rows, T), added for the tokens of each frame; None where frames are not told apart.
    """

    tokens: Tensor
    frames: Tensor | None = None


class Read(NamedTuple):
    """What queries have read.

    Attributes:
        tokens: (B, rows, dim), means of the normed tokens.
        frames: (B, rows, T), the share of each frame, or None.
    """

    tokens: Tensor
    frames: Tensor | None = None


def read_tokens(tokens: Tensor, keys: Keys, num_prefix_tokens: int = 0) -> Read:
    """Attend to tokens (B, N, dim), normed without gain and offset."""
    logits = (tokens @ keys.tokens.T).transpose(1, 2)  # (B, rows, N)
    if keys.frames is None:
        return Read(logits.softmax(dim=2) @ tokens)
    frames = keys.frames.shape[1]
    logits = logits + of_frames(keys.frames, tokens.shape[1], num_prefix_tokens)
    shares = logits.softmax(dim=2)
    each = shares[:, :, num_prefix_tokens:].unflatten(2, (frames, -1)).sum(dim=3)
    return Read(shares @ tokens, each)


def of_frames(values: Tensor, count: int, num_prefix_tokens: int) -> Tensor:
    """Values of frames (..., T) -> of `count` tokens, 0 for those before the grid's.

    Raises:
        ConfigError: the tokens are not those of T frames.
    """
    frames, cells = values.shape[-1], count - num_prefix_tokens
    if cells < frames or cells % frames:
        raise ConfigError(
            f"a clip has {count} tokens, {num_prefix_tokens} of them no cells: the others are not "
            f"those of {frames} frames, which this head was made for"
        )
    return F.pad(values.repeat_interleave(cells // frames, dim=-1), (num_prefix_tokens, 0))


class AttentivePooler(nn.Module):
    """From tokens to as many vectors as there are learned queries.

    Args:
        dim: width of the tokens.
        num_heads, mlp_ratio: of all blocks.
        num_blocks: transformer blocks on the tokens before the queries read them.
        num_queries: number of learned queries.
        norm_eps: of all norms.
        frames: number of frames of the grid that the tokens come from: learned positions of these
            are added to the normed tokens, so that the queries tell frames apart. 0: they do not,
            and the order of the frames has no effect that the tokens do not show themselves.
        num_prefix_tokens: tokens before those of the grid, which are of no frame.

    Raises:
        ConfigError: heads do not fit the width, or a number is out of range.
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
        frames: int = 0,
        num_prefix_tokens: int = 0,
    ):
        super().__init__()
        if num_queries < 1:
            raise ConfigError(f"num_queries is {num_queries}, expected 1 or more")
        if frames < 0 or num_prefix_tokens < 0:
            raise ConfigError(
                f"frames and num_prefix_tokens are {frames} and {num_prefix_tokens}, expected 0 or "
                "more"
            )
        self.num_prefix_tokens = num_prefix_tokens
        self.time_embed = nn.Parameter(torch.zeros(frames, dim)) if frames else None
        self.query_tokens = nn.Parameter(torch.zeros(1, num_queries, dim))
        blocks = [
            TransformerBlock(dim, num_heads, mlp_ratio=mlp_ratio, norm_eps=norm_eps)
            for _ in range(num_blocks)
        ]
        self.blocks = nn.ModuleList(blocks)
        self.cross_attention_block = CrossAttentionBlock(dim, num_heads, mlp_ratio, norm_eps)
        nn.init.trunc_normal_(self.query_tokens, std=0.02)
        if self.time_embed is not None:
            nn.init.trunc_normal_(self.time_embed, std=0.02)
        self.apply(init_linear)
        for number, block in enumerate(blocks, start=1):
            scale_down(block.last_weights(), number)
        scale_down([self.cross_attention_block.mlp.get_parameter("fc2.weight")], num_blocks + 1)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, dim) -> (B, num_queries, dim)."""
        for block in self.blocks:
            tokens = block(tokens, (1, 1, tokens.shape[1]))
        queries, positions = self.query_tokens.repeat(tokens.shape[0], 1, 1), None
        if self.time_embed is not None:
            positions = of_frames(self.time_embed.T, tokens.shape[1], self.num_prefix_tokens).T
        return self.cross_attention_block(queries, tokens, positions)

    # The same in three steps. The queries are those of all clips, so they can be taken through the
    # weights of the keys once, instead of every token, and values made of what was gathered. All
    # that remains per token is a product with each head of each query, and tokens that are the same
    # for many poolers are multiplied with the keys of all of them at once.

    def keys(self) -> Keys:
        """What the heads of all queries look for, a row each."""
        block = self.cross_attention_block
        keys = block.xattn.keys(self.query_tokens[0]).flatten(0, 1)  # (Q * heads, dim)
        frames = None if self.time_embed is None else keys @ self.time_embed.T
        return Keys(keys * block.norm1.weight, frames)

    def normed(self, tokens: Tensor) -> Tensor:
        """The tokens as :func:`read_tokens` takes them: without the gain and offset of the norm."""
        norm = self.cross_attention_block.norm1
        return F.layer_norm(tokens, norm.normalized_shape, eps=norm.eps)

    def finish(self, read: Read) -> Tensor:
        """What the heads have read -> (B, num_queries, dim)."""
        block = self.cross_attention_block
        means = read.tokens * block.norm1.weight + block.norm1.bias
        if self.time_embed is not None and read.frames is not None:
            means = means + read.frames @ self.time_embed
        means = means.unflatten(1, (-1, block.xattn.num_heads))
        return block.add(self.query_tokens, block.xattn.values(means))


class AttentiveHead(TokenHead):
    """A classifier on a backbone whose learned queries read all of its tokens.

    Args:
        dim: width of the tokens.
        num_classes: K.
        dropout: before the classifier.
        **pooler: further arguments of :class:`AttentivePooler`.
    """

    pooler_class = AttentivePooler
    undecayed = ("query_tokens", "time_embed")

    def __init__(self, dim: int, num_classes: int, dropout: float = 0.0, **pooler):
        super().__init__(dim, num_classes, dropout)
        self.pooler = AttentivePooler(dim, **pooler)

    def read(self, tokens: Tensor) -> Tensor:
        """Tokens (B, N, dim) -> (B, dim), the mean of what the queries have read."""
        return self.pooler(tokens).mean(dim=1)


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
        return self.classify(self.pooler(tokens))

    def classify(self, read: Tensor) -> Tensor:
        """What the queries give (B, Q, dim) -> logits (B, K)."""
        return self.head(read.mean(dim=1))

    def head_state(self) -> dict[str, Tensor]:
        """The state dict of an :class:`AttentiveHead` that computes the same."""
        return {name.removeprefix("head."): tensor for name, tensor in self.state_dict().items()}

    def no_weight_decay(self) -> set[str]:
        """Names of the learned queries and positions."""
        names = [name for name, _ in self.named_parameters()]
        return {name for name in names if name.endswith(AttentiveHead.undecayed)}

    def layer_groups(self, by: str = "blocks") -> list[list[str]]:
        """All parameters are one layer, whatever `by` says."""
        return [[name for name, _ in self.named_parameters()]]
