"""Targets beside the clips: any shape, type and number, moved with the pixels."""

import functools

import numpy as np
import pytest
import torch
from torchvision.tv_tensors import BoundingBoxes, Mask

from videonet.data import build_loader
from videonet.data.loading.target_buffers import TargetBuffers
from videonet.data.targets import Annotations, ClipFrames, TargetMaker, Targets, TargetSpec
from videonet.data.transforms.clip import InceptionCrop, JitterCrop, build_augmentation
from videonet.data.transforms.crops import spatial_crops
from videonet.data.transforms.geometry import mirroring, scaling, shifting
from videonet.data.transforms.moving import KeyPoints, move
from videonet.data.transforms.rand_augment import OPERATIONS, Moved
from videonet.errors import DataError

SPECS = {
    "boxes": TargetSpec(torch.float32, (None, 4), room=3),
    "masks": TargetSpec(torch.bool, (None, "T", "H", "W"), room=3),
    "frames": TargetSpec(torch.int64, (None,), room=3),
    "start": TargetSpec(torch.float64),
    "noise": TargetSpec(torch.float32, ("T", 2)),
}


def several(row: int, frames: ClipFrames):
    """So many boxes and masks as the number of the video says, a scalar, and a random target."""
    left = torch.arange(row) * 3.0
    boxes = torch.stack((left, left, left + 20, left + 15), dim=1)
    masks = torch.zeros(row, len(frames.indices), *frames.size, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes.int().tolist(), strict=True):
        mask[:, y0:y1, x0:x1] = True
    return {
        "boxes": BoundingBoxes(boxes, format="XYXY", canvas_size=frames.size),
        "masks": Mask(masks),
        "frames": torch.full((row,), int(frames.indices[0])),
        "start": torch.tensor(frames.times[0]),
        "noise": torch.from_numpy(
            np.random.default_rng(frames.seed).random((len(frames.indices), 2), dtype=np.float32)
        ),
    }


def annotate(videos) -> Annotations:
    return Annotations(range(len(videos)), TargetMaker(SPECS, several))


@pytest.fixture(scope="module")
def load(make_config, video_folder):
    def batches(split: str, workers: int, *overrides, folder=video_folder, start=0):
        aug = ("AUG.ENABLE", True, "AUG.NUM_SAMPLE", 2) if split == "train" else ()
        cfg = make_config(folder, *aug, "DATA_LOADER.NUM_WORKERS", workers, *overrides)
        loader = build_loader(cfg, split, annotate=annotate)
        loader.set_position(0, start)
        found = list(loader) + (list(loader) if split == "train" else [])
        loader.close()
        return found

    return batches


def assert_same(first, second):
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a.clips, b.clips) and torch.equal(a.videos, b.videos)
        assert list(a.targets) == list(b.targets) == list(SPECS)
        for name, spec in SPECS.items():
            values = zip(a.targets[name], b.targets[name], strict=True)
            assert all(x.dtype == y.dtype == spec.dtype and torch.equal(x, y) for x, y in values)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_targets_do_not_depend_on_the_workers(load, split):
    """Videos 4 to 10 have more boxes than the shared memory has room for."""
    alone = load(split, 0)
    assert_same(load(split, 2), alone)
    for batch in alone:
        assert batch.targets["start"].shape == (len(batch.clips),)
        assert batch.targets["noise"].shape == (len(batch.clips), 4, 2)
        for video, boxes, masks in zip(
            batch.videos.tolist(), batch.targets["boxes"], batch.targets["masks"], strict=True
        ):
            assert len(boxes) == len(masks) <= video
            assert masks.shape[1:] == (4, 32, 32) and type(boxes) is type(masks) is torch.Tensor
            assert (boxes >= 0).all() and (boxes <= 32).all()
            assert ((boxes[:, 2:] - boxes[:, :2]) >= 1).all()
    counts = [len(boxes) for batch in alone for boxes in batch.targets["boxes"]]
    assert max(counts) > 3


def test_resuming_gives_the_same_targets(load):
    assert_same(load("train", 2, start=1), load("train", 0)[1:])


def test_a_replacement_brings_its_own_targets(load, make_video, tmp_path):
    for k in range(6):
        make_video(tmp_path / f"{k}.mp4")
    (tmp_path / "2.mp4").write_bytes(b"no video")
    lines = "".join(f"{k}.mp4 0\n" for k in range(6))
    (tmp_path / "train.csv").write_text(lines)
    (tmp_path / "val.csv").write_text(lines)
    share = ("DATA.MAX_BAD_SHARE", 0.5)
    trained = [load("train", workers, *share, folder=tmp_path) for workers in (0, 2)]
    assert_same(*trained)
    assert any(batch.failures for batch in trained[0])
    tested = [load("test", workers, folder=tmp_path) for workers in (0, 2)]
    assert_same(*tested)
    assert [v for b in tested[0] for v in b.videos.unique().tolist()] == [0, 1, 3, 4, 5]
    assert len(tested[0][1].targets["boxes"]) == len(tested[0][1].clips) == 6


