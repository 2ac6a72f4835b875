"""Segments of a video in time, from the scores of its windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from videonet.errors import ConfigError


@dataclass(frozen=True)
class Segment:
    """A stretch of a video with one label.

    Attributes:
        start: seconds from the first frame.
        end: seconds from the first frame.
        label: its name.
        score: the mean of the label's (smoothed) scores.
    """

    start: float
    end: float
    label: str
    score: float


@dataclass(frozen=True)
class Hysteresis:
    """When a segment begins and ends.

    Attributes:
        on: a label begins where its score is the highest and at least this.
        off: it lasts while its score is at least this and no other label begins.
        max_gap: seconds; segments of one label that are no further apart become one.
        min_length: seconds; shorter segments are dropped.
        smooth: the number of windows that scores are averaged over first; it is odd.
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
    """The borders between the stretches of time that the scores of windows stand for.

    The score of a window stands for the time around its middle, up to half-way to the middle of
    the next window; the first and the last one reach to the ends.

    Args:
        windows: (start, end) of N windows in seconds, rising.

    Returns:
        (N + 1,) seconds.
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
        names: of the K classes.
        rule: when a segment begins and ends; None for the defaults.
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
    """The mean of each window and its neighbours; the first and the last window are repeated.

    Args:
        scores: (N, K).
        count: the number of windows in a mean, odd.

    Returns:
        (N, K).
    """
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
