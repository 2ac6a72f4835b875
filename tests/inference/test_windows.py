"""Sliding windows: which frames, when, and how much is held."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from videonet.data.transforms.sampling import SEGMENTS, ClipSampler, dense_clip
from videonet.errors import ConfigError
from videonet.inference.windows import SlidingPlan, WindowBuffer, sliding_windows


def numbered(times, seen: list[int] | None = None):
    """Frames whose one pixel is their number; `seen` gets the numbers that are converted."""

    def picture(k: int):
        def make() -> np.ndarray:
            if seen is not None:
                seen.append(k)
            return np.full((1, 1, 3), k % 251, dtype=np.uint8)

        return make

    return ((time, picture(k)) for k, time in enumerate(times))


def prepare(picture: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(picture).permute(2, 0, 1).unsqueeze(0)  # (1, 3, 1, 1)


def run(times, plan: SlidingPlan, first: int = 0):
    """(index, start, end, numbers of the frames) of every window."""
    windows = sliding_windows(numbered(times), WindowBuffer(plan, prepare, first=first))
    return [(w.index, w.start, w.end, w.clips[0, 0, :, 0, 0].tolist()) for w in windows]


def test_windows_of_an_even_video_are_its_dense_clips():
    fps = 30.0
    plan = SlidingPlan.make(ClipSampler(8, 4, target_fps=30.0), fps, stride=0.5)
    assert (plan.length, plan.stride) == (32, 15)
    found = run(np.arange(92) / fps, plan)
    assert [w[0] for w in found] == [0, 1, 2, 3, 4]
    for index, start, end, frames in found:
        assert start == pytest.approx(index * 0.5) and end == pytest.approx(start + 32 / 30)
        expected = index * 15 + dense_clip(32, 8, 32.0, 0.0)
        assert frames == expected.tolist()


def test_segment_models_see_the_middle_of_each_part_of_a_window():
    plan = SlidingPlan.make(ClipSampler(4, mode=SEGMENTS), 10.0, window=2.0, stride=1.0)
    (_, _, _, frames), *_ = run(np.arange(40) / 10, plan)
    assert frames == ClipSampler(4, mode=SEGMENTS).uniform(20, 10.0, 1)[0].tolist()


@pytest.mark.parametrize("frames", [1, 2, 7, 8, 9, 11, 12, 13, 40])
@pytest.mark.parametrize("stride", [1, 3, 4, 8])
def test_every_frame_is_covered_and_the_count_is_foretold(frames, stride):
    plan = SlidingPlan(8, stride, tuple(range(8)), 10.0)
    found = run(np.arange(frames) / 10, plan)
    assert len(found) == plan.count(frames / 10)
    covered = set().union(*(w[3] for w in found))
    assert covered == set(range(frames))
    for index, _, _, numbers in found:
        start = index * stride
        assert numbers == [min(start + k, frames - 1) for k in range(8)]
    assert found[-1][2] == pytest.approx(max(frames, 0) / 10)


def test_uneven_frames_are_taken_by_time():
    plan = SlidingPlan(4, 4, (0, 1, 2, 3), 10.0)
    times = [0.0, 0.04, 0.09, 0.21, 0.31, 0.33, 0.5]
    ((_, _, _, first), (_, _, _, second)) = run(times, plan)
    assert first == [0, 2, 3, 4]  # 0.0, 0.1, 0.2, 0.3
    assert second[:2] == [5, 6]  # 0.4 is nearer to 0.33, 0.5


def test_a_result_comes_with_the_frame_that_completes_its_window():
    plan = SlidingPlan(8, 3, (0, 3, 6), 10.0)
    assert plan.lag == pytest.approx(0.35)
    buffer, came = WindowBuffer(plan, prepare), {}
    for k, (time, picture) in enumerate(numbered(np.arange(50) / 10)):
        for window in buffer.push(time, picture):
            came[window.index] = k
    assert came == {index: index * 3 + 7 for index in range(15)}


def test_only_wanted_frames_are_converted_and_few_are_held():
    plan = SlidingPlan(64, 32, tuple(range(0, 64, 8)), 30.0)
    buffer, seen = WindowBuffer(plan, prepare), []
    most = 0
    for time, picture in numbered(np.arange(5000) / 30, seen):
        list(buffer.push(time, picture))
        most = max(most, len(buffer._kept))
    assert sorted(set(seen)) == list(range(0, 5000, 8)) == seen  # each once
    assert most <= 8


def test_going_on_at_a_later_window():
    plan = SlidingPlan(8, 3, (0, 3, 6), 10.0)
    whole = run(np.arange(50) / 10, plan)
    buffer = WindowBuffer(plan, prepare, first=6)
    frames = list(numbered(np.arange(50) / 10))[17:]
    rest = [(w.index, w.clips[0, 0, :, 0, 0].tolist()) for w in sliding_windows(frames, buffer)]
    assert rest == [(w[0], w[3]) for w in whole[6:]]


@pytest.mark.parametrize("wrong", [{"window": 0.0}, {"stride": -1.0}, {"fps": 0.0}])
def test_lengths_that_are_not_above_zero(wrong):
    with pytest.raises(ConfigError, match="above 0"):
        SlidingPlan.make(ClipSampler(4), **({"fps": 10.0} | wrong))


def test_frames_of_whole_videos_say_no_length():
    sampler = ClipSampler(4, 4, mode=SEGMENTS)
    with pytest.raises(ConfigError, match=r"DATA\.SAMPLING segments.*--window"):
        SlidingPlan.make(sampler, 30.0)
    assert SlidingPlan.make(sampler, 30.0, 2.0).length == 60
