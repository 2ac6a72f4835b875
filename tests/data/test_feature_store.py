"""Features on disk: what comes back, going on, and refusing what does not belong."""

from __future__ import annotations

import json

import numpy as np
import pytest

from videonet.data.feature_store import (
    FAILURES,
    INDEX,
    FeatureWriter,
    VideoFeatures,
    labels_of,
    read_features,
)
from videonet.errors import ConfigError, DataError

ABOUT = {"checkpoint": "c.pyth", "weights": "1", "classes": ["a", "b"]}


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
    index = (tmp_path / INDEX).read_bytes()
    said = (
        'made by c.pyth, not by d.pyth: weights is "1" there and "2" here; nothing was '
        "changed: give another --output, or --overwrite"
    )
    other = ABOUT | {"checkpoint": "d.pyth", "weights": "2"}
    with pytest.raises(DataError, match=said):
        FeatureWriter(tmp_path, other)
    assert (tmp_path / INDEX).read_bytes() == index
    with FeatureWriter(tmp_path, ABOUT | {"checkpoint": "moved.pyth"}) as writer:
        assert writer.done == {"a.mp4"}  # the same weights, wherever they lie
    with FeatureWriter(tmp_path, other, overwrite=True) as writer:
        assert not writer.done and not list(tmp_path.glob("*.safetensors"))
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


@pytest.mark.parametrize(
    "line",
    [
        '{"video": "b.mp4", "file": "../b.safetensors", "label": 1, "clips": 1}',
        '{"video": "b.mp4", "file": "/etc/passwd", "label": 1, "clips": 1}',
        '{"video": "b.mp4", "file": "b.safetensors", "label": "1", "clips": 1}',
        '{"file": "b.safetensors"}',
        "[]",
        "7",
    ],
)
def test_an_index_from_elsewhere_names_files_of_its_folder_alone(tmp_path, line):
    with FeatureWriter(tmp_path, ABOUT) as writer:
        writer.add(video("a.mp4", 1))
    with (tmp_path / INDEX).open("a") as file:
        file.write(line + "\n")
    with pytest.raises(DataError, match="index.jsonl, line 2: "):
        read_features(tmp_path)


def test_numbers_that_no_model_gives_are_refused(tmp_path):
    bad = video("a.mp4", 2)
    bad.features[1, 0] = np.nan
    with FeatureWriter(tmp_path, ABOUT) as writer:
        writer.add(bad)
    with pytest.raises(DataError, match="a-.*not finite"):
        read_features(tmp_path)


def test_a_header_that_claims_more_than_the_file_holds(tmp_path):
    with FeatureWriter(tmp_path, ABOUT, "npy") as writer:
        writer.add(video("a.mp4", 1))
    (path,) = (p for p in tmp_path.glob("*.npy") if p.name.count(".") == 1)
    path.write_bytes(path.read_bytes().replace(b"(1, 6), ", b"(1, 60000000000), ", 1))
    with pytest.raises(DataError, match="cannot be read"):
        read_features(tmp_path)


def test_two_processes_do_not_write_to_one_folder(tmp_path):
    with FeatureWriter(tmp_path, ABOUT), pytest.raises(ConfigError, match="another process"):
        FeatureWriter(tmp_path, ABOUT)


@pytest.mark.parametrize("kind", ["safetensors", "npy"])
def test_files_have_the_rights_of_any_new_file(tmp_path, kind):
    (tmp_path / "new").touch()
    with FeatureWriter(tmp_path / "features", ABOUT, kind) as writer:
        writer.add(video("x.mp4", 1))
    rights = {path.stat().st_mode for path in (tmp_path / "features").iterdir()}
    assert rights == {(tmp_path / "new").stat().st_mode}


def test_failures_are_on_disk_until_the_next_run(tmp_path):
    with FeatureWriter(tmp_path, ABOUT) as writer:
        writer.failure("x.mp4", "cannot read x.mp4: no video")
    assert json.loads((tmp_path / FAILURES).read_text()) == {
        "video": "x.mp4",
        "error": "cannot read x.mp4: no video",
    }
    with FeatureWriter(tmp_path, ABOUT) as writer:
        assert "x.mp4" not in writer.done
    assert not (tmp_path / FAILURES).exists()
