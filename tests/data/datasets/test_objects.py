"""Data sets of objects and label maps: what is read, and what is refused."""

import copy
import json

import numpy as np
import pytest
import torch
from PIL import Image

from videonet.config import load_config
from videonet.data.datasets.classes import class_names, known_classes
from videonet.data.datasets.coco import read_objects
from videonet.data.datasets.objects import PAINTED
from videonet.data.decode import open_video
from videonet.data.loading.build import read_videos
from videonet.data.loading.dataset import annotations_of
from videonet.data.targets import ClipFrames
from videonet.errors import DataError, DecodeError

pytest.importorskip("pycocotools")


def config(folder, form, *overrides):
    values = ("TRAIN.DATASET", form, "TEST.DATASET", form, "MODEL.NAME", "mvit_v2_xs")
    return load_config(None, ["DATA.PATH_TO_DATA_DIR", str(folder), *values, *map(str, overrides)])


def targets_of(videos, number=0, indices=None, maker=None):
    """The targets of a clip of these frames, or of all, and the reader's frames."""
    annotations = annotations_of(videos)
    row, maker = annotations.rows[number], maker or annotations.maker
    with open_video(videos.paths[number], frames=maker.frames(row)) as reader:
        places = np.arange(reader.info.frames) if indices is None else np.array(indices)
        clip = ClipFrames(reader.info, places, reader.times[places])
        return maker.make(row, clip), reader.frames_at(places)


def image_file(folder, name, width=12, height=10):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height)).save(folder / name)


def coco(folder, annotations, **more):
    """A file with two images, the second one without objects."""
    for name in ("a.png", "b.png"):
        image_file(folder / "images", name)
    images = [
        {"id": 5, "file_name": "a.png", "width": 12, "height": 10},
        {"id": 3, "file_name": "b.png", "width": 12, "height": 10},
    ]
    categories = [{"id": 9, "name": "dog"}, {"id": 2, "name": "cat"}]
    content = {"images": images, "categories": categories, "annotations": annotations, **more}
    file = folder / "instances_train.json"
    file.write_text(json.dumps(content))
    return file


SQUARE = [[2, 1, 6, 1, 6, 5, 2, 5]]


def one(**more):
    return {"id": 7, "image_id": 5, "category_id": 9, "bbox": [2, 1, 4, 4], **more}


def test_images_with_and_without_objects(tmp_path):
    crowd = {"id": 8, "image_id": 5, "category_id": 2, "iscrowd": 1, "bbox": [0, 0, 12, 5]}
    crowd["segmentation"] = {"size": [10, 12], "counts": [0, 5, 5, 5, 105]}
    coco(tmp_path, [one(segmentation=SQUARE, area=16.5), crowd])
    cfg = config(tmp_path, "coco")
    assert class_names(cfg) == ["cat", "dog"]
    videos = read_videos(cfg, "train")
    assert [path.rsplit("/", 1)[1] for path in videos.paths] == ["a.png", "b.png"]
    assert videos.classes_of(0) == [0, 1] and videos.classes_of(1) == []
    targets, _ = targets_of(videos)
    assert targets["boxes"].tolist() == [[2, 1, 6, 5]] and targets["labels"].tolist() == [1]
    assert targets["instance_ids"].tolist() == [7] and targets["frames"].tolist() == [0]
    expected = torch.zeros(1, 10, 12, dtype=torch.bool)
    expected[0, 1:5, 2:6] = True
    assert torch.equal(targets["masks"].as_subclass(torch.Tensor), expected)
    empty, _ = targets_of(videos, 1)
    assert empty["boxes"].shape == (0, 4) and empty["masks"].shape == (0, 10, 12)
    assert empty["whole"].tolist() == [10, 12] and empty["seen"].tolist() == [True]
    row = videos.annotations.rows[0]
    assert row.crowd == (False, True) and row.areas == (16.5, None) and row.video == 5


def test_objects_are_painted_by_class(tmp_path):
    crowd = {"id": 8, "image_id": 5, "category_id": 2, "iscrowd": 1, "bbox": [0, 0, 12, 10]}
    crowd["segmentation"] = {"size": [10, 12], "counts": [0, 50, 70]}  # the left five columns
    inner = one(id=9, category_id=2, segmentation=[[3, 2, 5, 2, 5, 4, 3, 4]])
    videos = read_objects(coco(tmp_path, [inner, one(segmentation=SQUARE), crowd]))
    targets, _ = targets_of(videos, maker=PAINTED)
    labels = targets["label_map"][0].as_subclass(torch.Tensor)
    assert labels[9].tolist() == [0] * 5 + [1] * 7  # the crowd does not count, then background
    assert labels[1, 2:6].tolist() == [3] * 4 and labels[2, 2:6].tolist() == [3, 2, 2, 3]


