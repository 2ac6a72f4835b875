"""A linear classifier of what tokens are on average, and how much they change over time.

Statistics pooling: means beside standard deviations, as for speakers (Snyder et al. 2018,
"X-vectors", Sec. 2.1). The deviation is that of each place over the frames. A model of images
says by it what moves, which the mean of its tokens hardly shows; by the steps from frame to frame
how fast; and roughly where, if both are kept for several regions of the frame (as in spatial
pyramids, Lazebnik et al. 2006, Sec. 3).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from videonet.errors import ConfigError
from videonet.heads.classification import TokenHead

EPS = 1e-6  # of variances: a place that never changes has a gradient too


class TokenStatistics(nn.Module):
    """Mean prefix token, mean cell, and how much the cells of each region change over time.

    The changes are the means over a region's places of their standard deviation over the frames,
    and of the absolute differences of successive frames.

    Args:
        dim: width of the tokens.
        frames: of the grid that the tokens come from; in one nothing changes.
        num_prefix_tokens: tokens before those of the grid; without them there is no such mean.
        regions: the frame is cut into so many by so many; above 1 for square frames alone.

    Attributes:
        width: of what is given.

    Raises:
        ConfigError: a number is out of range.
    """

    def __init__(self, dim: int, *, frames: int = 1, num_prefix_tokens: int = 0, regions: int = 1):
        super().__init__()
        if frames < 1 or num_prefix_tokens < 0 or regions < 1:
            raise ConfigError(
                f"frames, num_prefix_tokens and regions are {frames}, {num_prefix_tokens} and "
                f"{regions}, expected 1 or more, 0 or more and 1 or more"
            )
        self.frames, self.num_prefix_tokens, self.regions = frames, num_prefix_tokens, regions
        changes = 2 * regions**2 if frames > 1 else 0
        self.width = dim * (1 + (num_prefix_tokens > 0) + changes)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, dim) -> (B, width), in fp32.

        Raises:
            ConfigError: the tokens are not those of so many frames, or of square ones.
        """
        count = tokens.shape[1] - self.num_prefix_tokens
        if count < self.frames or count % self.frames:
            raise ConfigError(
                f"a clip has {tokens.shape[1]} tokens, {self.num_prefix_tokens} of them no cells: "
                f"the others are not those of {self.frames} frames, which this head was made for"
            )
        prefix, cells = tokens.float().split((self.num_prefix_tokens, count), dim=1)
        cells = cells.unflatten(1, (self.frames, -1))  # (B, T, H * W, dim)
        parts = [cells.mean(dim=(1, 2))]
        if self.num_prefix_tokens:
            parts.insert(0, prefix.mean(dim=1))
        if self.frames > 1:
            deviation = (cells.var(dim=1, correction=0) + EPS).sqrt()  # (B, H * W, dim)
            steps = cells.diff(dim=1).abs().mean(dim=1)
            parts += [self._of_regions(deviation), self._of_regions(steps)]
        return torch.cat(parts, dim=1)

    def _of_regions(self, cells: Tensor) -> Tensor:
        """(B, H * W, dim) -> means of the regions, (B, regions * regions * dim)."""
        if self.regions == 1:
            return cells.mean(dim=1)
        side = math.isqrt(cells.shape[1])
        if side**2 != cells.shape[1]:
            raise ConfigError(
                f"a frame has {cells.shape[1]} cells, which are no square: regions is "
                f"{self.regions}, expected 1"
            )
        maps = cells.transpose(1, 2).unflatten(2, (side, side))  # (B, dim, H, W)
        return F.adaptive_avg_pool2d(maps, self.regions).flatten(2).transpose(1, 2).flatten(1)


class StatisticsHead(TokenHead):
    """A linear classifier of the statistics of all tokens of a backbone.

    Args:
        dim: width of the tokens.
        num_classes: K.
        dropout: before the classifier.
        **pooler: further arguments of :class:`TokenStatistics`.
    """

    pooler_class = TokenStatistics

    def __init__(self, dim: int, num_classes: int, dropout: float = 0.0, **pooler):
        statistics = TokenStatistics(dim, **pooler)
        super().__init__(statistics.width, num_classes, dropout)
        self.pooler = statistics

    @classmethod
    def width(cls, dim: int, **pooler) -> int:
        return TokenStatistics(dim, **pooler).width

    def read(self, tokens: Tensor) -> Tensor:
        return self.pooler(tokens)
