"""Hysteresis, merging and borders, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from videonet.errors import ConfigError
from videonet.tasks.segments import Hysteresis, cell_borders, merge_segments

NAMES = ["a", "b"]


def windows(count: int, stride: float = 1.0, length: float = 2.0):
    return [(k * stride, k * stride + length) for k in range(count)]


def scores(*of_a: float) -> np.ndarray:
    return np.array([[a, 0.0] for a in of_a])


def spans(segments):
    return [(s.label, s.start, s.end) for s in segments]


def test_borders_lie_between_the_middles():
    assert cell_borders(windows(4)).tolist() == [0.0, 1.5, 2.5, 3.5, 5.0]


def test_a_segment_begins_high_and_lasts_until_low():
    track = scores(0.1, 0.4, 0.6, 0.4, 0.35, 0.2, 0.4)
    (segment,) = merge_segments(windows(7), track, NAMES, Hysteresis(0.5, 0.3))
    assert (segment.label, segment.start, segment.end) == ("a", 2.5, 5.5)
    assert segment.score == pytest.approx((0.6 + 0.4 + 0.35) / 3)


def test_another_label_takes_over():
    track = np.array([[0.9, 0.1], [0.6, 0.4], [0.4, 0.6], [0.1, 0.9]])
    assert spans(merge_segments(windows(4), track, NAMES)) == [("a", 0.0, 2.5), ("b", 2.5, 5.0)]


def test_gaps_are_bridged_and_short_segments_dropped():
    track = scores(0.9, 0.9, 0.1, 0.9, 0.1, 0.1, 0.1, 0.9)
    bridged = merge_segments(windows(8), track, NAMES, Hysteresis(max_gap=1.0))
    assert spans(bridged) == [("a", 0.0, 4.5), ("a", 7.5, 9.0)]
    long = merge_segments(windows(8), track, NAMES, Hysteresis(max_gap=1.0, min_length=2.0))
    assert spans(long) == [("a", 0.0, 4.5)]


def test_smoothing_removes_what_lasts_one_window():
    track = scores(0.9, 0.9, 0.0, 0.9, 0.9)
    (segment,) = merge_segments(windows(5), track, NAMES, Hysteresis(smooth=3))
    assert (segment.start, segment.end) == (0.0, 6.0)
    assert segment.score == pytest.approx(0.72)  # of 0.9, 0.6, 0.6, 0.6, 0.9
    with pytest.raises(ConfigError, match="odd"):
        Hysteresis(smooth=2)


def test_one_window_and_none():
    assert spans(merge_segments([(0.0, 0.4)], scores(0.9), NAMES)) == [("a", 0.0, 0.4)]
    assert merge_segments([], np.zeros((0, 2)), NAMES) == []


def test_thresholds_that_contradict_each_other():
    with pytest.raises(ConfigError, match="off <= on"):
        Hysteresis(on=0.3, off=0.5)
