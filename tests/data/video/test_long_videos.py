"""Videos that are too long to be read to their end are read in places."""

import numpy as np

from videonet.data.datasets.arrays import PathArray
from videonet.data.datasets.lists import VideoList
from videonet.data.preparing import verify as verifying
from videonet.data.video.pyav_reader import PyAVReader


def rows(paths, folder, monkeypatch, longest):
    read = []
    forwards = PyAVReader.forwards
    monkeypatch.setattr(
        PyAVReader, "forwards", lambda self, *a: (read.append(self.path), forwards(self, *a))[1]
    )
    examiner = verifying.Examiner(longest=longest)
    return [examiner(str(path)) for path in paths], read


def test_a_long_video_is_read_in_places(make_video, tmp_path, monkeypatch):
    paths = [
        make_video(tmp_path / "long.mp4", frames=30, fps=10),
        make_video(tmp_path / "short.mp4"),
    ]
    found, read = rows(paths, tmp_path, monkeypatch, longest=1.0)
    assert read == [str(paths[1])]
    whole, _ = rows(paths, tmp_path, monkeypatch, longest=0.0)
    for key in ("frames", "fps", "width", "duration", "digest", "reason"):
        assert [row[key] for row in found] == [row[key] for row in whole]


def test_a_long_video_that_is_cut_is_found(make_video, tmp_path, monkeypatch):
    path = make_video(tmp_path / "cut.mp4", frames=30, fps=10)
    path.write_bytes(path.read_bytes()[:-400])
    (row,), _ = rows([path], tmp_path, monkeypatch, longest=1.0)
    assert row["reason"]


def test_verify_takes_the_limit(make_video, tmp_path):
    path = make_video(tmp_path / "v.mp4", frames=30, fps=10)
    videos = VideoList(
        str(tmp_path / "l.csv"), PathArray([str(path)]), np.zeros(1, int), str(tmp_path)
    )
    _, _, (row,) = verifying.verify(videos, longest=1.0)
    assert row["frames"] == 30 and not row["reason"]
