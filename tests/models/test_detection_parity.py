"""Reduced backbones of official detectors with random weights: the same maps.

Records of whole detectors and of pyramids are read up to the maps of the backbone.
"""

import pytest
import torch

from tests.conftest import SHARED
from tests.models.invariants import TOLERANCE, module_outputs, read_record, relative_error
from tests.models.test_hornet_parity import arguments_of as hornet_arguments
from tests.models.test_swin_parity import own_arguments, records
from videonet.checkpoint import load_checkpoint
from videonet.models import create_model

CONSTANTS = ("relative_position_index", "attn_mask")
BACKBONES = ("", "bottom_up.", "backbone.bottom_up.", "net.")  # prefixes within records
SCALES = ("scale2", "scale3", "scale4", "scale5")


def mvit_arguments(c):
    """Our image model for detectron2's ``MViT(**c)``."""
    depth, ends = c["depth"], c["last_block_indexes"]
    starts = [end + 1 for end in ends if end + 1 < depth]
    stride = c.get("adaptive_kv_stride", 4)
    return {
        "num_frames": 1,
        "crop_size": c["img_size"],
        "in_channels": c.get("in_chans", 3),
        "depth": depth,
        "embed_dim": c["embed_dim"],
        "num_heads": c["num_heads"],
        "mlp_ratio": c.get("mlp_ratio", 4.0),
        "qkv_bias": c.get("qkv_bias", True),
        "patch_kernel": (1, *c.get("patch_kernel", (7, 7))),
        "patch_stride": (1, *c.get("patch_stride", (4, 4))),
        "patch_padding": (0, *c.get("patch_padding", (3, 3))),
        "dim_mul": dict.fromkeys(starts, 2.0),
        "head_mul": dict.fromkeys(starts, 2.0),
        "pool_q_stride": {i: (1, 2, 2) if i in starts else (1, 1, 1) for i in range(depth)},
        "pool_kv_stride_adaptive": (1, stride, stride),
        "pool_kernel": (1, *c.get("qkv_pool_kernel", (3, 3))),
        "cls_token": False,
        "norm_eps": 1e-6 if "norm_layer" in c else 1e-5,
        "residual_pooling": c.get("residual_pooling", True),
        "rel_pos_spatial": c.get("use_rel_pos", True),
        "rel_pos_temporal": False,
        "use_abs_pos": c.get("use_abs_pos", False),
        "position_size": c.get("pretrain_img_size", 224),
        "position_resize": "bicubic",
        "window_size": (1, c["adaptive_window_size"], c["adaptive_window_size"]),
        "global_blocks": ends[1:],
        "padded_keys": True,
        "wide_global_strides": True,
        "output_norms": outputs_of(c),
    }


def outputs_of(c):
    return [SCALES.index(name) for name in c.get("out_features", SCALES)]


def assert_backbone_loaded(report, model, state, prefix):
    """Every tensor of the model comes from the checkpoint, and all under `prefix` are used."""
    assert sorted(report.loaded) == sorted(model.state_dict())
    of_backbone = [
        name
        for name in state
        if name.startswith(prefix) and not name.endswith(CONSTANTS) and "simfp" not in name
    ]
    assert sorted(report.used) == sorted(of_backbone)
    assert not report.unexpected


def assert_same(found, expected, name):
    assert found.shape == expected.shape, name
    assert (error := relative_error(found, expected)) <= TOLERANCE, f"{name}: {error:.1e}"


def prefix_of(state, first):
    return next(p for p in BACKBONES[::-1] if f"{p}{first}" in state)


def named_maps(record, tensors, names):
    """Recorded maps by name, whether they are outputs or features; empty where there are none."""
    found = {n: tensors.get(f"output.{n}", tensors.get(f"feature.{n}")) for n in names}
    return {} if None in found.values() else found


@pytest.mark.parametrize("variant", records("det_mvit"))
def test_detectron2_mvit(shared_dir, variant):
    record, tensors, state = read_record(shared_dir / "reference" / "det_mvit" / variant)
    constructor = record["constructor"]["MViT"]
    model = create_model("mvit", **mvit_arguments(constructor)).eval()
    prefix = prefix_of(state, "patch_embed.proj.weight")
    report = load_checkpoint(model, {"model": state})
    assert report.dialect == "detectron2 mvit"
    assert_backbone_loaded(report, model, state, prefix)
    blocks = {
        key: feature["module"].removeprefix(prefix)
        for key, feature in record["features"].items()
        if "blocks." in feature["module"]
    }
    features = module_outputs(model, blocks)
    names = constructor.get("out_features", SCALES)
    expected = named_maps(record, tensors, names)
    if not expected and "output.boxes" in tensors:
        pytest.skip("a record of boxes and masks alone")
    with torch.no_grad():
        maps = model.forward_intermediates(tensors["input"], outputs_of(constructor))
    for name, found in zip(names, maps, strict=True):
        assert_same(found.squeeze(2), expected[name], name)
    for key, found in features.items():
        assert_same(found.reshape(tensors[key].shape), tensors[key], key)


