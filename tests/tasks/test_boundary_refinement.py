"""Patches to learn from, and a training on them."""

import json

import pytest
import torch

from tests.inference.test_refinement import picture_of, write_data
from tests.ops.test_boundary_patches import disk
from videonet.config import load_config
from videonet.data.datasets.boundary_patches import (
    COARSE,
    CORNER,
    TRUTH,
    make_coarse,
    read_patches,
)
from videonet.data.loading.build import build_dataset
from videonet.engine.distributed import Process
from videonet.engine.train import Trainer
from videonet.errors import ConfigError, DataError
from videonet.inference.refinement import MaskRefiner
from videonet.ops.boundary_patches import PatchRule, cut_patches
from videonet.tasks import build_task

pytest.importorskip("pycocotools")
RULE = PatchRule(16, 2, 0.25, "covered")


def write_disks(folder, count=3, video=False):
    """Pictures of disks; the JSON's path and the truth."""
    truth = torch.stack([disk(centre=(20, 18 + 4 * k)) for k in range(count)])
    return write_data(folder, truth, video), truth


def config(folder, *overrides):
    small = [
        *("DATA.PATH_TO_DATA_DIR", str(folder), "OUTPUT_DIR", str(folder / "run")),
        *("DATA.TRAIN_LIST", "instances.json", "DATA.VAL_LIST", "instances.json"),
        *("BOUNDARY.PATCH_SIZE", "16", "BOUNDARY.PADDING", "2", "BOUNDARY.COARSE_CELLS", "[3, 4]"),
        *("DATA.TRAIN_CROP_SIZE", "32", "DATA.TEST_CROP_SIZE", "32", "TRAIN.BATCH_SIZE", "8"),
    ]
    return load_config("CELLS/BPR_XS.yaml", [*small, *map(str, overrides)])


def test_masks_made_coarse():
    mask = disk()
    coarse = make_coarse(mask, 3)
    assert 0 < (coarse ^ mask).sum() < 0.3 * mask.sum()
    assert torch.equal(make_coarse(mask, 100), mask)
    assert not make_coarse(torch.zeros(5, 5, dtype=torch.bool), 3).any()


@pytest.mark.parametrize("frames, video", [(1, False), (1, True), (2, True), (5, True)])
def test_patches_are_those_of_their_frames(tmp_path, frames, video):
    _, disks = write_disks(tmp_path, video=video)
    truth = disks.clone()
    if video:
        truth[-1] = False  # the object is not annotated there
    pixels = torch.stack([picture_of(mask)[..., 0] for mask in disks])
    options = ["DATA.NUM_FRAMES", frames, "DATA.TRAIN_CROP_SIZE", 20, "DATA.TEST_CROP_SIZE", 20]
    for split in ("train", "val"):
        data = build_dataset(config(tmp_path, *options, "DATA.RANDOM_FLIP", False), split)
        seen = set()
        for index in range(len(data)):
            row, batch = data.annotations.rows[index], data[(0, index)]
            assert batch.clips.shape == (1, 3, frames, 20, 20)
            first = int(row.frames[0][0]) if video else int(row.place.split()[-1])
            shown = [min(first + k, first + len(row.seen) - 1) for k in range(frames)]
            seen |= set(shown)
            corner = batch.targets[CORNER]
            wanted = cut_patches(truth[shown], corner, RULE)[0]
            assert torch.equal(batch.targets[TRUTH][0], wanted)
            assert (batch.targets[COARSE] ^ batch.targets[TRUTH]).float().mean() < 0.3
            if split == "val":  # in training colours jitter
                assert torch.equal(batch.clips[0, 0], cut_patches(pixels[shown], corner, RULE)[0])
        assert seen >= ({0, 1} if video else {0, 1, 2})


def detections():
    """One that fits, the same of another class, one far away, one that overlaps less than half."""
    from videonet.data.masks import encode_masks

    good, other = disk(radius=11, centre=(20, 18)), disk(radius=4, centre=(5, 45))
    shapes = torch.stack((good, good, other, disk(radius=8, centre=(20, 18))))
    entries = [
        {"image_id": 0, "category_id": 3, "score": 1.0, "segmentation": rle}
        for rle in encode_masks(shapes)
    ]
    entries[1]["category_id"] = 4
    return entries


