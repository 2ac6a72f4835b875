"""Detectors side by side."""

import pytest
import torch

from videonet.benchmark.detectors import DetectorCandidate
from videonet.benchmark.steps import Task
from videonet.commands.benchmark import main
from videonet.errors import ConfigError, VideonetError

RECIPE = "PENNFUDAN/MaskRCNN_HorNet_XS.yaml"


def task(training: bool, frames: int = 1) -> Task:
    return Task(training=training, batch=1, frames=frames, size=64, device="cpu", threads=1)


def test_a_recipe_keeps_its_best_detections_whatever_their_scores():
    candidate = DetectorCandidate(RECIPE)
    (frames,) = candidate.step(candidate.build(1, 64), task(training=False))()
    assert sum(len(frame.boxes) for frame in frames) > 0


def test_a_step_of_training_changes_the_weights():
    candidate = DetectorCandidate(RECIPE)
    model = candidate.build(1, 64)
    before = [p.detach().clone() for p in model.parameters()]
    candidate.step(model, task(training=True))()
    changed = [not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)]
    assert sum(changed) > len(changed) / 2


def test_a_detector_that_finds_nothing_is_not_measured():
    candidate = DetectorCandidate(RECIPE)
    model = candidate.build(1, 64)
    model.roi_heads.score_threshold = 1.0
    with pytest.raises(VideonetError, match="finds nothing"):
        candidate.step(model, task(training=False))


@pytest.mark.parametrize("text", ["torchvision:resnet5000", "detectron:maskrcnn"])
def test_unknown_detectors_are_refused(text):
    with pytest.raises(ConfigError, match="expected a recipe or torchvision"):
        DetectorCandidate(text).build(1, 64)


def test_recipes_of_other_tasks_are_refused():
    with pytest.raises(ConfigError, match="recipe of semantic_segmentation"):
        DetectorCandidate("COCO_SMALL/UPerNet_HorNet_XS.yaml").build(1, 64)


@pytest.mark.slow
def test_the_command_prints_both_tables(capsys):
    words = ["detectors", "torchvision:maskrcnn_resnet50_fpn", RECIPE]
    main([*words, "--size", "64", "--rounds", "1", "--seconds", "0.01", "--threads", "1"])
    printed = capsys.readouterr().out
    assert printed.count(RECIPE) == 2
    assert printed.count("maskrcnn_resnet50_fpn") == 2
