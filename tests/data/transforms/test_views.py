import pytest
import torch

from videonet.data.decode import open_video
from videonet.data.transforms.sampling import ClipSampler
from videonet.data.transforms.views import video_views


@pytest.fixture(scope="module")
def video(make_video, tmp_path_factory):
    return make_video(tmp_path_factory.mktemp("views") / "clip.mp4", frames=30)


def test_views_are_temporal_major(video, indices_in):
    sampler = ClipSampler(4, rate=2, target_fps=30)
    with open_video(video, short_side=32) as reader:
        views = video_views(reader, sampler, crop_size=32, temporal=2, spatial=3)
    assert views.shape == (6, 3, 4, 32, 32) and views.dtype == torch.uint8
    shown = [indices_in(view) for view in views]
    assert shown[:3] == [[0, 2, 4, 7]] * 3 and shown[3:] == [[22, 24, 26, 29]] * 3
    bright = [(view[0, 0, :, 0] > 220).all().item() for view in views]
    assert bright == [True, False, False] * 2  # only the left crop holds the left edge


def test_each_frame_is_decoded_once(video, monkeypatch):
    sampler = ClipSampler(16, rate=1)
    with open_video(video, short_side=32) as reader:
        asked = []
        frames_at = reader.frames_at
        monkeypatch.setattr(reader, "frames_at", lambda i: asked.append(i) or frames_at(i))
        video_views(reader, sampler, crop_size=32, temporal=5, spatial=1)
    assert len(asked) == 1 and len(asked[0]) == len(set(asked[0].tolist())) == 30


def test_any_frame_size_will_do(video):
    with open_video(video) as reader:
        views = video_views(reader, ClipSampler(4), crop_size=20, temporal=1, spatial=1)
    assert views.shape == (1, 3, 4, 20, 20)
