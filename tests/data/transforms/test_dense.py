"""Pictures of any shape with their boxes and masks: resized, cropped, padded, batched."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.tv_tensors import BoundingBoxes, Mask

from videonet.config import load_config
from videonet.data import build_loader
from videonet.data.datasets.objects import MASKS
from videonet.data.targets import TargetMaker
from videonet.data.transforms.clip import RandomFlip
from videonet.data.transforms.dense import (
    LargeScaleJitter,
    Pad,
    ScaleAndCrop,
    ShortSideResize,
    WholePicture,
    scaled,
)
from videonet.errors import ConfigError

BOXES = [(14, 9, 37, 31), (50, 30, 63, 47)]
GREY = [100, 100, 100]


def picture(height=48, width=64, frames=2):
    """A clip with a red and a green box in every frame, and their targets."""
    clip = torch.zeros(frames, 3, height, width, dtype=torch.uint8)
    masks = torch.zeros(frames * len(BOXES), height, width, dtype=torch.bool)
    for k, (x0, y0, x1, y1) in enumerate(BOXES):
        clip[:, k, y0:y1, x0:x1] = 255
        masks[k :: len(BOXES), y0:y1, x0:x1] = True
    size = height, width
    rows = torch.arange(frames).repeat_interleave(len(BOXES))
    return clip, {
        "boxes": BoundingBoxes(
            BOXES * frames, format="XYXY", canvas_size=size, dtype=torch.float32
        ),
        "labels": torch.arange(2).repeat(frames),
        "frames": rows,
        "instance_ids": torch.arange(2).repeat(frames),
        "numbers": torch.arange(frames),
        "seen": torch.ones(frames, dtype=torch.bool),
        "whole": torch.tensor(size),
        "size": torch.tensor(size),
        "masks": Mask(masks),
    }


def plain(value):
    return value.as_subclass(torch.Tensor)


CROPS = {
    "short side": ShortSideResize([30, 70], 90),
    "crop first": ShortSideResize([30, 40], 60, [40, 60], (20, 44)),
    "jitter": LargeScaleJitter(50, (0.3, 2.0)),
    "jitter up": LargeScaleJitter(40, (1.5, 2.0)),
    "semantic": ScaleAndCrop(40, (64, 48), (0.5, 2.0)),
}


@pytest.mark.parametrize("name", CROPS)
def test_boxes_and_masks_say_where_the_pixels_are(name):
    crop, shapes, cut = CROPS[name], set(), 0
    for seed in range(25):
        clip, targets = picture()
        torch.manual_seed(seed)
        moved, found = RandomFlip(0.5)(*crop(clip, targets))
        torch.manual_seed(seed)
        assert torch.equal(RandomFlip(0.5)(crop(clip)), moved)  # the same draw without targets
        assert torch.equal(moved[0], moved[1])  # and for all frames
        height, width = moved.shape[-2:]
        assert height <= crop.shape[0] and width <= crop.shape[1]
        assert found["size"].tolist() == [height, width]
        shapes.add((height, width))
        for row, (label, frame) in enumerate(zip(found["labels"], found["frames"], strict=True)):
            shown = moved[frame, label] > 127
            mask = plain(found["masks"][row])
            assert (mask != shown).float().mean() < 0.05
            if not shown.any():
                continue
            rows, columns = shown.nonzero(as_tuple=True)
            around = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            box = plain(found["boxes"])[row]
            limits = torch.tensor([width, height] * 2)
            inside = box.clamp(torch.zeros(4), limits)
            assert (inside - torch.tensor(around)).abs().max() <= 1.5, (seed, box, around)
            cut += not torch.equal(inside, box)
    assert len(shapes) > 1 or name == "jitter up"
    assert not cut or name == "semantic"  # boxes of the others are made anew where they are cut


def test_sizes_are_those_of_detectron2():
    assert scaled((480, 640), 800, 1333) == (800, 1067)
    assert scaled((480, 854), 800, 1333) == (749, 1333)
    assert scaled((427, 640), 600) == (600, 899)
    assert scaled((3, 900), 2, 100) == (1, 100)  # 1/3 of a pixel is still one


def test_an_object_that_is_cut_off_gets_the_box_of_the_rest():
    """An L whose upright part is outside the crop leaves the low part of its foot."""
    clip = torch.zeros(1, 3, 60, 60, dtype=torch.uint8)
    mask = torch.zeros(1, 60, 60, dtype=torch.bool)
    mask[0, 0:60, 0:10], mask[0, 50:60, 0:40] = True, True
    box = BoundingBoxes([[0.0, 0, 40, 60]], format="XYXY", canvas_size=(60, 60))
    crop = LargeScaleJitter(30, (2.0, 2.0))
    for seed in range(40):
        torch.manual_seed(seed)
        _, found = crop(clip, {"boxes": box, "masks": Mask(mask)})
        shown = plain(found["masks"])[0]
        if not shown.any():
            assert plain(found["boxes"]).tolist() == [[0, 0, 0, 0]]
            continue
        rows, columns = shown.nonzero(as_tuple=True)
        expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert plain(found["boxes"])[0].tolist() == [float(side) for side in expected]


def test_emptied_objects_are_left_out_and_empty_pictures_stay():
    maker = TargetMaker(MASKS, None)
    crop, pad = LargeScaleJitter(24, (4.0, 4.0)), Pad((40, 40), GREY)
    counts = set()
    for seed in range(30):
        clip, targets = picture()
        torch.manual_seed(seed)
        found = maker.finish(pad(*crop(clip, targets))[1], (3, 2, 40, 40))
        assert len(found["masks"]) == len(found["boxes"]) == len(found["labels"])
        assert found["masks"].flatten(1).any(dim=1).all()
        counts.add(len(found["boxes"]))
    assert {0, 2} <= counts  # none, or one object in both frames
    clip, targets = picture()
    none = {
        k: v[:0] if k in ("labels", "frames", "instance_ids") else v for k, v in targets.items()
    }
    none["masks"] = Mask(plain(targets["masks"])[:0])
    none["boxes"] = BoundingBoxes(torch.zeros(0, 4), format="XYXY", canvas_size=(48, 64))
    for crop in CROPS.values():
        found = maker.finish(Pad((96, 96), GREY)(*crop(clip, none))[1], (3, 2, 96, 96))
        assert found["boxes"].shape == (0, 4) and found["masks"].shape == (0, 96, 96)


def test_padding_is_to_the_right_and_below():
    clip, targets = picture()
    padded, found = Pad((64, 96), GREY)(clip, targets)
    assert torch.equal(padded[..., :48, :64], clip) and (padded[..., 48:, :] == 100).all()
    assert (padded[..., 64:] == 100).all() and found["size"].tolist() == [48, 64]
    assert torch.equal(plain(found["masks"])[:, :48, :64], plain(targets["masks"]))
    assert plain(found["masks"]).sum() == plain(targets["masks"]).sum()
    assert torch.equal(plain(found["boxes"]), plain(targets["boxes"]))
    with pytest.raises(ConfigError, match=r"\(48, 64\) does not fit into \(40, 96\)"):
        Pad((40, 96), GREY)(clip)


def test_a_whole_picture_is_not_cut():
    clip, targets = picture()
    view, found = WholePicture(24, 100, Pad((32, 128), GREY))(clip, targets)
    assert found["size"].tolist() == [24, 32] and found["whole"].tolist() == [48, 64]
    assert plain(found["boxes"])[0].tolist() == [side / 2 for side in BOXES[0]]
    assert torch.equal(view, WholePicture(24, 100, Pad((32, 128), GREY))(clip))


def test_pixels_that_do_not_count_come_from_outside():
    """A label map is 0 in padding and outside the picture."""
    labels = Mask(torch.full((1, 20, 30), 4, dtype=torch.uint8))
    clip = torch.zeros(1, 3, 20, 30, dtype=torch.uint8)
    torch.manual_seed(0)
    crop, pad = ScaleAndCrop(64, (30, 20), (0.5, 2.0)), Pad((64, 64), GREY)
    _, found = pad(*crop(clip, {"label_map": labels, "size": torch.zeros(2)}))
    height, width = found["size"].tolist()
    expected = torch.zeros(64, 64, dtype=torch.uint8)
    expected[:height, :width] = 4
    assert torch.equal(plain(found["label_map"])[0], expected)


def test_a_crop_shows_more_than_one_class():
    labels = torch.ones(1, 40, 400, dtype=torch.uint8)
    labels[..., 180:220] = 2
    clip = torch.zeros(1, 3, 40, 400, dtype=torch.uint8)
    shares = []
    for seed in range(20):
        torch.manual_seed(seed)
        _, found = ScaleAndCrop(40, (400, 40), (1.0, 1.0))(clip, {"label_map": Mask(labels)})
        shares.append((plain(found["label_map"]) == 2).float().mean().item())
    assert sum(0.25 < share < 0.75 for share in shares) >= 8  # by chance 2


@pytest.fixture(scope="module")
def coco_folder(tmp_path_factory):
    """Six pictures of several sizes with 0 to 5 white objects, in COCO's JSON."""
    pytest.importorskip("pycocotools")
    folder = tmp_path_factory.mktemp("coco")
    (folder / "images").mkdir()
    images, annotations = [], []
    for k in range(6):
        height, width = (40, 60 + 8 * k) if k % 2 else (70 - 6 * k, 40)
        pixels = np.zeros((height, width, 3), dtype=np.uint8)
        for n in range(k):
            x, y = 5 * n, 4 * n
            pixels[y : y + 6, x : x + 8] = 255
            corners = [x, y, x + 8, y, x + 8, y + 6, x, y + 6]
            annotations.append(
                {"id": len(annotations) + 1, "image_id": k, "category_id": 1 + n % 2}
                | {"bbox": [x, y, 8, 6], "segmentation": [corners], "iscrowd": 0, "area": 48}
            )
        Image.fromarray(pixels).save(folder / "images" / f"{k}.png")
        images.append({"id": k, "file_name": f"{k}.png", "height": height, "width": width})
    categories = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(content))
    return folder


