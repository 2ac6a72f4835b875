"""Reduced official Swins with random weights: the same logits and the same tokens per stage."""

import pytest

from tests.conftest import SHARED
from tests.models.invariants import assert_everything_loaded, assert_same_as_recorded, read_record
from videonet.checkpoint import load_checkpoint
from videonet.models import create_model

CONSTANTS = ("relative_position_index", "attn_mask")


def records(system):
    return sorted(path.stem for path in (SHARED / "reference" / system).glob("*.json"))


def pair(value):
    return (value, value) if isinstance(value, int) else tuple(value)


# What the official classes take by these names, and what shapes nothing in eval mode.
RENAMED = {
    "in_chans": "in_channels",
    "ape": "use_abs_pos",
    "drop_rate": "dropout",
    "attn_drop_rate": "attention_dropout",
    "stochastic_depth_prob": "drop_path_rate",
}
SILENT = ("use_checkpoint", "fused_window_process", "frozen_stages", "pretrained", "pretrained2d")


def own_arguments(constructor, **changes):
    named = {RENAMED.get(k, k): v for k, v in constructor.items() if k not in SILENT}
    return named | changes


def image_arguments(record, rule):
    """For the official image class and torchvision's: patches and windows of one frame."""
    constructor = dict(record["constructor"])
    size = constructor.pop("img_size", tuple(record["input"]["shape"][2:]))
    return own_arguments(
        constructor,
        window_rule=rule,
        num_frames=1,
        crop_size=pair(size),
        patch_size=(1, *pair(constructor.get("patch_size", 4))),
        window_size=(1, *pair(constructor.get("window_size", 7))),
    )


def video_arguments(record, constructor, **changes):
    frames, *size = record["input"]["shape"][2:]
    return own_arguments(
        constructor,
        window_rule="video_swin",
        num_frames=frames,
        crop_size=tuple(size),
        patch_size=tuple(constructor.get("patch_size", (4, 4, 4))),
        window_size=tuple(constructor.get("window_size", (2, 7, 7))),
        **changes,
    )


def build_and_load(arguments, state, dialect, record):
    model = create_model("swin", **arguments)
    assert sum(p.numel() for p in model.parameters()) == record["num_parameters"]
    report = load_checkpoint(model, state)
    assert report.dialect == dialect
    assert_everything_loaded(report, model, state, CONSTANTS)
    return model


def with_merging(stages):
    """The official stages hold their merging, ours give the tokens before it."""

    def rename(module):
        module = module.removeprefix("backbone").removeprefix(".")
        if not module:
            return "norm"
        last = module == f"layers.{stages - 1}"
        return module if last else f"{module}.downsample"

    return rename


@pytest.mark.parametrize("variant", records("swin"))
def test_official_image_swin(shared_dir, variant):
    record, tensors, state = read_record(shared_dir / "reference" / "swin" / variant)
    arguments = image_arguments(record, "swin")
    model = build_and_load(arguments, state, "swin", record)
    assert_same_as_recorded(
        model,
        record,
        tensors,
        with_merging(len(model.layers)),
        lambda ours, theirs: ours.flatten(1, 3),  # (B, H*W, C)
    )


@pytest.mark.parametrize("variant", records("video_swin"))
def test_official_video_swin(shared_dir, variant):
    record, tensors, state = read_record(shared_dir / "reference" / "video_swin" / variant)
    constructor = record["constructor"]
    classes = constructor["cls_head"]["num_classes"]
    arguments = video_arguments(record, constructor["backbone"], num_classes=classes)
    model = build_and_load(arguments, state, "video_swin", record)
    assert_same_as_recorded(
        model,
        record,
        tensors,
        with_merging(len(model.layers)),
        lambda ours, theirs: ours.permute(0, 4, 1, 2, 3),  # (B, C, T, H, W)
    )


@pytest.mark.parametrize("variant", records("torchvision_swin"))
def test_torchvision_swin(shared_dir, variant):
    record, tensors, state = read_record(shared_dir / "reference" / "torchvision_swin" / variant)
    if video := len(record["input"]["shape"]) == 5:
        arguments = video_arguments(record, record["constructor"])
    else:
        arguments = image_arguments(record, "torchvision")
    model = build_and_load(arguments, state, "torchvision_swin", record)
    assert_same_as_recorded(
        model,
        record,
        tensors,
        lambda module: f"layers.{int(module.split('.')[1]) // 2}",
        lambda ours, theirs: ours if video else ours.squeeze(1),  # (B, [T,] H, W, C)
    )
