"""The classifier on top of one feature vector per clip."""

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
