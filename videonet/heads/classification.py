"""Classifiers on top of a backbone: of one feature vector per clip, or of all its tokens."""

from __future__ import annotations

from torch import Tensor, nn


class ClassificationHead(nn.Module):
    """Dropout and a linear layer: (B, dim) -> logits (B, num_classes)."""

    def __init__(self, dim: int, num_classes: int, dropout: float = 0.0, init_scale: float = 1.0):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.projection = nn.Linear(dim, num_classes)
        nn.init.trunc_normal_(self.projection.weight, std=0.02 * init_scale)
        nn.init.zeros_(self.projection.bias)

    def forward(self, features: Tensor) -> Tensor:
        return self.projection(self.dropout(features))


class TokenHead(ClassificationHead):
    """A classifier that makes its feature vector itself, of all tokens of a backbone.

    It is built of the width of the tokens, the number of classes, a dropout, and arguments of
    `pooler_class` by name.
    """

    pooler_class: type[nn.Module]
    undecayed: tuple[str, ...] = ()  # no weight decay for parameters called so

    @classmethod
    def width(cls, dim: int, **pooler) -> int:
        """Of what the classifier reads, of tokens of width `dim`."""
        return dim

    def read(self, tokens: Tensor) -> Tensor:
        """Tokens (B, N, dim) -> what the classifier reads, (B, width)."""
        raise NotImplementedError
