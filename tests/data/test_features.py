"""Features on disk: what comes back, going on, and refusing what does not belong."""

from __future__ import annotations

import numpy as np
import pytest

from videonet.data.features import (
    INDEX,
    FeatureWriter,
    VideoFeatures,
    labels_of,
    read_features,
)
from videonet.errors import ConfigError, DataError

ABOUT = {"checkpoint": "c.pyth", "classes": ["a", "b"]}


def video(name: str, clips: int, label: int | None = 1) -> VideoFeatures:
    rng = np.random.default_rng(clips)
    frames = rng.normal(size=(clips, 4, 6)).astype(np.float32)
    times = np.cumsum(np.ones((clips, 2), dtype=np.float32), axis=0)
    return VideoFeatures(name, frames.mean(axis=1), times, frames, label)


@pytest.mark.parametrize("kind", ["safetensors", "npy"])
def test_what_is_written_comes_back_and_more_can_follow(tmp_path, kind):
    with FeatureWriter(tmp_path, ABOUT, kind) as writer:
        assert not writer.done
        writer.add(video("x/clip.mp4", 3))
    with (tmp_path / INDEX).open("a") as file:
        file.write('{"video": "y/cl')  # stopped in the middle of a line
    with FeatureWriter(tmp_path, ABOUT, kind) as writer:
        assert writer.done == {"x/clip.mp4"}
        writer.add(video("y/clip.mp4", 2, None))
    first, second = read_features(tmp_path)
    for found, expected in ((first, video("x/clip.mp4", 3)), (second, video("y/clip.mp4", 2))):
        assert found.video == expected.video
        for part in ("features", "times", "frames"):
            assert np.array_equal(getattr(found, part), getattr(expected, part))
    assert (first.label, second.label) == (1, None)
    with pytest.raises(DataError, match=r"y/clip\.mp4 has the label None"):
        labels_of([first, second], 2)


def test_features_of_another_model_are_not_mixed_in(tmp_path):
    with FeatureWriter(tmp_path, ABOUT) as writer:
        writer.add(video("a.mp4", 1))
    with pytest.raises(DataError, match="checkpoint is 'c.pyth'"):
        FeatureWriter(tmp_path, ABOUT | {"checkpoint": "d.pyth"})
    with pytest.raises(ConfigError, match="csv"):
        FeatureWriter(tmp_path / "new", ABOUT, "csv")


def test_folders_that_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match="no features"):
        read_features(tmp_path)
    with FeatureWriter(tmp_path, ABOUT) as writer:
        writer.add(video("a.mp4", 1))
    (path,) = tmp_path.glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(DataError, match=r"a-.*safetensors"):
        read_features(tmp_path)