def test_a_wrong_target_is_named(load, make_config, video_folder):
    def build(spec, make=several):
        maker = TargetMaker({**SPECS, **spec}, make)
        cfg = make_config(video_folder)
        return build_loader(
            cfg, "val", annotate=lambda videos: Annotations(range(len(videos)), maker)
        )

    with pytest.raises(DataError, match=r"'frames' is torch.int64 of shape \(0,\), expected torch"):
        next(iter(build({"frames": TargetSpec(torch.int32, (None,))})))
    with pytest.raises(DataError, match=r"'noise' .* expected torch.float32 of shape \(3\)"):
        next(iter(build({"noise": TargetSpec(torch.float32, (3,))})))
    with pytest.raises(DataError, match="targets of a clip are boxes, .*, expected boxes, .*, x"):
        next(iter(build({"x": TargetSpec(torch.bool)})))


# A picture whose mask can be seen in it: white where the mask is set.
BOX = (14, 9, 37, 31)


def picture(height=48, width=64):
    mask = torch.zeros(3, height, width, dtype=torch.bool)
    mask[:, BOX[1] : BOX[3], BOX[0] : BOX[2]] = True
    clip = (mask[:, None].expand(-1, 3, -1, -1) * 255).to(torch.uint8)
    size = height, width
    targets = {
        "label": torch.tensor(3),
        "boxes": BoundingBoxes([BOX], format="XYXY", canvas_size=size, dtype=torch.float32),
        "mask": Mask(mask),
    }
    if KeyPoints is not None:
        corner = torch.tensor([[float(BOX[0]), float(BOX[1])]])
        targets["corner"] = KeyPoints(corner, canvas_size=size)
    return clip, targets


def assert_moved(clip, targets, tolerance):
    """The targets say where the white box is in the clip."""
    white = clip[:, 0] > 127
    assert targets["label"] == 3 and targets["mask"].shape == white.shape
    wrong = (targets["mask"].as_subclass(torch.Tensor) != white).float().mean()
    assert wrong <= (0 if tolerance == 0 else 0.02), wrong
    rows, columns = white[0].nonzero(as_tuple=True)
    if len(rows):
        found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        height, width = white.shape[-2:]
        box = targets["boxes"][0].as_subclass(torch.Tensor)
        box = box.clamp(torch.zeros(4), torch.tensor([width, height] * 2))
        assert (box - torch.tensor(found)).abs().max() <= tolerance
    if "corner" in targets:
        corners = targets["boxes"].as_subclass(torch.Tensor)[0][torch.tensor([[0, 1], [2, 1]])]
        nearest = (corners - targets["corner"][0].as_subclass(torch.Tensor)).abs().sum(1).min()
        assert nearest < 1e-3


MOVES = {
    "jitter": (JitterCrop(32, (36, 44)), 1.0),
    "inception": (InceptionCrop(32, (0.3, 1.0), (3 / 4, 4 / 3), 48), 1.0),
    "flip": (build_augmentation(flip=True), 0),
    "flip and colours": (build_augmentation(flip=True, colour_jitter=0.1), 0),
}


@pytest.mark.parametrize("name", MOVES)
def test_targets_move_with_the_pixels(name):
    transform, tolerance = MOVES[name]
    for seed in range(20):
        clip, targets = picture()
        torch.manual_seed(seed)
        moved, where = transform(clip, targets)
        torch.manual_seed(seed)
        assert torch.equal(transform(clip), moved)  # the same draw without targets
        assert_moved(moved, where, tolerance)


@pytest.mark.parametrize("shape", [(48, 64), (64, 48)])
def test_targets_of_the_views_of_a_test(shape):
    clip, targets = picture(*shape)
    for view, where in spatial_crops(clip, 32, 3, 40, targets):
        assert_moved(view, where, 1.0)


def test_targets_in_whole_frames_fit_smaller_pictures():
    """The decoder may shrink the frames; masks are then sampled once, from the whole ones."""
    _, targets = picture()
    clip, _ = picture()
    half = torch.nn.functional.avg_pool2d(clip.float(), 2).to(torch.uint8)
    for view, where in spatial_crops(half, 24, 3, None, targets):
        assert_moved(view, where, 1.0)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