def test_the_truth_of_a_prediction_is_what_it_overlaps_most(tmp_path):
    path, truth = write_disks(tmp_path, count=1)
    content = json.loads(path.read_text())
    content["categories"].append({"id": 4, "name": "other"})
    path.write_text(json.dumps(content))
    found = tmp_path / "found.json"
    found.write_text(json.dumps(detections()))
    strict = read_patches(path, RULE, predictions=found)
    loose = read_patches(path, RULE, predictions=found, min_iou=-1)
    assert 0 < len(strict) < len(loose)
    for row in strict.annotations.rows:
        corner = torch.tensor([row.corner])
        assert torch.equal(row.bitmap(row.truth), cut_patches(truth, corner, RULE)[0])
        good = disk(radius=11, centre=(20, 18))[None]
        assert torch.equal(row.bitmap(row.coarse), cut_patches(good, corner, RULE)[0])
    assert any(not row.bitmap(row.truth).any() for row in loose.annotations.rows)


@pytest.mark.parametrize(
    "content, message",
    [
        ("[", "no JSON"),
        ("3", "expected a list of detections"),
        ('[{"category_id": 3}]', "detection 0: there is no 'image_id'"),
        ('[{"image_id": 0, "category_id": 9, "segmentation": []}]', "there is no category 9"),
        ("[]", "no object has a boundary"),
    ],
)
def test_predictions_that_cannot_be_used_are_named(tmp_path, content, message):
    path, _ = write_disks(tmp_path, count=1)
    found = tmp_path / "found.json"
    found.write_text(content)
    with pytest.raises(DataError, match=message):
        read_patches(path, RULE, predictions=found)


@pytest.mark.parametrize("frames", [1, 2])
def test_a_training_learns_to_refine(tmp_path, frames):
    path, truth = write_disks(tmp_path, 4, video=frames > 1)
    # Large steps on few pictures: they are learnt by heart.
    options = ["SOLVER.MAX_EPOCH", 4 * frames, "SOLVER.BASE_LR", 5e-3, "TRAIN.BATCH_SIZE", 4]
    options += ["BOUNDARY.COARSE_CELLS", "[2, 2]", "DATA.NUM_FRAMES", frames]
    cfg = config(tmp_path, *options)
    trainer = Trainer(cfg, Process(0, 1, torch.device("cpu")))
    trainer.run()
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").open()]
    last = [record for record in log if record["kind"] == "val"][-1]
    assert last["iou"] > last["coarse_iou"] > 0.5 and last["accuracy"] > 0.9
    refiner = MaskRefiner.from_checkpoint(tmp_path / "run")
    assert refiner.num_frames == frames and refiner.rule == RULE
    coarse = torch.stack([make_coarse(mask, 2) for mask in truth[:frames]])
    found = refiner(picture_of(truth[:frames]), coarse[None])[0]
    assert (found ^ truth[:frames]).sum() < (coarse ^ truth[:frames]).sum()


def test_what_is_not_finite_is_an_error(tmp_path):
    write_disks(tmp_path)
    cfg = config(tmp_path)
    task = build_task(cfg)
    targets = {TRUTH: torch.zeros(1, 1, 4, 4), COARSE: torch.zeros(1, 1, 4, 4)}
    with pytest.raises(Exception, match="not finite"):
        task.record([torch.full((2, 1, 4, 4), torch.nan)], targets, None)


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("DATA.TEST_CROP_SIZE", 64, "TRAIN_CROP_SIZE is 32 and DATA.TEST_CROP_SIZE 64"),
        ("BOUNDARY.PATCH_SIZE", 15, "an even number"),
        ("BOUNDARY.EDGES", "zero", "official"),
    ],
)
def test_configurations_that_contradict_themselves(tmp_path, key, value, message):
    with pytest.raises(ConfigError, match=message):
        build_task(config(tmp_path, key, value))


def test_a_run_of_another_task_refines_nothing(tmp_path):
    from videonet.checkpoint import write_checkpoint

    path = tmp_path / "checkpoint.safetensors"
    content = {"model_state": {"a": torch.zeros(1)}, "cfg": "MODEL:\n  NAME: hrnet_xs\n"}
    write_checkpoint(path, content)
    with pytest.raises(ConfigError, match="MODEL.TASK is 'classification'"):
        MaskRefiner.from_checkpoint(path)
