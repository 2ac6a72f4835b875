import logging

import pytest
import torch

from videonet.data import Batch, build_loader
from videonet.data.loading.loader import EvaluationBatches, TrainingBatches
from videonet.errors import ConfigError, DataError

FULL = (
    "AUG.ENABLE", True,
    "AUG.AA_TYPE", "rand-m7-n4-mstd0.5-inc1",
    "AUG.NUM_SAMPLE", 2,
    "DATA.TRAIN_JITTER_SCALES_RELATIVE", [0.3, 1.0],
    "DATA.TRAIN_JITTER_ASPECT_RELATIVE", [0.75, 1.3333],
)  # fmt: skip


def same(a: Batch, b: Batch) -> bool:
    return (
        torch.equal(a.clips, b.clips)
        and torch.equal(a.targets["labels"], b.targets["labels"])
        and torch.equal(a.videos, b.videos)
    )


def all_same(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(map(same, first, second))


@pytest.fixture(scope="module")
def reference(make_config, video_folder):
    """Two epochs of training batches, made without workers."""
    loader = build_loader(make_config(video_folder, *FULL), "train")
    return [list(loader), list(loader)]


def test_training_batches(reference, make_config, video_folder):
    loader = build_loader(make_config(video_folder, *FULL), "train")
    assert len(loader) == 2 and len(loader.dataset) == 11
    for epoch in reference:
        assert len(epoch) == 2
        videos = torch.cat([batch.videos for batch in epoch]).tolist()
        assert videos[::2] == videos[1::2] and len(set(videos)) == 8  # 11 videos, batches of 4
        for batch in epoch:
            assert batch.clips.shape == (8, 3, 4, 32, 32) and batch.clips.dtype == torch.uint8
            assert batch.clips.is_contiguous() and batch.targets["labels"].dtype == torch.int64
            assert batch.targets["labels"].tolist() == [v % 4 for v in batch.videos.tolist()]
            assert not batch.failures
    assert not all_same(*reference)
    first = reference[0][0]
    assert not torch.equal(first.clips[0], first.clips[1])  # two samples of a video differ


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_do_not_depend_on_the_workers(reference, make_config, video_folder, workers):
    cfg = make_config(video_folder, *FULL, "DATA_LOADER.NUM_WORKERS", workers)
    torch.manual_seed(workers)  # nor on the state of the global generator
    loader = build_loader(cfg, "train")
    assert all_same(list(loader), reference[0])
    assert all_same(list(loader), reference[1])
    loader.set_position(1, batch=1)
    assert all_same(list(loader), reference[1][1:])
    loader.set_position(0)
    assert all_same(list(loader), reference[0])


def test_another_seed_gives_other_batches(reference, make_config, video_folder):
    loader = build_loader(make_config(video_folder, *FULL, "RNG_SEED", 5), "train")
    assert not all_same(list(loader), reference[0])


def test_the_global_generator_is_left_alone(make_config, video_folder):
    loader = build_loader(make_config(video_folder, *FULL), "train")
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    next(iter(loader))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_resuming_in_the_middle_gives_the_rest(reference, make_config, video_folder):
    loader = build_loader(make_config(video_folder, *FULL), "train")
    loader.set_position(0, batch=1)
    assert all_same(list(loader), reference[0][1:])
    assert all_same(list(loader), reference[1])  # and then the next epoch, whole


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("videos", [1, 7, 12])
def test_evaluation_sees_every_video_once(world_size, videos):
    seen = []
    for rank in range(world_size):
        batches = EvaluationBatches(videos, 2, rank=rank, world_size=world_size)
        listed = list(batches)
        assert len(listed) == len(batches) and all(0 < len(batch) <= 2 for batch in listed)
        seen += [index for batch in listed for _, index in batch]
    assert sorted(seen) == list(range(videos))


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_training_ranks_share_the_same_global_batches(world_size):
    whole = list(TrainingBatches(20, 6, seed=1))
    parts = [
        list(TrainingBatches(20, 6, seed=1, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    assert len(whole) == 3
    for number, batch in enumerate(whole):
        assert sorted(batch) == sorted(sum((part[number] for part in parts), []))
        assert {len(part[number]) for part in parts} == {6 // world_size}
    indices = [index for batch in whole for _, index in batch]
    assert len(set(indices)) == 18


def test_a_set_smaller_than_a_batch_is_one_batch():
    assert [len(batch) for batch in TrainingBatches(3, 8, seed=0)] == [3]
    with pytest.raises(DataError, match="1 training videos are too few for 2 processes"):
        TrainingBatches(1, 8, seed=0, world_size=2)


def test_the_test_gives_all_views_of_every_video(make_config, video_folder):
    loader = build_loader(make_config(video_folder), "test")
    batches = list(loader)
    assert len(loader) == len(batches) == 6  # 12 views a batch, 6 views a video
    assert [b.videos.tolist() for b in batches[:1]] == [[0] * 6 + [1] * 6]
    videos = torch.cat([batch.videos for batch in batches])
    assert torch.equal(videos, torch.arange(11).repeat_interleave(6))
    assert batches[0].clips.shape == (12, 3, 4, 32, 32)
    assert all_same(list(loader), batches)  # nothing is random


def test_validation_gives_one_centre_view(make_config, video_folder, indices_in):
    batches = list(build_loader(make_config(video_folder), "val"))
    assert torch.cat([batch.videos for batch in batches]).tolist() == list(range(11))
    assert indices_in(batches[0].clips[0]) == [1, 3, 5, 8]  # a span of 8 in the middle of 10


def test_segments_and_no_flip_for_something_something(make_config, video_folder, indices_in):
    cfg = make_config(video_folder, "TRAIN.DATASET", "ssv2", "TEST.DATASET", "ssv2")
    batch = next(iter(build_loader(cfg, "val")))
    assert indices_in(batch.clips[0]) == [1, 3, 5, 8]
    assert indices_in(batch.clips[3]) == [2, 6, 9, 13]  # 16 frames: spread over all of them
    flip = build_loader(cfg, "train").dataset.make_clips.augment
    assert "Flip" not in repr(flip)
    kinetics = build_loader(make_config(video_folder), "train").dataset.make_clips.augment
    assert "Flip" in repr(kinetics)


def test_colour_jitter_only_without_a_policy(make_config, video_folder):
    def steps(*overrides):
        cfg = make_config(video_folder, *overrides)
        return repr(build_loader(cfg, "train").dataset.make_clips.augment)

    assert "ColorJitter" not in steps() and "RandAugment" not in steps()
    assert "ColorJitter" in steps("AUG.ENABLE", True, "AUG.AA_TYPE", "")
    both = steps("AUG.ENABLE", True)
    assert "RandAugment" in both and "ColorJitter" not in both


def test_the_test_list(make_config, video_folder, tmp_path, caplog):
    video = video_folder / "v0.mp4"
    for name, lines in (("val.csv", 2), ("test.csv", 3), ("other.csv", 4)):
        (tmp_path / name).write_text(f"{video} 0\n" * lines)
    with caplog.at_level(logging.INFO, logger="videonet.data"):
        assert len(build_loader(make_config(tmp_path), "test").dataset) == 3
        named = make_config(tmp_path, "DATA.TEST_LIST", "other.csv")
        assert len(build_loader(named, "test").dataset) == 4
        assert not caplog.records
        (tmp_path / "test.csv").unlink()
        assert len(build_loader(make_config(tmp_path), "test").dataset) == 2
    assert "testing on val.csv" in caplog.text


@pytest.fixture
def damaged_folder(video_folder, tmp_path):
    """Nine good videos and one that is none, number 4."""
    (tmp_path / "bad.mp4").write_bytes(b"no video" * 100)
    names = [str(video_folder / f"v{k}.mp4") for k in range(9)]
    names.insert(4, "bad.mp4")
    text = "".join(f"{name} {k % 4}\n" for k, name in enumerate(names))
    (tmp_path / "train.csv").write_text(text)
    (tmp_path / "val.csv").write_text(text)
    return tmp_path


@pytest.mark.parametrize("workers", [0, 2])
def test_training_replaces_what_cannot_be_read(make_config, damaged_folder, workers, caplog):
    cfg = make_config(
        damaged_folder,
        "DATA.MAX_BAD_SHARE", 0.1,
        "TRAIN.BATCH_SIZE", 5,
        "DATA_LOADER.NUM_WORKERS", workers,
    )  # fmt: skip
    runs = []
    for _ in range(2):
        batches = list(build_loader(cfg, "train"))
        failures = [failure for batch in batches for failure in batch.failures]
        videos = torch.cat([batch.videos for batch in batches]).tolist()
        assert len(videos) == 10 and 4 not in videos
        assert {failure.index for failure in failures} == {4}
        assert failures[0].path.endswith("bad.mp4") and "cannot read" in failures[0].reason
        for batch in batches:
            assert batch.targets["labels"].tolist() == [
                video % 4 for video in batch.videos.tolist()
            ]
        runs.append(batches)
    assert all_same(*runs)
    assert "bad.mp4" in caplog.text


def test_too_many_bad_videos_stop_the_training(make_config, damaged_folder):
    cfg = make_config(damaged_folder, "TRAIN.BATCH_SIZE", 5)
    with pytest.raises(DataError, match="1 of 10 videos .*MAX_BAD_SHARE = 0.05 .*bad.mp4"):
        list(build_loader(cfg, "train"))


@pytest.mark.parametrize("split", ["val", "test"])
def test_evaluation_leaves_out_what_cannot_be_read(make_config, damaged_folder, split):
    clips = 6 if split == "test" else 1  # one video a batch
    cfg = make_config(damaged_folder, "TRAIN.BATCH_SIZE", 1, "TEST.BATCH_SIZE", clips)
    batches = list(build_loader(cfg, split))
    assert len(batches) == 10 and len(batches[4].videos) == len(batches[4].targets["labels"]) == 0
    assert batches[4].clips.shape == (0, 3, 4, 32, 32) and batches[4].clips.dtype == torch.uint8
    assert [failure.index for failure in batches[4].failures] == [4]
    seen = torch.cat([batch.videos for batch in batches]).unique().tolist()
    assert seen == [0, 1, 2, 3, 5, 6, 7, 8, 9]


def test_a_set_without_readable_videos(make_config, tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"no video" * 100)
    (tmp_path / "train.csv").write_text("bad.mp4 0\nbad.mp4 1\n")
    loader = build_loader(make_config(tmp_path, "DATA.MAX_BAD_SHARE", 1.0), "train")
    with pytest.raises(DataError, match="in a row cannot be read.*bad.mp4"):
        list(loader)


def test_wrong_requests(make_config, video_folder, tmp_path):
    with pytest.raises(ConfigError, match="unknown split 'valid'"):
        build_loader(make_config(video_folder), "valid")
    with pytest.raises(ConfigError, match="BATCH_SIZE is 4, expected a multiple of the 3"):
        build_loader(make_config(video_folder), "train", world_size=3)
    with pytest.raises(DataError, match="train.csv: there is no such list"):
        build_loader(make_config(tmp_path), "train")
