import numpy as np
import pytest

from videonet.data.transforms.sampling import (
    ClipSampler,
    Clock,
    dense_clip,
    dense_span,
    nearest_frames,
    segment_middle,
    segment_random,
    uneven,
)

FIRST, CENTRE, LAST = 0.0, 0.5, 1.0


@pytest.mark.parametrize(
    ("num_frames", "rate", "fps", "target", "span"),
    [
        (16, 4, 30, 30, 64),
        (16, 4, 60, 30, 128),  # a faster video: more of its frames for the same time
        (16, 4, 15, 30, 32),
        (8, 2, 25, 0, 16),  # no target rate
        (8, 2, 0, 30, 16),  # the video's rate is unknown
    ],
)
def test_dense_span_scales_with_the_rate(num_frames, rate, fps, target, span):
    assert dense_span(num_frames, rate, fps, target) == span


@pytest.mark.parametrize(
    ("frames", "num_frames", "span", "place", "expected"),
    [
        (10, 4, 4, FIRST, [0, 1, 2, 3]),
        (10, 4, 4, CENTRE, [3, 4, 5, 6]),
        (10, 4, 4, LAST, [6, 7, 8, 9]),
        (100, 4, 16, FIRST, [0, 5, 10, 15]),  # from the first to the last frame of the span
        (100, 4, 16, LAST, [84, 89, 94, 99]),
        (3, 4, 8, CENTRE, [0, 2, 2, 2]),
        (1, 4, 8, LAST, [0, 0, 0, 0]),
        (50, 1, 1, LAST, [49]),
    ],
)
def test_dense_clip(frames, num_frames, span, place, expected):
    assert dense_clip(frames, num_frames, span, place).tolist() == expected


def test_a_short_video_loops_when_asked():
    assert dense_clip(3, 7, 7, FIRST, "loop").tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert dense_clip(3, 7, 7, FIRST, "repeat_last").tolist() == [0, 1, 2, 2, 2, 2, 2]


@pytest.mark.parametrize("mode", ["dense", "segments"])
def test_random_clips_rise_stay_inside_and_repeat_with_the_seed(mode):
    sampler = ClipSampler(8, rate=3, target_fps=30, mode=mode)
    for frames in (1, 5, 24, 100):
        for seed in range(20):
            clip = sampler.random(frames, 30, np.random.default_rng(seed))
            again = sampler.random(frames, 30, np.random.default_rng(seed))
            assert clip.shape == (8,) and (clip == again).all()
            assert (np.diff(clip) >= 0).all() and clip[0] >= 0 and clip[-1] < frames


def test_random_dense_clips_reach_every_start():
    sampler = ClipSampler(4, rate=1, target_fps=30)
    rng = np.random.default_rng(0)
    starts = {int(sampler.random(10, 30, rng)[0]) for _ in range(300)}
    assert starts >= set(range(6)) and max(starts) <= 6


def test_uniform_dense_views_cover_both_ends_and_one_is_central():
    sampler = ClipSampler(4, rate=1, target_fps=30)
    assert sampler.uniform(10, 30, 1).tolist() == [[3, 4, 5, 6]]
    assert sampler.uniform(10, 30, 3).tolist() == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]


@pytest.mark.parametrize(
    ("frames", "num_frames", "expected"),
    [
        (9, 4, [1, 3, 5, 7]),
        (41, 4, [5, 15, 25, 35]),
        (1, 4, [0, 0, 0, 0]),
        (3, 4, [0, 0, 1, 2]),
    ],
)
def test_segment_middle(frames, num_frames, expected):
    assert segment_middle(frames, num_frames).tolist() == expected


def test_further_segment_clips_take_other_frames():
    views = ClipSampler(4, mode="segments").uniform(41, 30, 3)
    assert views.tolist() == [[1, 11, 21, 31], [5, 15, 25, 35], [8, 18, 28, 38]]


def test_random_segment_frames_stay_in_their_segment_and_fill_it():
    draws = np.stack([segment_random(41, 4, np.random.default_rng(k)) for k in range(400)])
    for k in range(4):
        assert set(draws[:, k].tolist()) == set(range(10 * k, 10 * k + 11))


