"""From the features of frames and clips to one vector, and one decision, per video.

Attention pooling as in Ilse et al. 2018 (arXiv 1802.04712, Eq. 7 and 8), with the score of a
feature either additive (Bahdanau et al. 2015, arXiv 1409.0473) or a scaled dot product with a
learned query (Vaswani et al. 2017, arXiv 1706.03762, Eq. 1); on two levels, as in the hierarchical
attention networks of Yang et al. 2016: frames into clips, clips into the video.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from videonet.errors import ConfigError
from videonet.heads.classification import ClassificationHead

SCORES = ("additive", "dot")


class AttentionPool(nn.Module):
    """A weighted mean whose weights are a softmax over learned scores of the items.

    Args:
        dim: width of the items.
        hidden: width that the scores are computed in.
        score: "additive", ``w · tanh(V x)``, or "dot", ``q · K x / sqrt(hidden)``.
    """

    def __init__(self, dim: int, hidden: int = 128, score: str = "additive"):
        super().__init__()
        if score not in SCORES:
            raise ConfigError(f"the score is {score!r}, expected one of {', '.join(SCORES)}")
        self.score, self.hidden = score, hidden
        self.key = nn.Linear(dim, hidden)
        self.query = nn.Parameter(torch.zeros(hidden))  # begins as the plain mean

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Pool the items of each row.

        Args:
            x: (B, N, dim).
            mask: (B, N), true for items that count; at least one a row.

        Returns:
            The pooled (B, dim) and the weights (B, N), which sum to 1.
        """
        keys = self.key(x)  # (B, N, hidden)
        if self.score == "additive":
            scores = keys.tanh() @ self.query
        else:
            scores = keys @ self.query * self.hidden**-0.5
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        weights = scores.softmax(dim=-1)
        return (weights.unsqueeze(1) @ x).squeeze(1), weights


class VideoAttentionHead(nn.Module):
    """Classifies a video by the features of its clips, or of their frames.

    Args:
        dim: width of the features.
        num_classes: K.
        levels: 1 pools clips into the video; 2 pools frames into clips before.
        hidden, score: of the :class:`AttentionPool` of each level.
        dropout: before the classifier.
    """

    def __init__(
        self,
        dim: int,
        num_classes: int,
        *,
        levels: int = 1,
        hidden: int = 128,
        score: str = "additive",
        dropout: float = 0.0,
    ):
        super().__init__()
        if levels not in (1, 2):
            raise ConfigError(f"the head has {levels!r} levels, expected 1 or 2")
        self.levels = levels
        self.norm = nn.LayerNorm(dim)
        self.frames = AttentionPool(dim, hidden, score) if levels == 2 else None
        self.clips = AttentionPool(dim, hidden, score)
        self.head = ClassificationHead(dim, num_classes, dropout)

    def pool(self, features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Pool the features of a video.

        Args:
            features: of the clips (B, N, C), or with two levels of their frames (B, N, T, C).
            mask: (B, N), true for clips that count; None for all.

        Returns:
            One vector per video (B, C), and the weights of the clips (B, N).

        Raises:
            ConfigError: the features have another number of dimensions.
        """
        expected = 4 if self.frames is not None else 3
        if features.dim() != expected:
            raise ConfigError(
                f"the head pools {self.levels} level{'s' * (self.levels - 1)} and needs features "
                f"of {expected} dimensions, these have the shape {tuple(features.shape)}"
            )
        x = self.norm(features)
        if self.frames is not None:
            x = self.frames(x.flatten(0, 1))[0].unflatten(0, features.shape[:2])  # (B, N, C)
        return self.clips(x, mask)

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Features as in :meth:`pool`, and which clips count (B, N), -> logits (B, K)."""
        return self.head(self.pool(features, mask)[0])

    def no_weight_decay(self) -> set[str]:
        """Names of the learned queries."""
        return {name for name, _ in self.named_parameters() if name.endswith("query")}

    def layer_groups(self, by: str = "blocks") -> list[list[str]]:
        """All parameters are one layer, whatever `by` says."""
        return [[name for name, _ in self.named_parameters()]]


def stack_clips(features: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Pad the clips of videos, (N_i, …) each, to (B, max N, …) and a mask (B, max N)."""
    padded = nn.utils.rnn.pad_sequence(features, batch_first=True)
    counts = torch.tensor([len(f) for f in features])
    mask = torch.arange(padded.shape[1]).unsqueeze(0) < counts.unsqueeze(1)
    return padded, mask
