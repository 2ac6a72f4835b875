import numpy as np
import pytest
import torch
from PIL import Image

from videonet.data import build_loader
from videonet.data.datasets.classes import class_names
from videonet.data.datasets.folders import class_folders, read_folders
from videonet.data.decode import open_video
from videonet.data.loading.build import evaluation_views, read_videos
from videonet.errors import DataError, DecodeError


def write_frames(folder, count=12, first=1, width=64, height=48):
    """Frame k is grey ``20 + 10 k`` with a bright left edge."""
    folder.mkdir(parents=True)
    for k in range(count):
        picture = np.full((height, width, 3), 20 + 10 * k, dtype=np.uint8)
        picture[:, : width // 8] = 255
        Image.fromarray(picture).save(folder / f"{first + k:06d}.jpg", quality=95)
    return folder


def shown(frames):
    return ((frames[:, 24, 32].float().mean(-1) - 20) / 10).round().int().tolist()


@pytest.fixture
def folders(tmp_path, video_folder):
    """train and val with two classes; one video is a folder of frames."""
    for k, name in enumerate(("train/walk", "train/eat", "val/eat")):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "a.mp4").symlink_to(video_folder / f"v{k}.mp4")
    (tmp_path / "train" / "eat" / "B.MP4").symlink_to(video_folder / "v3.mp4")
    write_frames(tmp_path / "train" / "walk" / "c")
    (tmp_path / "train" / ".cache").mkdir()
    return tmp_path


def test_a_folder_per_class(folders):
    classes = class_folders(folders / "train")
    assert classes == ["eat", "walk"]
    videos = read_folders(folders / "train", classes)
    names = [path.removeprefix(f"{folders}/train/") for path in videos.paths]
    assert names == ["eat/B.MP4", "eat/a.mp4", "walk/a.mp4", "walk/c"]
    assert videos.labels.tolist() == [0, 0, 1, 1]


def test_the_loader_reads_folders(folders, make_config):
    kinds = ("TRAIN.DATASET", "folder", "TEST.DATASET", "folder", "MODEL.NUM_CLASSES", 2)
    cfg = make_config(folders, *kinds)
    batches = list(build_loader(cfg, "train"))
    assert sorted(torch.cat([b.videos for b in batches]).tolist()) == [0, 1, 2, 3]
    assert class_names(cfg) == ["eat", "walk"]
    assert read_videos(cfg, "val").labels.tolist() == [0]
    assert len(read_videos(cfg, "test")) == 1
    with pytest.raises(DataError, match="names 2 classes, but MODEL.NUM_CLASSES is 3"):
        build_loader(make_config(folders, *kinds[:-1], 3), "train")


def test_images_are_videos_of_one_frame(tmp_path, make_config):
    for split, count in (("train", 2), ("val", 1)):
        for name in ("n0", "n1"):
            write_frames(tmp_path / split / name, count=count)
    (tmp_path / "train/n0/000001.jpg").rename(tmp_path / "train/n0/A.JPEG")
    kinds = ("TRAIN.DATASET", "folder", "TEST.DATASET", "folder", "MODEL.NUM_CLASSES", 2)
    kinds += ("DATA.NUM_FRAMES", 1, "TEST.CROP_RATIO", 0.5, "TEST.NUM_SPATIAL_CROPS", 1)
    cfg = make_config(tmp_path, *kinds)
    (batch,) = build_loader(cfg, "train")
    assert batch.clips.shape[:3] == (4, 3, 1) and not batch.failures
    assert sorted(batch.targets["labels"].tolist()) == [0, 0, 1, 1]
    batch = next(iter(build_loader(cfg, "test")))
    # The bright edge, an eighth of the width, is outside of the middle half.
    assert batch.clips.shape[2] == 1 and (batch.clips < 100).all()
    with open_video(tmp_path / "val/n1/000001.jpg", short_side=24) as reader:
        assert reader.info.frames == 1 and reader.frames_at([0, 0]).shape == (2, 24, 32, 3)