def test_boxes_alone(tmp_path):
    videos = read_objects(coco(tmp_path, [one()]))
    assert "masks" not in videos.annotations.maker.specs
    assert targets_of(videos)[0]["boxes"].tolist() == [[2, 1, 6, 5]]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"category_id": 4}, "annotation 7: there is no category 4"),
        ({"bbox": [1, 2, 3]}, r"annotation 7: the box \[1, 2, 3\] is not"),
        ({"bbox": [1, 2, -3, 4]}, "annotation 7: the box"),
        ({"bbox": None, "segmentation": [[1, 2, 3]]}, "annotation 7: a polygon"),
        ({"bbox": None, "segmentation": {"size": [9, 12], "counts": ""}}, "annotation 7: a mask"),
        ({"image_id": None, "video_id": 5}, None),
    ],
)
def test_wrong_annotations_are_named(tmp_path, wrong, message):
    file = coco(tmp_path, [one(segmentation=SQUARE) | wrong])
    if message is None:  # of another image
        assert read_objects(file).classes_of(0) == []
        return
    with pytest.raises(DataError, match=f"instances_train.json, {message}"):
        read_objects(file)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"categories": []}, "there are no 'categories'"),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}, "have the same id"),
        ({"images": []}, "there are no images"),
        (
            {"images": [{"id": 1, "file_name": "a.png", "width": 3}]},
            "image 1: there is no 'height'",
        ),
        ({"images": [{"id": 1, "width": 3, "height": 3}]}, "image 1: there is no file name"),
        (
            {"images": [{"id": 1, "file_name": "z.png", "width": 3, "height": 3}]},
            "image 1: there is no video .*z.png .*names start from",
        ),
    ],
)
def test_wrong_files_are_named(tmp_path, more, message):
    with pytest.raises(DataError, match=message):
        read_objects(coco(tmp_path, [], **more))
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(DataError, match="x.json, line 1: "):
        read_objects(tmp_path / "x.json")
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(DataError, match="x.json: there are no 'images' and no 'videos'"):
        read_objects(tmp_path / "x.json")


def test_pictures_of_another_size_are_named(tmp_path):
    videos = read_objects(coco(tmp_path, [one(segmentation=SQUARE)]))
    image_file(tmp_path / "images", "a.png", width=13)
    with pytest.raises(DataError, match="image 5: it has 1 frames of 13 x 10 pixels, but 1 of 12"):
        targets_of(videos)


def test_coco_objects_are_the_pixels_of_their_masks(shared_dir):
    folder = shared_dir / "data/coco_instances"
    videos = read_videos(config(folder, "coco", "DATA.NUM_FRAMES", 1), "train")
    content = json.loads((folder / "instances.json").read_text())
    assert len(videos) == 35
    for number in range(0, 35, 6):
        targets, _ = targets_of(videos, number)
        image = content["images"][number]
        mine = [
            one
            for one in content["annotations"]
            if one["image_id"] == image["id"] and not one["iscrowd"]
        ]
        assert targets["instance_ids"].tolist() == [one["id"] for one in mine]
        areas = targets["masks"].sum(dim=(1, 2)).tolist()
        assert areas == pytest.approx([one["area"] for one in mine], rel=0.05, abs=30)


def test_videos_have_a_mask_per_frame(shared_dir):
    folder = shared_dir / "data/davis16"
    train = read_videos(config(folder, "youtube_vis"), "train")
    val = read_videos(config(folder, "youtube_vis"), "val")
    assert (len(train), len(val), len(read_videos(config(folder, "youtube_vis"), "test"))) == (
        9,
        3,
        3,
    )
    targets, frames = targets_of(val, 1, [0, 7, 15])
    assert frames.shape == (3, 480, 854, 3) and targets["frames"].tolist() == [0, 1, 2]
    name = val.paths[1].rsplit("/", 1)[1]
    for k, number in enumerate([0, 7, 15]):
        drawn = np.asarray(Image.open(folder / "masks" / name / f"{number:05}.png")) > 0
        assert np.array_equal(targets["masks"][k].numpy(), drawn)


