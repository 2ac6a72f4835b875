"""From scores over time to segments: start, end, label, score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from videonet.errors import ConfigError


@dataclass(frozen=True)
class Segment:
    """A stretch of a video with one label; ``score`` is the label's (smoothed) mean over it."""

    start: float  # seconds
    end: float
    label: str
    score: float


@dataclass(frozen=True)
class Hysteresis:
    """When a segment begins and ends.

    Attributes:
        on: a label begins where its score is at least this and the highest.
        off: it lasts while its score is at least this and no other label begins.
        max_gap: segments of one label that are at most so many seconds apart are one.
        min_length: shorter segments (seconds) are dropped.
        smooth: scores are averaged over so many windows (an odd number) before.
    """

    on: float = 0.5
    off: float = 0.3
    max_gap: float = 0.0
    min_length: float = 0.0
    smooth: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.off <= self.on <= 1:
            raise ConfigError(
                f"the thresholds of segments are on {self.on} and off {self.off}, but must be "
                "0 <= off <= on <= 1"
            )
        if self.smooth < 1 or self.smooth % 2 == 0:
            raise ConfigError(
                f"scores are smoothed over an odd number of windows, not {self.smooth}"
            )


def cell_borders(windows: Sequence[tuple[float, float]]) -> np.ndarray:
    """Borders (N + 1,) of the N stretches that the windows' scores stand for.

    The score of a window stands for the time around its middle, up to half-way to the middle of
    the next window; the first and the last one reach to the ends.
    """
    times = np.asarray(windows, dtype=float)
    middles = times.mean(axis=1)
    between = (middles[1:] + middles[:-1]) / 2
    return np.concatenate(([times[0, 0]], between, [times[-1, 1]]))


def merge_segments(
    windows: Sequence[tuple[float, float]],
    scores: np.ndarray,
    names: Sequence[str],
    rule: Hysteresis | None = None,
) -> list[Segment]:
    """Merge windows with one label into segments that do not overlap.

    Args:
        windows: (start, end) in seconds, rising.
        scores: one row per window, (N, K).
        names: of the classes, K.
    """
    rule = rule or Hysteresis()
    if not len(windows):
        return []
    borders = cell_borders(windows)
    scores = smooth_scores(np.asarray(scores), rule.smooth)
    runs: list[list[int]] = []  # [class, first cell, one past the last cell]
    for (label, first), last in zip(*_changes(_track(scores, rule)), strict=True):
        if label < 0:
            continue
        gap = borders[first] - borders[runs[-1][2]] if runs else np.inf
        if runs and runs[-1][0] == label and gap <= rule.max_gap + 1e-9:
            runs[-1][2] = last
        else:
            runs.append([label, first, last])
    return [
        Segment(
            float(borders[first]),
            float(borders[last]),
            names[label],
            float(np.mean([row[label] for row in scores[first:last]])),
        )
        for label, first, last in runs
        if borders[last] - borders[first] >= rule.min_length
    ]


def smooth_scores(scores: np.ndarray, count: int) -> np.ndarray:
    """The mean of each window (N, K) and its `count - 1` neighbours; the ends are repeated."""
    half = count // 2
    padded = np.pad(scores, ((half, half), (0, 0)), mode="edge")
    return np.lib.stride_tricks.sliding_window_view(padded, count, axis=0).mean(axis=-1)


def _track(scores: np.ndarray, rule: Hysteresis) -> list[int]:
    """The label of every window, -1 for none."""
    labels, current = [], -1
    for row in scores:
        best = int(row.argmax())
        if row[best] >= rule.on:
            current = best
        elif current >= 0 and row[current] < rule.off:
            current = -1
        labels.append(current)
    return labels


def _changes(labels: list[int]) -> tuple[list[tuple[int, int]], list[int]]:
    """(label, first) of every run of equal labels, and one past its last."""
    firsts = [i for i, label in enumerate(labels) if i == 0 or label != labels[i - 1]]
    return [(labels[i], i) for i in firsts], [*firsts[1:], len(labels)]