SETTINGS = {
    "DATA.NUM_FRAMES": 1,
    "DATA.SHORT_SIDES": [32, 48],
    "DATA.LONGEST_SIDE": 80,
    "DATA.TEST_SHORT_SIDE": 40,
    "DATA.TRAIN_CROP_SIZE": 50,
    "DATA.SIZE_MULTIPLE": 16,
    "TRAIN.BATCH_SIZE": 3,
    "TEST.BATCH_SIZE": 3,
    "TEST.NUM_ENSEMBLE_VIEWS": 1,
    "AUG.ENABLE": False,
}


def batches(folder, split, workers, crop):
    values = {"TRAIN.DATASET": "coco", "TEST.DATASET": "coco", "MODEL.NAME": "mvit_v2_xs"}
    values |= SETTINGS | {"DATA.CROP": crop, "DATA_LOADER.NUM_WORKERS": workers}
    values["DATA.PATH_TO_DATA_DIR"] = folder
    cfg = load_config(None, [str(one) for pair in values.items() for one in pair])
    loader = build_loader(cfg, split)
    found = list(loader)
    loader.close()
    return found


@pytest.mark.parametrize("crop", ["short_side", "large_scale_jitter"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_batches_are_as_large_as_their_largest_picture(coco_folder, split, crop):
    alone = batches(coco_folder, split, 0, crop)
    shared = batches(coco_folder, split, 2, crop) if crop == "short_side" else alone
    assert len(alone) == len(shared) == 2
    for first, second in zip(alone, shared, strict=True):
        assert torch.equal(first.clips, second.clips) and first.clips.is_contiguous()
        height, width = first.clips.shape[-2:]
        largest = first.targets["size"].amax(dim=0).tolist()
        limits = [min(-(-side // 16) * 16, 80 if crop == "short_side" else 96) for side in largest]
        assert [height, width] == limits
        for name in first.targets:
            values = zip(first.targets[name], second.targets[name], strict=True)
            assert all(torch.equal(a, b) for a, b in values), name
        for clip, masks, size in zip(
            first.clips, first.targets["masks"], first.targets["size"].tolist(), strict=True
        ):
            assert masks.shape[1:] == (height, width)
            assert (clip[:, 0, size[0] :] == round(255 * 0.45)).all()
            union = masks.any(dim=0)[: size[0], : size[1]]
            white = clip[0, 0, : size[0], : size[1]] > 127
            assert (union != white).float().mean() < 0.06
    counts = sorted(len(masks) for batch in alone for masks in batch.targets["masks"])
    if split == "val":
        assert counts == [0, 1, 2, 3, 4, 5]


def test_an_unknown_crop_is_named(coco_folder):
    with pytest.raises(ConfigError, match="DATA.CROP is 'lsj', expected one of square, patches"):
        batches(coco_folder, "train", 0, "lsj")