def test_videos_in_pieces_cover_every_frame(shared_dir):
    cfg = config(
        shared_dir / "data/davis16", "youtube_vis", "TEST.EVERY_FRAME", True, "DATA.NUM_FRAMES", 6
    )
    assert len(read_videos(cfg, "train")) == 9
    pieces = read_videos(cfg, "val")
    assert len(pieces) == 9 and len(set(pieces.paths)) == 3
    numbers = [targets_of(pieces, k)[0]["numbers"].tolist() for k in range(3)]
    assert numbers == [[*range(6)], [*range(6, 12)], [*range(12, 16)]]
    whole = targets_of(read_videos(config(shared_dir / "data/davis16", "youtube_vis"), "val"))
    piece = targets_of(pieces, 1)
    assert torch.equal(piece[1], whole[1][6:12])
    assert torch.equal(piece[0]["masks"], whole[0]["masks"][6:12])


def test_only_annotated_frames_of_a_video_file_are_seen(shared_dir):
    folder = shared_dir / "data/jhmdb21"
    val = read_videos(config(folder, "youtube_vis"), "val")
    row = val.annotations.rows[0]
    assert row.frames[:3] == (0, 5, 10)
    targets, frames = targets_of(val, 0, [1, 2])
    with open_video(val.paths[0]) as reader:
        assert torch.equal(frames, reader.frames_at([5, 10]))
    assert targets["masks"].shape == (2, 240, 320) and targets["masks"].any(dim=(1, 2)).all()


def test_objects_that_leave_a_video(shared_dir):
    cells = read_videos(config(shared_dir / "data/cells", "youtube_vis"), "val")
    targets, _ = targets_of(cells, 0, [0, 36])
    first, last = (targets["instance_ids"][targets["frames"] == k].tolist() for k in (0, 1))
    assert set(first) != set(last) and set(first) & set(last)


def test_boxes_with_identities(shared_dir):
    cfg = config(
        shared_dir / "data/animal_tracks", "youtube_vis", "DATA.TRAIN_LIST", "instances_dev.json"
    )
    videos = read_videos(cfg, "train")
    targets, _ = targets_of(videos, 1, [0, 31])
    assert "masks" not in targets and len(targets["boxes"]) == 20
    assert len(set(targets["instance_ids"].tolist())) == 10


def test_frames_that_a_video_does_not_have(shared_dir):
    path = str(shared_dir / "data/animal_tracks/ten_zfish.mp4")
    with open_video(path, frames=(3, 5, 31)) as reader:
        assert reader.info.frames == 3 and reader.times[0] == 0 and len(reader.times) == 3
        assert torch.equal(reader.frames_at([2]), open_video(path).frames_at([31]))
    with pytest.raises(DecodeError, match="it has 32 frames, but number 32 is wanted"):
        open_video(path, frames=(3, 32))


def test_folders_of_numbered_masks(shared_dir):
    folder = shared_dir / "data/pennfudan"
    cfg = config(folder, "masks")
    assert class_names(cfg) == ["object"]
    videos = read_videos(cfg, "train")
    assert len(videos) == 16
    counts = [len(targets_of(videos, k)[0]["boxes"]) for k in range(16)]
    assert sum(counts) == 19
    clips = read_videos(config(shared_dir / "data/davis16", "masks"), "train")
    targets, _ = targets_of(clips, 3, [4, 2])
    assert targets["numbers"].tolist() == [4, 2] and len(targets["boxes"]) == 2
    json_form = read_objects(shared_dir / "data/davis16/instances.json")
    same, _ = targets_of(json_form, 3, [4, 2])
    assert torch.equal(targets["masks"], same["masks"])
    torch.testing.assert_close(targets["boxes"], same["boxes"])


def test_lists_and_folders_choose_a_split(tmp_path, shared_dir):
    (tmp_path / "val.txt").write_text("FudanPed00015\nPennPed00037.png\n")
    source = shared_dir / "data/pennfudan"
    cfg = config(source, "masks", "DATA.VAL_LIST", tmp_path / "val.txt")
    names = [path.rsplit("/", 1)[1] for path in read_videos(cfg, "val").paths]
    assert names == ["FudanPed00015.png", "PennPed00037.png"]
    (tmp_path / "val.txt").write_text("nobody\n")
    with pytest.raises(DataError, match="val.txt, line 1: there is no picture nobody in"):
        read_videos(cfg, "val")
    (tmp_path / "val.txt").unlink()
    for split in ("training", "validation"):
        image_file(tmp_path / "images" / split, f"{split}.jpg")
        save_labels(tmp_path / "annotations" / split / f"{split}.png", np.zeros((10, 12)))
    for split, name in (("train", "training"), ("val", "validation"), ("test", "validation")):
        found = read_videos(config(tmp_path, "label_maps", "MODEL.NUM_CLASSES", 2), split)
        assert [path.rsplit("/", 1)[1] for path in found.paths] == [f"{name}.jpg"]