@pytest.mark.parametrize("variant", records("det_swin"))
def test_official_swin_detector(shared_dir, variant):
    record, tensors, state = read_record(shared_dir / "reference" / "det_swin" / variant)
    constructor = dict(record["constructor"])
    crop_size = constructor.pop("pretrain_img_size", 224)
    outputs = constructor.pop("out_indices", (0, 1, 2, 3))
    patch, window = constructor.get("patch_size", 4), constructor.get("window_size", 7)
    arguments = own_arguments(
        constructor,
        num_frames=1,
        crop_size=crop_size,
        patch_size=(1, patch, patch),
        window_size=(1, window, window),
        window_rule="detection",
        output_norms=tuple(outputs),
    )
    model = create_model("swin", **arguments).eval()
    assert sum(p.numel() for p in model.parameters()) == record["num_parameters"]
    # As in a file of mmdetection.
    report = load_checkpoint(
        model, {"meta": {}, "state_dict": {f"backbone.{n}": t for n, t in state.items()}}
    )
    assert report.dialect == "swin"
    assert_backbone_loaded(report, model, {f"backbone.{n}": t for n, t in state.items()}, "")
    with torch.no_grad():
        maps = model.forward_intermediates(tensors["input"], tuple(outputs))
    for i, found in enumerate(maps):
        assert_same(found.squeeze(2), tensors[f"output.{i}"], f"output.{i}")


@pytest.mark.parametrize("variant", records("det_hornet"))
def test_official_hornet_detector(shared_dir, variant):
    record, tensors, state = read_record(shared_dir / "reference" / "det_hornet" / variant)
    constructor = dict(record["constructor"])
    outputs = tuple(constructor.pop("out_indices", (0, 1, 2, 3)))
    arguments = hornet_arguments(constructor) | {"output_norms": outputs}
    model = create_model("hornet", num_frames=1, **arguments).eval()
    assert sum(p.numel() for p in model.parameters()) == record["num_parameters"]
    report = load_checkpoint(model, {"state_dict": state})
    assert report.dialect == "hornet"
    assert_backbone_loaded(report, model, state, "")
    with torch.no_grad():
        maps = model.forward_intermediates(tensors["input"], outputs)
    for i, found in enumerate(maps):
        assert_same(found.squeeze(2), tensors[f"output.{i}"], f"output.{i}")


def vit_arguments(c):
    """Our image model for detectron2's ``ViT(**c)``."""
    windowed = c.get("window_block_indexes", ())
    window = c.get("window_size", 0)
    has_windows = bool(window and windowed)
    return {
        "num_frames": 1,
        "num_classes": 0,
        "final_norm": False,
        "cls_token": False,
        "crop_size": c["img_size"],
        "patch_size": c["patch_size"],
        "in_channels": c.get("in_chans", 3),
        "embed_dim": c["embed_dim"],
        "depth": c["depth"],
        "num_heads": c["num_heads"],
        "mlp_ratio": float(c.get("mlp_ratio", 4.0)),
        "qkv_bias": c.get("qkv_bias", True),
        "norm_eps": 1e-6 if "norm_layer" in c else 1e-5,
        "use_abs_pos": c.get("use_abs_pos", True),
        "position_size": c.get("pretrain_img_size", 224),
        "antialias_positions": False,
        "rel_pos_spatial": c.get("use_rel_pos", False),
        "window_size": (1, window, window) if has_windows else None,
        "global_blocks": [i for i in range(c["depth"]) if i not in windowed]
        if has_windows
        else None,
        "padded_keys": True,
    }


@pytest.mark.parametrize("variant", records("det_vit"))
def test_detectron2_vit(shared_dir, variant):
    record, tensors, state = read_record(shared_dir / "reference" / "det_vit" / variant)
    constructor = record["constructor"]["ViT"]
    model = create_model("vit", **vit_arguments(constructor)).eval()
    prefix = prefix_of(state, "patch_embed.proj.weight")
    report = load_checkpoint(model, {"model": {f"backbone.{n}": t for n, t in state.items()}})
    assert_backbone_loaded(
        report, model, {f"backbone.{n}": t for n, t in state.items()}, f"backbone.{prefix}"
    )
    if "feature.last_feat" not in tensors:
        pytest.skip("a record of the pyramid alone")
    with torch.no_grad():
        (found,) = model.forward_intermediates(tensors["input"], [-1])
    assert_same(found.squeeze(2), tensors["feature.last_feat"], "last_feat")


def test_the_records_are_there():
    if SHARED.is_dir():
        assert all(records(f"det_{name}") for name in ("mvit", "swin", "hornet", "vit"))
