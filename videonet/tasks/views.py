"""From the scores of a video's clips to those of the video."""

from __future__ import annotations

from torch import Tensor

from videonet.errors import ConfigError


def join_scores(scores: Tensor, method: str = "mean") -> Tensor:
    """One row of scores from those of all clips, (N, …) -> (…).

    Args:
        scores: one row per clip.
        method: "mean" or "max" over the clips.

    Raises:
        ConfigError: unknown method.
    """
    if method not in ("mean", "max"):
        raise ConfigError(f"scores are aggregated by mean or max, not by {method!r}")
    return scores.mean(dim=0) if method == "mean" else scores.amax(dim=0)