def test_the_clock_of_even_frames_is_their_number():
    indices = np.array([0, 3, 7, 29])
    rounded = np.round(np.arange(30) / 29.97, 3)  # as containers round time stamps
    for times in (None, np.arange(30) / 29.97, rounded):
        clock = Clock.of(30, 29.97, times)
        assert (clock.places, clock.rate) == (30, 29.97)
        assert (clock.frames_at(indices) == indices).all()
    assert Clock.of(1, 25.0, np.zeros(1)).frames_at(np.array([0, 0])).tolist() == [0, 0]


def test_frames_are_found_by_their_time():
    times = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.8, 1.2, 1.6])  # the second half is slower
    seconds = np.linspace(0, 1.6, 8)
    assert nearest_frames(seconds, times).tolist() == [0, 2, 4, 5, 5, 6, 6, 7]
    clock = Clock.of(8, 7 / 1.6, times)
    assert (clock.places, clock.rate) == (17, pytest.approx(10))


def test_a_still_picture_does_not_slow_the_clip_before_it():
    """2 s at 30 frames a second, a picture for 18 s, and one more frame: 3 a second on average."""
    times = np.append(np.arange(60) / 30, 20.0)
    sampler = ClipSampler(8, rate=4, target_fps=30)
    first, still, *_ = sampler.uniform(61, 3.0, 5, times)
    assert first.tolist() == [0, 4, 8, 13, 17, 22, 26, 31]  # as of 601 even frames
    assert (first == sampler.uniform(601, 30.0, 5)[0]).all()
    assert still.tolist() == [59] * 8
    segments = ClipSampler(4, mode="segments").uniform(61, 3.0, 1, times)[0]
    assert segments.tolist() == [59, 59, 60, 60]  # at 2.5, 7.5, 12.5 and 17.5 s


def test_a_clip_of_an_uneven_video_is_even_in_time():
    times = np.concatenate([np.arange(30) / 30, 1 + np.arange(30) / 10])
    clip = ClipSampler(9, rate=6).uniform(60, 15, 1, times)[0]
    seconds = np.diff(times[clip])
    assert seconds.min() > 0.3 and seconds.max() < 0.6


def test_trimmed_clips_leave_out_the_ends_and_no_more_than_they_may():
    sampler = ClipSampler(num_frames=8, mode="segments", trim=0.4)
    rng = np.random.default_rng(0)
    clips = np.stack([sampler.random(101, 30.0, rng) for _ in range(500)])
    assert (np.diff(clips) >= 0).all() and clips.min() >= 0 and clips.max() <= 100
    spans = clips[:, -1] - clips[:, 0]
    assert spans.min() > 60 * 6 / 8 - 2 and spans.max() > 95
    assert (clips[:, 0] > 25).any() and (clips[:, -1] < 75).any()  # either end is left out
    short = np.stack([sampler.random(1, 30.0, rng) for _ in range(20)])
    assert (short == 0).all()
    plain = ClipSampler(num_frames=8, mode="segments")
    first = plain.random(101, 30.0, np.random.default_rng(1))
    assert (first == segment_random(101, 8, np.random.default_rng(1))).all()


def test_held_clips_stand_still_at_their_ends_and_no_longer_than_they_may():
    sampler = ClipSampler(num_frames=16, mode="segments", hold=0.5)
    rng = np.random.default_rng(0)
    clips = np.stack([sampler.random(161, 30.0, rng) for _ in range(500)])
    assert (np.diff(clips) >= 0).all() and clips.min() == 0 and clips.max() == 160
    before, after = (clips == 0).sum(axis=1), (clips == 160).sum(axis=1)
    assert before.max() > 5 and after.max() > 5  # either end is held
    assert (before + after).max() <= 16 * 0.5 + 2
    assert (np.stack([sampler.random(1, 30.0, rng) for _ in range(20)]) == 0).all()


def test_an_uneven_pace_keeps_the_order_and_the_ends():
    even = np.linspace(0, 1, 33)
    rng = np.random.default_rng(0)
    clips = np.stack([uneven(even, 0.0, 1.0, rng) for _ in range(500)])
    assert (np.diff(clips) > 0).all() and (clips[:, 0] == 0).all() and (clips[:, -1] == 1).all()
    middle = clips[:, 16]
    assert 0.25 <= middle.min() < 0.3 and 0.7 < middle.max() <= 0.75  # 0.5 ** 2, 1 - 0.5 ** 2
    assert abs(middle.mean() - 0.5) < 0.02
    assert (uneven(even, 0.0, 0.0, rng) == even).all()
