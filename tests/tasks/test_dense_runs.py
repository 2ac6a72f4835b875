"""Training, testing and resuming of detectors and segmenters on drawn shapes."""

import json

import pytest
import torch

from tests.tasks.conftest import INSTANCES, SEMANTICS
from tests.tasks.drawn import CLASSES, SIZE
from videonet.commands.run import run_config
from videonet.engine.distributed import Process
from videonet.engine.train import Trainer
from videonet.errors import ConfigError, VideonetError
from videonet.tasks import build_task


@pytest.fixture(scope="module")
def of_images(small, images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("of_images")
    return folder, run_config(small(images, folder, "coco", 1, *INSTANCES), quiet=True)


@pytest.fixture(scope="module")
def of_clips(small, clips, tmp_path_factory):
    folder = tmp_path_factory.mktemp("of_clips")
    words = ["DATA.NUM_FRAMES", 2, "TEST.EVERY_FRAME", True, "NECK.TEMPORAL_KERNEL", 3]
    words += ["MODEL.NAME", "mvit_v2_xs"]
    words += ["MODEL.ARGUMENTS", "{patch_stride: [1, 4, 4], embed_dim: 16}"]
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
    steps = [one for one in logged if one["kind"] == "train"]
    assert steps[-1]["loss"] < steps[0]["loss"]
    names = ("objectness", "rpn_box_reg", "classifier", "box_reg", "mask")
    for step in steps:
        assert sum(step[f"loss_{name}"] for name in names) == pytest.approx(step["loss"], rel=1e-4)


def test_objects_of_clips_in_pieces(of_clips):
    folder, results = of_clips
    assert results["videos"] == 6, "two videos of five frames are three pieces each"
    assert {"video_AP", "mask_AP"} <= results.keys()
    found = json.loads((folder / "detections.json").read_text())
    assert {one["video_id"] for one in found} <= {105, 106}
    assert all(len(one["segmentations"]) == 5 for one in found)


@pytest.fixture(scope="module")
def of_label_maps(small, images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("of_maps")
    words = ["MODEL.NUM_CLASSES", 3, "DATA.CROP", "scale_and_crop", "DATA.SCALE_BASE", "[64, 48]"]
    words += ["SEGMENTER.WINDOW", "[32, 32]", "SEGMENTER.FLIP", True, "SOLVER.EMA_DECAY", 0.5]
    cfg = small(images / "maps", folder, "label_maps", 1, *SEMANTICS, *words)
    return folder, run_config(cfg, quiet=True)


def test_label_maps(of_label_maps):
    folder, results = of_label_maps
    assert results["videos"] == 3 and {"mIoU", "aAcc", "majority_mIoU"} <= results.keys()
    assert results["majority_aAcc"] > 60, "two thirds of the pixels are of the third class"
    for name in ("per_class.csv", "confusion.csv", "confusion.png", "worst.png"):
        assert (folder / name).stat().st_size > 0
    total = sum(
        int(cell)
        for row in (folder / "confusion.csv").read_text().splitlines()[1:]
        for cell in row.split(",")[1:]
    )
    assert total == 3 * (SIZE[0] - 2) * SIZE[1], "two rows of every label map do not count"


def test_painted_objects_of_clips_are_classes(small, clips, tmp_path):
    words = ["TEST.EVERY_FRAME", True, "SEGMENTER.HEAD", "semantic_fpn", "SOLVER.MAX_EPOCH", 1]
    cfg = small(clips, tmp_path, "youtube_vis", 2, *SEMANTICS, *words)
    results = run_config(cfg, quiet=True)
    assert results["videos"] == 6
    rows = (tmp_path / "per_class.csv").read_text().splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == ["background", *CLASSES]


@pytest.mark.parametrize("task", ["instances", "semantics"])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(small, images, tmp_path, task):
    """Draws of regions, dropout and crops are those of the step."""
    common = INSTANCES if task == "instances" else SEMANTICS
    words = [*common, "TEST.ENABLE", False, "TRAIN.EVAL_PERIOD", 0]
    run_config(small(images, tmp_path / "whole", "coco", 1, *words), quiet=True)
    first = small(images, tmp_path / "parts", "coco", 1, *words)
    Trainer(first, Process(0, 1, torch.device("cpu"))).run()
    (tmp_path / "parts/checkpoints/checkpoint_epoch_00002.pyth").unlink()
    run_config(first, quiet=True)
    states = [
        torch.load(tmp_path / name / "checkpoints/checkpoint_epoch_00002.pyth", weights_only=True)
        for name in ("whole", "parts")
    ]
    for name, value in states[0]["model_state"].items():
        assert torch.equal(value, states[1]["model_state"][name]), name


def test_weights_that_are_not_finite_have_no_result(small, images, tmp_path, of_images):
    content = torch.load(
        of_images[0] / "checkpoints/checkpoint_epoch_00002.pyth", weights_only=True
    )
    next(iter(content["model_state"].values())).fill_(float("nan"))
    torch.save(content, tmp_path / "broken.pyth")
    words = ["TRAIN.ENABLE", False, "TEST.CHECKPOINT_FILE_PATH", tmp_path / "broken.pyth"]
    with pytest.raises(VideonetError, match="not finite"):
        run_config(small(images, tmp_path, "coco", 1, *INSTANCES, *words), quiet=True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["DATA.CROP", "square"], "DATA.CROP"),
        (["TEST.EVERY_FRAME", True, "DATA.SAMPLING_RATE", 2], "SAMPLING_RATE"),
        (["DETECTOR.CONVENTIONS", "{colour: 1}"], "CONVENTIONS.*colour"),
        (["DETECTOR.HEADS.colour", 1], "DETECTOR.*colour"),
        (["NECK.ARGUMENTS.colour", 1], "neck fpn.*colour"),
    ],
)
def test_settings_that_do_not_go_together(small, images, tmp_path, words, message):
    cfg = small(images, tmp_path, "coco", 1, *INSTANCES, *words)
    with pytest.raises(ConfigError, match=message):
        build_task(cfg).build_model()


def test_mask_folders_have_no_label_maps(small, images, tmp_path):
    cfg = small(images, tmp_path, "masks", 1, *SEMANTICS)
    with pytest.raises(ConfigError, match="label_maps"):
        build_task(cfg)
