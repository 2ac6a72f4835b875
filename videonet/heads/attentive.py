"""The attentive probe: a learned query reads all tokens (V-JEPA 2, arXiv 2506.09985).

A few transformer blocks work on the tokens first; then the query attends to them once. It takes the
tokens (B, N, C) of any backbone, those of several clips one after the other. Parameter names are
those of the official implementation.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from videonet.errors import ConfigError
from videonet.heads.classification import ClassificationHead
from videonet.ops.attention import check_heads
from videonet.ops.linear import init_linear
from videonet.ops.mlp import Mlp
from videonet.ops.transformer_block import TransformerBlock, scale_down

NORM_EPS = 1e-5  # in the official probes; transformers has 1e-6


class CrossAttention(nn.Module):
    """The weights by which queries attend to tokens; there is no linear layer behind it."""

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        check_heads(dim, num_heads)
        self.num_heads = num_heads
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)


class CrossAttentionBlock(nn.Module):
    """Attention of queries to tokens, then the MLP. The tokens are normed, the queries are not.

    The queries are the same for all clips, so they are taken through the weights of the keys once,
    instead of every token; and values are made of what the attention has gathered. Per token that
    is one product with each query of each head, a small part of two products with square matrices.
    """

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, norm_eps: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.xattn = CrossAttention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), dim)

    def forward(self, queries: Tensor, tokens: Tensor, positions: Tensor | None = None) -> Tensor:
        """(1, Q, dim) and (B, N, dim) -> (B, Q, dim).

        Args:
            queries: of all clips.
            tokens: of each clip.
            positions: (N, dim), added to the normed tokens; None for none.
        """
        queries = queries + self.attend(queries, tokens, positions)
        return queries + self.mlp(self.norm2(queries))

    def attend(self, queries: Tensor, tokens: Tensor, positions: Tensor | None) -> Tensor:
        """What the queries read, (B, Q, dim); the arguments are those of :meth:`forward`."""
        heads, norm = self.xattn.num_heads, self.norm1
        dim = tokens.shape[2] // heads
        # Without gain and offset the norm is the same for all probes that are trained at once.
        x = F.layer_norm(tokens, norm.normalized_shape, eps=norm.eps)
        q = self.xattn.q(queries[0]).unflatten(1, (heads, dim))
        keys, values = self.xattn.kv.weight.unflatten(0, (2, heads, dim))  # (heads, D, dim) each
        _, bias = self.xattn.kv.bias.chunk(2)  # that of the keys cancels in the softmax
        q = torch.einsum("qhd,hdc->qhc", q, keys) * dim**-0.5
        logits = torch.einsum("bnc,qhc->bqhn", x, q * norm.weight)
        if positions is not None:
            logits = logits + torch.einsum("nc,qhc->qhn", positions, q)
        shares = logits.softmax(dim=-1)  # they sum to 1, so the norm's offset is added once
        read = torch.einsum("bqhn,bnc->bqhc", shares, x) * norm.weight + norm.bias
        if positions is not None:
            read = read + torch.einsum("bqhn,nc->bqhc", shares, positions)
        y = torch.einsum("bqhc,hdc->bqhd", read, values)
        return y.flatten(2) + bias


class AttentivePooler(nn.Module):
    """From tokens to as many vectors as there are learned queries.

    Args:
        dim: width of the tokens.
        num_heads, mlp_ratio: of all blocks.
        num_blocks: transformer blocks on the tokens before the queries read them.
        num_queries: number of learned queries.
        norm_eps: of all norms.
        frames: of the grid that the tokens come from: the queries then see which frame a token is
            of, by learned positions. 0: they do not, and the order of the frames has no effect
            that the tokens do not show themselves.
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
        positions = self._positions(tokens.shape[1])
        return self.cross_attention_block(self.query_tokens, tokens, positions)

    def _positions(self, count: int) -> Tensor | None:
        """A position for each of so many tokens (N, dim); zero for prefix tokens."""
        if self.time_embed is None:
            return None
        frames, cells = len(self.time_embed), count - self.num_prefix_tokens
        if cells < frames or cells % frames:
            raise ConfigError(
                f"a clip has {count} tokens, {self.num_prefix_tokens} of them no cells: the others "
                f"are not those of {frames} frames, which this probe was made for"
            )
        rows = self.time_embed.repeat_interleave(cells // frames, dim=0)
        return F.pad(rows, (0, 0, self.num_prefix_tokens, 0))


class AttentiveHead(ClassificationHead):
    """A classifier on a backbone whose learned queries read all of its tokens.

    Args:
        dim: width of the tokens.
        num_classes: K.
        dropout: before the classifier.
        **pooler: further arguments of :class:`AttentivePooler`.
    """

    undecayed = ("query_tokens", "time_embed")  # no weight decay for parameters called so

    def __init__(self, dim: int, num_classes: int, dropout: float = 0.0, **pooler):
        super().__init__(dim, num_classes, dropout)
        self.pooler = AttentivePooler(dim, **pooler)

    def read(self, tokens: Tensor) -> Tensor:
        """Tokens (B, N, dim) -> what the classifier reads, (B, dim): the queries' mean."""
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
        return self.head(self.pooler(tokens).mean(dim=1))

    def head_state(self) -> dict[str, Tensor]:
        """The state dict of an :class:`AttentiveHead` that computes the same."""
        return {name.removeprefix("head."): tensor for name, tensor in self.state_dict().items()}

    def no_weight_decay(self) -> set[str]:
        """Names of the learned queries and positions."""
        names = [name for name, _ in self.named_parameters()]
        return {name for name in names if name.endswith(AttentiveHead.undecayed)}

    def layer_groups(self) -> list[list[str]]:
        """All parameters are one layer."""
        return [[name for name, _ in self.named_parameters()]]
