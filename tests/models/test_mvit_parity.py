"""Reduced official models with random weights: the same logits and the same tokens per block."""

import pytest
import yaml

from tests.models.invariants import assert_everything_loaded, assert_same_as_recorded, read_record
from videonet.checkpoint import load_checkpoint
from videonet.config import load_config, model_arguments
from videonet.models import create_model

PYSLOWFAST = [
    "image_eps_probe",
    "image_patch2d_v1",
    "image_patch2d_v2_resized",
    "image_v2",
    "image_v2_avgpool",
    "image_v2_cls_abs",
    "image_v2_l",
    "image_v2_maxpool",
    "image_v2_pool_first",
    "video_eps_probe",
    "video_options",
    "video_pool_first",
    "video_v1_avgpool_k",
    "video_v1_b",
    "video_v1_conv_k_none",
    "video_v1_resized",
    "video_v2_b2",
    "video_v2_l_odd_grid",
    "video_v2_maxpool",
    "video_v2_resized",
    "video_v2_s",
    "video_v2_t1",
]
TORCHVISION = ["v1_b", "v2_s"]


def with_frame_axis(rows, first):
    return [[*row[:first], 1, *row[first:]] for row in rows]


def config_of(record, tmp_path):
    """The record's settings as a PySlowFast YAML."""
    constructor = record["constructor"]
    mvit = dict(constructor["resolved_MVIT"])
    if len(mvit["PATCH_KERNEL"]) == 2:
        mvit["PATCH_2D"] = True
    if len(mvit["POOL_KV_STRIDE_ADAPTIVE"] or ()) == 2:  # the image repository's notation
        for key in ("POOL_Q_STRIDE", "POOL_KV_STRIDE"):
            mvit[key] = with_frame_axis(mvit[key], 1)
        for key in ("POOL_KVQ_KERNEL", "POOL_KV_STRIDE_ADAPTIVE"):
            mvit[key] = with_frame_axis([mvit[key]], 0)[0]
        # What that repository has no keys for, because there is one way only.
        mvit |= {"SEP_POS_EMBED": False, "REL_POS_TEMPORAL": False}
    overrides = constructor["cfg_overrides"]
    path = tmp_path / "record.yaml"
    model = {"MODEL_NAME": "MViT", "NUM_CLASSES": overrides["MODEL"]["NUM_CLASSES"]}
    data = overrides["DATA"] | {"TEST_CROP_SIZE": overrides["DATA"]["TRAIN_CROP_SIZE"]}
    path.write_text(yaml.safe_dump({"MODEL": model, "DATA": data, "MVIT": mvit}))
    return load_config(path)


def arguments_of_torchvision(record):
    """Our arguments for torchvision's ``MViT(**constructor)``."""
    c = record["constructor"]
    blocks = c["block_setting"]
    width = [b["input_channels"] for b in blocks] + [blocks[-1]["output_channels"]]
    heads = [b["num_heads"] for b in blocks]
    in_attention = c["proj_after_attn"]
    arguments = {
        "num_classes": c["num_classes"],
        "num_frames": c["temporal_size"],
        "crop_size": tuple(c["spatial_size"]),
        "depth": len(blocks),
        "embed_dim": width[0],
        "num_heads": heads[0],
        # torchvision's table gives the widths; here the block in which they grow.
        "dim_mul": {
            i + (not in_attention): width[i + 1] / width[i]
            for i in range(len(blocks))
            if width[i + 1] != width[i]
        },
        "head_mul": {i: heads[i] / heads[i - 1] for i in range(1, len(heads))},
        "pool_q_stride": {i: tuple(b["stride_q"]) for i, b in enumerate(blocks) if b["stride_q"]},
        "pool_kv_stride": {
            i: tuple(b["stride_kv"]) for i, b in enumerate(blocks) if b["stride_kv"]
        },
        "use_abs_pos": not c["rel_pos_embed"],
        "sep_pos_embed": True,
        "rel_pos_spatial": c["rel_pos_embed"],
        "rel_pos_temporal": c["rel_pos_embed"],
        "residual_pooling": c["residual_pool"],
        "dim_mul_in_att": in_attention,
    }
    return arguments


@pytest.mark.parametrize("variant", PYSLOWFAST)
def test_official_mvit(shared_dir, tmp_path, variant):
    record, tensors, state = read_record(shared_dir / "reference" / "mvit" / variant)
    name, arguments = model_arguments(config_of(record, tmp_path))
    model = create_model(name, **arguments)
    assert sum(p.numel() for p in model.parameters()) == record["num_parameters"]
    report = load_checkpoint(model, {"model_state": state})
    assert_everything_loaded(report, model, state)
    stem = state["patch_embed.proj.weight"]
    assert report.dialect == ("pyslowfast" if stem.dim() == 5 else "mvit")
    assert_same_as_recorded(model, record, tensors)


@pytest.mark.parametrize("variant", TORCHVISION)
def test_torchvision_mvit(shared_dir, variant):
    record, tensors, state = read_record(shared_dir / "reference" / "torchvision_mvit" / variant)
    model = create_model("mvit", **arguments_of_torchvision(record))
    assert sum(p.numel() for p in model.parameters()) == record["num_parameters"]
    report = load_checkpoint(model, state)
    assert report.dialect == "torchvision"
    assert_everything_loaded(report, model, state)
    assert_same_as_recorded(model, record, tensors)


def test_every_record_is_tested(shared_dir):
    reference = shared_dir / "reference"
    for folder, names in (("mvit", PYSLOWFAST), ("torchvision_mvit", TORCHVISION)):
        assert sorted(names) == sorted(p.stem for p in (reference / folder).glob("*.json"))