def test_frames_are_resized_as_the_config_says(tmp_path, make_config):
    """A bright column, 4 pixels of 64 wide: a cubic curve goes below the dark beside it."""
    picture = np.full((64, 64, 3), 100, dtype=np.uint8)
    picture[:, 30:34] = 250
    Image.fromarray(picture).save(tmp_path / "a.png")
    darkest = {}
    for name in ("bilinear", "bicubic"):
        size = ("DATA.TEST_CROP_SIZE", 16, "TEST.INTERPOLATION", name, "DATA.NUM_FRAMES", 1)
        cfg = make_config(
            tmp_path, *size, "TEST.NUM_ENSEMBLE_VIEWS", 1, "TEST.NUM_SPATIAL_CROPS", 1
        )
        clips = evaluation_views(cfg)(str(tmp_path / "a.png")).clips
        assert clips.shape == (1, 3, 1, 16, 16)
        darkest[name] = int(clips.min())
    assert darkest["bilinear"] >= 99 and darkest["bicubic"] < 95


def test_an_image_is_turned_as_its_camera_was(tmp_path):
    picture = Image.fromarray(np.zeros((20, 40, 3), dtype=np.uint8))
    exif = picture.getexif()
    exif[0x0112] = 6  # a quarter turn
    picture.save(tmp_path / "a.jpg", exif=exif)
    with open_video(tmp_path / "a.jpg") as reader:
        assert reader.frames_at([0]).shape == (1, 40, 20, 3)


def test_images_that_cannot_be_used(folders, tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    with pytest.raises(DecodeError, match="cannot read .*a.jpg: cannot identify"):
        open_video(tmp_path / "a.jpg")
    Image.new("RGB", (8, 8)).save(folders / "train" / "eat" / "b.png")
    with pytest.raises(DataError, match="eat/b.png is a picture among videos"):
        read_folders(folders / "train", ["eat", "walk"])


def test_folders_that_cannot_be_used(folders, tmp_path):
    with pytest.raises(DataError, match="no such folder, expected one folder per class"):
        class_folders(tmp_path / "nowhere")
    with pytest.raises(DataError, match="the training data has no class 'walk'"):
        read_folders(folders / "train", ["eat"])
    (folders / "train" / "eat" / "notes.txt").write_text("")
    with pytest.raises(DataError, match="notes.txt is not a video"):
        read_folders(folders / "train", ["eat", "walk"])


@pytest.mark.parametrize("first", [0, 1])
def test_a_folder_of_frames(tmp_path, first):
    folder = write_frames(tmp_path / "clip", first=first)
    with open_video(folder, frames_fps=10) as reader:
        assert reader.info.frames == 12 and reader.info.fps == 10
        assert (reader.info.width, reader.info.height) == (64, 48)
        assert reader.times == pytest.approx(np.arange(12) / 10)
        assert shown(reader.frames_at([5, 0, 11, 5])) == [5, 0, 11, 5]
    with open_video(folder, short_side=24) as reader:
        assert reader.frames_at([3]).shape == (1, 24, 32, 3)


def test_frames_that_cannot_be_read(tmp_path):
    with pytest.raises(DecodeError, match="no pictures like 000001.jpg"):
        open_video(tmp_path)
    folder = write_frames(tmp_path / "gap")
    (folder / "000004.jpg").unlink()
    with pytest.raises(DecodeError, match="gap: picture number 4 is missing"):
        open_video(folder)
    folder = write_frames(tmp_path / "bad")
    (folder / "000004.jpg").write_bytes(b"no picture")
    with pytest.raises(DecodeError, match="bad: 000004.jpg: "), open_video(folder) as reader:
        reader.frames_at([3])
    folder = write_frames(tmp_path / "sizes")
    (write_frames(tmp_path / "other", width=32) / "000004.jpg").rename(folder / "000004.jpg")
    with pytest.raises(DecodeError, match="000004.jpg has .32, 48. pixels"):
        open_video(folder).frames_at([3])


def test_lists_of_frame_folders_and_several_labels(tmp_path, make_config):
    for k in range(4):
        write_frames(tmp_path / f"clip{k}")
    (tmp_path / "train.csv").write_text("".join(f"clip{k} {k},{(k + 1) % 4}\n" for k in range(4)))
    kinds = ("TRAIN.DATASET", "multilabel", "TEST.DATASET", "multilabel")
    kinds += ("MODEL.LOSS_FUNC", "bce_logit")
    for workers in (0, 1):
        cfg = make_config(tmp_path, *kinds, "DATA_LOADER.NUM_WORKERS", workers, "AUG.NUM_SAMPLE", 2)
        (batch,) = build_loader(cfg, "train")
        assert (
            batch.targets["labels"].shape == (8, 4)
            and batch.targets["labels"].dtype == torch.float32
        )
        for label, video in zip(batch.targets["labels"], batch.videos, strict=True):
            assert label.nonzero().flatten().tolist() == sorted([int(video), (int(video) + 1) % 4])
