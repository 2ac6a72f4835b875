"""Training, testing and resuming of detectors and segmenters on drawn shapes."""

import json

import pytest
import torch

from tests.tasks.conftest import INSTANCES, SEMANTICS
from tests.tasks.drawn import CLASSES, SIZE
from videonet.commands.run import run_config


@pytest.fixture(scope="module")
def of_images(small, images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("of_images")
    return folder, run_config(small(images, folder, "coco", 1, *INSTANCES), quiet=True)


@pytest.fixture(scope="module")
def of_clips(small, clips, tmp_path_factory):
    folder = tmp_path_factory.mktemp("of_clips")
    words = ["DATA.NUM_FRAMES", 2, "TEST.EVERY_FRAME", True, "NECK.TEMPORAL_KERNEL", 3]
    words += ["MODEL.ARGUMENTS.patch_size", "[1, 4, 4]"]
    cfg = small(clips, folder, "youtube_vis", 2, *INSTANCES, *words)
    return folder, run_config(cfg, quiet=True)


def test_objects_of_images(of_images):
    folder, results = of_images
    assert results["videos"] == 3 and {"box_AP", "mask_AP50", "boundary_AP"} <= results.keys()
    assert "video_AP" not in results
    for name in ("detections.json", "per_class.csv", "precision_recall.png", "worst.png"):
        assert (folder / name).stat().st_size > 0
    logged = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert {"box_AP", "mask_AP"} <= next(one for one in logged if one["kind"] == "val").keys()
    losses = [one["loss"] for one in logged if one["kind"] == "train"]
    assert losses[-1] < losses[0]


def test_objects_of_clips_in_pieces(of_clips):
    folder, results = of_clips
    assert results["videos"] == 6, "two videos of five frames are three pieces each"
    assert {"video_AP", "mask_AP"} <= results.keys()
    found = json.loads((folder / "detections.json").read_text())
    assert {one["video_id"] for one in found} <= {105, 106}
    assert all(len(one["segmentations"]) == 5 for one in found)
