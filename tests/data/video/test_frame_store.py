from functools import partial

import numpy as np
import pytest
import torch

from videonet.config import load_config
from videonet.data.decode import open_video
from videonet.data.loading.build import training_clips
from videonet.data.preparing.synthetic import write_demo_dataset
from videonet.data.video.frame_store import FrameStore
from videonet.errors import DecodeError, WriteError


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    write_demo_dataset(folder, train_clips=3, val_clips=1)
    return sorted(folder.rglob("*.mp4"))[:3]


def opened(path, side=24):
    return open_video(str(path), "pyav", side)


def through(store, path, side=24):
    return store.open(str(path), ("pyav", side), partial(opened, path, side))


def refuse():
    raise AssertionError("the video was opened")


def test_kept_frames_are_those_of_the_video_which_is_not_opened_again(clips, tmp_path):
    store = FrameStore(str(tmp_path / "store"), 1e9)
    wanted = [5, 0, 0, 7]
    with opened(clips[0]) as plain, through(store, clips[0]) as first:
        expected, info, times = plain.frames_at(wanted), plain.info, plain.times
        assert torch.equal(first.frames_at(wanted), expected)
    with store.open(str(clips[0]), ("pyav", 24), refuse) as again:
        assert torch.equal(again.frames_at(wanted), expected)
        assert again.info == info and (again.times == times).all()
        with pytest.raises(IndexError, match="frames"):
            again.frames_at([info.frames])
    assert len(list((tmp_path / "store").iterdir())) == 1


def test_another_size_and_a_changed_file_are_other_frames(clips, tmp_path):
    store = FrameStore(str(tmp_path / "store"), 1e9)
    path = tmp_path / "clip.mp4"
    path.write_bytes(clips[0].read_bytes())
    sides = [through(store, path, side).size[1] for side in (24, 40)]
    assert sides == [24, 40]
    path.write_bytes(clips[1].read_bytes())
    with through(store, path) as reader, opened(clips[1]) as plain:
        assert torch.equal(reader.frames_at([3]), plain.frames_at([3]))
    assert len(list((tmp_path / "store").iterdir())) == 3


def test_videos_without_room_are_read_and_not_kept(clips, tmp_path):
    with opened(clips[0]) as plain:
        size = np.prod(plain.size) * 3 * plain.info.frames
        expected = plain.frames_at([2])
    store = FrameStore(str(tmp_path / "store"), 1.5 * size)
    for path in clips:
        with through(store, path) as reader:
            assert reader.frames_at([2]).shape == expected.shape
    assert len(list((tmp_path / "store").iterdir())) == 1
    another_process = FrameStore(store.folder, store.limit)
    with through(another_process, clips[2]):
        assert len(list((tmp_path / "store").iterdir())) == 1


def test_damaged_frames_and_a_folder_that_cannot_be_written_are_one_sentence(clips, tmp_path):
    store = FrameStore(str(tmp_path / "store"), 1e9)
    through(store, clips[0]).close()
    (kept,) = (tmp_path / "store").iterdir()
    kept.write_bytes(kept.read_bytes()[:100])
    with pytest.raises(DecodeError, match=r"decoded frames, .* is damaged .*; delete it"):
        through(store, clips[0])
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="cannot write"):
        through(FrameStore(str(tmp_path / "file" / "store"), 1e9), clips[0])


def test_a_video_that_is_whole_in_parts_alone_is_read_as_ever(clips, tmp_path):
    store = FrameStore(str(tmp_path / "store"), 1e9)

    class Damaged(type(opened(clips[0]))):
        def _read(self, wanted):
            if wanted[-1] > 4:
                raise DecodeError("frame 5 is missing")
            return super()._read(wanted)

    reader = store.open(str(clips[0]), (), lambda: Damaged(str(clips[0]), 24, False, None))
    with reader, opened(clips[0]) as plain:
        assert torch.equal(reader.frames_at([1, 3]), plain.frames_at([1, 3]))
    assert not (tmp_path / "store").exists()


def test_training_clips_are_the_same_with_a_store_and_without(clips, tmp_path):
    def made(*overrides):
        make = training_clips(load_config("configs/DEMO/ViT_XS.yaml", overrides))
        return torch.cat(
            [make(str(path), (3, epoch, 0)).clips for path in clips for epoch in (0, 1)]
        )

    plain = made("AUG.ENABLE", "True")
    kept = made("AUG.ENABLE", "True", "DATA.FRAME_STORE", str(tmp_path / "store"))
    assert torch.equal(plain, kept)
    assert len(list((tmp_path / "store").iterdir())) == len(clips)