def save_labels(file, labels, palette=False):
    file.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(labels.astype(np.uint8))
    if palette:
        picture = picture.convert("P")
        picture.putdata(labels.astype(np.uint8).flatten().tolist())
        picture.putpalette([0] * 768)
    picture.save(file)


@pytest.mark.parametrize("palette", [False, True])
def test_label_maps(tmp_path, palette):
    image_file(tmp_path / "images", "a.jpg")
    labels = np.zeros((10, 12))
    labels[:5], labels[5:, :3], labels[9] = 1, 2, 255
    save_labels(tmp_path / "masks/a.png", labels, palette)
    names = ("MODEL.NUM_CLASSES", 3)
    found, _ = targets_of(read_videos(config(tmp_path, "label_maps", *names), "train"))
    expected = torch.from_numpy(labels + 1).to(torch.uint8)
    expected[9] = 0
    assert torch.equal(found["label_map"][0].as_subclass(torch.Tensor), expected)
    shifted = config(tmp_path, "label_maps", "DATA.REDUCE_ZERO_LABEL", True, *names)
    found, _ = targets_of(read_videos(shifted, "train"))
    expected = torch.from_numpy(labels).to(torch.uint8)  # class 0 was 1, and 0 does not count
    expected[9] = 0
    assert torch.equal(found["label_map"][0].as_subclass(torch.Tensor), expected)
    with pytest.raises(DataError, match="a.png: the pixel 2 is no class, expected 0 … 1 or 255"):
        targets_of(read_videos(config(tmp_path, "label_maps", "MODEL.NUM_CLASSES", 2), "train"))
    image_file(tmp_path / "images", "a.jpg", width=11)
    with pytest.raises(DataError, match="a.png: its mask has 12 x 10 pixels, its picture 11 x 10"):
        targets_of(read_videos(config(tmp_path, "label_maps", *names), "train"))


def test_folders_without_masks_are_named(tmp_path):
    with pytest.raises(DataError, match="there are no folders images and masks or"):
        read_videos(config(tmp_path, "masks"), "train")
    image_file(tmp_path / "images", "a.jpg")
    (tmp_path / "masks").mkdir()
    with pytest.raises(DataError, match="there is no mask of a.jpg in"):
        read_videos(config(tmp_path, "masks"), "train")
    image_file(tmp_path / "masks", "a.png")
    with pytest.raises(DataError, match="a.png: the mask has 3 colours per pixel, expected one"):
        targets_of(read_videos(config(tmp_path, "masks"), "train"))


def test_splits_of_one_file(tmp_path):
    file = coco(tmp_path, [one()])
    content = json.loads(file.read_text())
    assert len(read_objects(file, split="val")) == 2  # nothing tells splits apart
    content["images"][0]["split"], content["images"][1]["split"] = "train", "val"
    file.write_text(json.dumps(copy.deepcopy(content)))
    for split, count in (("train", [1]), ("val", [0]), ("test", [0])):
        assert [
            len(row.labels) for row in read_objects(file, split=split).annotations.rows
        ] == count
    content["images"][1]["split"] = "other"
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match="no image has the split 'val'"):
        read_objects(file, split="val")


def test_names_of_another_task_beside_the_file_are_not_those_of_its_categories(tmp_path):
    coco(tmp_path, [one()])
    (tmp_path / "classes.txt").write_text("run\nwalk\njump\n")
    cfg = config(tmp_path, "coco")
    assert class_names(cfg) == ["cat", "dog"] and known_classes(cfg).MODEL.NUM_CLASSES == 2
    assert len(read_videos(cfg, "train")) == 2
    (tmp_path / "titles.txt").write_text("katze\nhund\n")
    assert class_names(config(tmp_path, "coco", "DATA.CLASS_NAMES", tmp_path / "titles.txt")) == [
        "katze",
        "hund",
    ]