def test_operations_say_how_they_move_the_pixels(operation):
    clip, targets = picture()
    torch.manual_seed(0)
    out = operation(clip, 0.3, True, [0.0] * 3)
    if not isinstance(out, Moved):
        return
    moved = move(targets, out.matrix, tuple(clip.shape[-2:]))
    white = out.clip[:, 0] > 127
    assert (moved["mask"].as_subclass(torch.Tensor) != white).float().mean() < 0.02
    rows, columns = white[0].nonzero(as_tuple=True)
    found = torch.tensor([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    box = moved["boxes"][0].as_subclass(torch.Tensor)
    box = box.clamp(torch.zeros(4), torch.tensor([64.0, 48.0] * 2))
    assert (box - found).abs().max() <= 1.5


def test_maps_are_joined_the_later_one_first():
    points = {"boxes": BoundingBoxes([[2.0, 3, 6, 5]], format="XYXY", canvas_size=(10, 20))}
    matrix = mirroring(40) @ shifting(1, -2) @ scaling((10, 20), (20, 40))
    assert move(points, matrix, (20, 40))["boxes"].tolist() == [[27.0, 4.0, 35.0, 8.0]]


@pytest.mark.parametrize("smallest", [0.0, 1.0, 6.0])
def test_emptied_boxes_are_left_out_as_declared(smallest):
    specs = {"boxes": TargetSpec(torch.float32, (None, 4)), "ids": TargetSpec(torch.int64, (None,))}
    maker = TargetMaker(specs, None, smallest_box=smallest)
    boxes = [[-4.0, 2, 4, 8], [-9.0, -9, -1, -1], [3.0, 3, 9, 9], [9.0, 4, 12, 20]]
    boxes = BoundingBoxes(boxes, format="XYXY", canvas_size=(10, 10))
    found = maker.finish({"boxes": boxes, "ids": torch.arange(4)}, (3, 1, 10, 10))
    kept = {0.0: [0, 1, 2, 3], 1.0: [0, 2, 3], 6.0: [2]}[smallest]
    assert found["ids"].tolist() == kept
    clipped = torch.tensor([[0.0, 2, 4, 8], [0, 0, 0, 0], [3, 3, 9, 9], [9, 4, 10, 10]])
    assert torch.equal(found["boxes"], clipped[kept])


def test_rows_of_all_targets_belong_to_boxes():
    specs = {"boxes": TargetSpec(torch.float32, (None, 4)), "ids": TargetSpec(torch.int64, (None,))}
    boxes = BoundingBoxes([[0.0, 0, 1, 1]], format="XYXY", canvas_size=(10, 10))
    with pytest.raises(
        DataError, match="'ids' has 2 rows, expected 1, one for each of the 'boxes'"
    ):
        TargetMaker(specs, None).finish({"boxes": boxes, "ids": torch.arange(2)}, (3, 1, 10, 10))


def test_buffers_keep_every_type_and_number():
    buffers = TargetBuffers(SPECS, (3, 2, 4, 6), slots=2, rows=3)
    draw = functools.partial(torch.rand, generator=torch.Generator().manual_seed(0))
    clips = [
        {
            "boxes": draw(count, 4),
            "masks": draw(count, 2, 4, 6) > 0.5,
            "frames": torch.arange(count),
            "start": draw(()).double(),
            "noise": draw(2, 2),
        }
        for count in (0, 5, 3)
    ]
    large = buffers.write(1, 0, clips)
    assert {row for row, _ in large} == {1}
    found = buffers.read(1, [0, 1, 2], large)
    buffers.write(1, 0, clips[::-1])  # what was read has memory of its own
    for clip, other in zip(clips, found, strict=True):
        assert all(torch.equal(clip[name], other[name]) for name in SPECS)


def test_targets_of_a_batch_are_split_as_its_clips():
    values = {"labels": torch.arange(5), "boxes": [torch.full((k, 4), k) for k in range(5)]}
    parts = Targets(values).tensor_split(2)
    assert [part["labels"].tolist() for part in parts] == [[0, 1, 2], [3, 4]]
    assert [[len(boxes) for boxes in part["boxes"]] for part in parts] == [[0, 1, 2], [3, 4]]
    joined = Targets.join(parts)
    assert torch.equal(joined["labels"], values["labels"]) and len(joined["boxes"]) == 5
    replaced = parts[1] | {"labels": torch.zeros(2)}
    assert replaced["labels"].tolist() == [0, 0] and parts[1]["labels"].tolist() == [3, 4]
