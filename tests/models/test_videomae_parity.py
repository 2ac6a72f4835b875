"""VideoMAE, v1 and v2, against recorded outputs of its repositories and of transformers."""

from pathlib import Path

import pytest

from tests.conftest import SHARED
from tests.models.invariants import (
    assert_everything_loaded,
    assert_same_as_recorded,
    read_record,
    relative_error,
)
from videonet.checkpoint import load_checkpoint
from videonet.models import create_model


def records(system):
    return sorted(path.stem for path in (SHARED / "reference" / system).glob("*.json"))


def grid_of(frames, size, tubelet, patch):
    height, width = (size, size) if isinstance(size, int) else size
    return (frames // tubelet, height // patch, width // patch)


def arguments_of_videomae(c):
    """Our arguments for the official ``VisionTransformer(**c)``."""
    return {
        "num_classes": c["num_classes"],
        "num_frames": c["all_frames"],
        "crop_size": c["img_size"],
        "patch_size": c["patch_size"],
        "tubelet_frames": c["tubelet_size"],
        "embed_dim": c["embed_dim"],
        "depth": c["depth"],
        "num_heads": c["num_heads"],
        "mlp_ratio": c["mlp_ratio"],
        "qkv_bias": c["qkv_bias"],
        "cos_attn": c.get("cos_attn", False),
        "layer_scale": c.get("init_values"),
        "pooling": "avg" if c.get("use_mean_pooling", True) else "first",
        "sine_grid": grid_of(c["all_frames"], c["img_size"], c["tubelet_size"], c["patch_size"]),
    }


def arguments_of_transformers(c):
    """Our arguments for ``VideoMAEConfig(**c)``."""
    size = c["image_size"]
    pools = c.get("use_mean_pooling", True)
    return {
        "num_classes": c["num_labels"],
        "num_frames": c["num_frames"],
        "crop_size": tuple(size) if isinstance(size, list) else size,
        "patch_size": c["patch_size"],
        "tubelet_frames": c["tubelet_size"],
        "embed_dim": c["hidden_size"],
        "depth": c["num_hidden_layers"],
        "num_heads": c["num_attention_heads"],
        "mlp_ratio": c["intermediate_size"] / c["hidden_size"],
        "qkv_bias": c.get("qv_bias", True),
        "norm_eps": 1e-12,
        "last_norm_eps": 1e-5 if pools else None,
        "pooling": "avg" if pools else "first",
        "sine_grid": grid_of(c["num_frames"], size, c["tubelet_size"], c["patch_size"]),
    }


def own_module(name):
    return name.replace("videomae.encoder.layer.", "blocks.").replace("videomae.layernorm", "norm")


@pytest.mark.parametrize("variant", records("videomae_ft"))
def test_recorded_videomae(variant):
    record, tensors, state = read_record(SHARED / "reference" / "videomae_ft" / Path(variant))
    model = create_model("videomae_b", **arguments_of_videomae(record["constructor"]))
    assert sum(p.numel() for p in model.parameters()) == record["num_parameters"]
    report = load_checkpoint(model, state)
    assert report.dialect == "videomae"
    assert_everything_loaded(report, model, state)
    assert_positions_are(model, tensors["extra:pos_embed"], variant)
    assert_same_as_recorded(model, record, tensors)


@pytest.mark.parametrize("variant", [v for v in records("hf_videomae") if v != "pretrain"])
def test_recorded_transformers(variant):
    record, tensors, state = read_record(SHARED / "reference" / "hf_videomae" / Path(variant))
    model = create_model("videomae_b", **arguments_of_transformers(record["constructor"]))
    assert sum(p.numel() for p in model.parameters()) == record["num_parameters"]
    report = load_checkpoint(model, state)
    assert report.dialect == "transformers videomae"
    assert_everything_loaded(report, model, state)
    assert_positions_are(model, tensors["extra:position_embeddings"], variant)
    assert_same_as_recorded(model, record, tensors, own_module)


def assert_positions_are(model, expected, variant):
    """Fixed positions are the recorded ones; where these were scaled down, take them over."""
    if variant == "eps_probe":
        model.fixed_positions.mul_(expected.abs().max())
    assert relative_error(model.fixed_positions, expected) <= 1e-6


def test_the_known_records_are_among_them(shared_dir):
    wanted = {"base", "eps_probe", "gamma_first_token", "v2_cos_attn", "v2_giant_style"}
    assert set(records("videomae_ft")) >= wanted
    assert set(records("hf_videomae")) >= {"base", "eps_probe", "pretrain", "rect_no_bias"}
