"""Files of masked pre-trainings: the encoder's features, and what a classifier takes of them."""

from pathlib import Path

import pytest
import torch

from tests.conftest import SHARED
from tests.models.invariants import TOLERANCE, read_record, relative_error
from videonet.checkpoint import load_checkpoint
from videonet.models import create_model

REFERENCE = SHARED / "reference"
SYSTEMS = ("videomae", "hf_videomae", "imagemae", "mae", "mae_st")
RECORDS = [
    (system, path.stem)
    for system in SYSTEMS
    for path in sorted((REFERENCE / system).glob("*.json"))
    if system != "hf_videomae" or path.stem == "pretrain"
    if (system, path.stem) != ("mae_st", "finetune")
]
KNOWN = {
    *(("videomae", variant) for variant in ("tube_norm", "tube_raw_gamma", "v2_dual_mask")),
    ("hf_videomae", "pretrain"),
    *(("imagemae", variant) for variant in ("eps_probe", "norm_pix", "raw_pix")),
    *(("mae", v) for v in ("eps_probe", "vit_norm", "vit_raw_tubelets", "vit_tube_nocls")),
    *(("mae_st", variant) for variant in ("joint_nocls", "sep_cls")),
}


def videomae(c):
    frames = c.get("all_frames", 16)
    return "videomae_b", {
        "num_frames": frames,
        "crop_size": c["img_size"],
        "patch_size": c["patch_size"],
        "embed_dim": c["encoder_embed_dim"],
        "depth": c["encoder_depth"],
        "num_heads": c["encoder_num_heads"],
        "layer_scale": c.get("init_values") or None,
        "sine_grid": (frames // 2, *(c["img_size"] // c["patch_size"],) * 2),
    }


def hf_videomae(c):
    return "videomae_b", {
        "num_frames": c["num_frames"],
        "crop_size": c["image_size"],
        "patch_size": c["patch_size"],
        "embed_dim": c["hidden_size"],
        "depth": c["num_hidden_layers"],
        "num_heads": c["num_attention_heads"],
        "norm_eps": 1e-12,
        "sine_grid": (c["num_frames"] // 2, *(c["image_size"] // c["patch_size"],) * 2),
    }


def mae_st(c):
    return "mae_b", {
        "num_frames": c.get("num_frames", 1),
        "tubelet_frames": c.get("t_patch_size"),
        "crop_size": c["img_size"],
        "patch_size": c["patch_size"],
        "embed_dim": c["embed_dim"],
        "depth": c["depth"],
        "num_heads": c["num_heads"],
        "cls_token": c.get("cls_embed", True),
        "sep_pos_embed": c.get("sep_pos_embed", False),
    }


def pyslowfast(c):
    resolved, data = c["resolved_MVIT"], c["cfg_overrides"]["DATA"]
    return "mae_b", {
        "num_frames": data["NUM_FRAMES"],
        "tubelet_frames": resolved["PATCH_KERNEL"][0],
        "crop_size": data["TRAIN_CROP_SIZE"],
        "patch_size": resolved["PATCH_KERNEL"][1],
        "embed_dim": resolved["EMBED_DIM"],
        "depth": resolved["DEPTH"],
        "num_heads": resolved["NUM_HEADS"],
        "cls_token": resolved["CLS_EMBED_ON"],
        "sep_pos_embed": resolved["SEP_POS_EMBED"],
    }


ARGUMENTS = {
    "videomae": videomae,
    "hf_videomae": hf_videomae,
    "imagemae": mae_st,
    "mae": pyslowfast,
    "mae_st": mae_st,
}
DIALECTS = {
    "videomae": "videomae",
    "hf_videomae": "transformers videomae",
    "imagemae": "timm vit",
    "mae": "pyslowfast",
    "mae_st": "mae-st",
}
REST = ("decoder", "dec_pos_embed", "mask_token", "pred_head", "encoder_to_decoder")


def is_rest(name):
    """Whether a tensor is of the decoder."""
    return name.startswith(REST)


@pytest.mark.parametrize(("system", "variant"), RECORDS)
def test_the_encoder_gives_the_recorded_features(system, variant):
    record, tensors, state = read_record(REFERENCE / system / Path(variant))
    name, arguments = ARGUMENTS[system](record["constructor"])
    # The pre-training norms all tokens.
    model = create_model(name, num_classes=0, fc_norm=False, **arguments).eval()
    report = load_checkpoint(model, state)
    assert report.dialect == DIALECTS[system]
    assert sorted(report.loaded) == sorted(model.state_dict())
    assert not report.unexpected and set(report.dropped) == set(filter(is_rest, state))
    keep = tensors["mask"] < 0.5
    with torch.no_grad():
        found = model.forward_features(tensors["input"], keep)
    expected = tensors["feature.encoder"]
    assert found.shape == expected.shape
    assert relative_error(found, expected) <= TOLERANCE


@pytest.mark.parametrize(("system", "variant"), RECORDS)
def test_a_classifier_says_what_is_new_and_what_is_left(system, variant):
    record, _, state = read_record(REFERENCE / system / Path(variant))
    name, arguments = ARGUMENTS[system](record["constructor"])
    model = create_model(name, num_classes=5, **arguments)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    report = load_checkpoint(model, {"model": state})
    norm_is_used = system in ("mae", "mae_st")  # which norm the pooled vector by it
    new = {n for n in before if n.startswith("head." if norm_is_used else ("head.", "fc_norm."))}
    assert set(report.reinitialised) == new
    assert not report.missing and not report.unexpected
    norm = {n for n in state if n.endswith(("layernorm.weight", "layernorm.bias"))}
    norm |= {n for n in state if n in ("norm.weight", "norm.bias")}
    norm |= {n for n in state if n in ("encoder.norm.weight", "encoder.norm.bias")}
    left = set(filter(is_rest, state)) | (set() if norm_is_used else norm)
    assert set(report.dropped) == left
    for n, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[n]) == (n in new), n
    assert "the rest of a pre-training" in str(report)


@pytest.mark.parametrize("variant", ["mvit_v2_att", "mvit_v2_s"])
def test_maskfeat_leaves_a_new_norm_and_head(variant, shared_dir):
    record, _, state = read_record(shared_dir / "reference" / "maskfeat" / variant)
    model = maskfeat_classifier(record["constructor"])
    report = load_checkpoint(model, state)
    new = {n for n in model.state_dict() if n.startswith(("norm.", "head."))}
    assert set(report.reinitialised) == new
    assert not report.missing and not report.unexpected
    assert set(report.dropped) == {
        n for n in state if n.startswith(("mask_token", "pred_head", "hogs"))
    }


def maskfeat_classifier(c):
    """The network that is fine-tuned, described as PySlowFast's configuration does."""
    mvit, data = c["resolved_MVIT"], c["cfg_overrides"]["DATA"]
    return create_model(
        "mvit",
        num_classes=5,
        num_frames=data["NUM_FRAMES"],
        crop_size=data["TRAIN_CROP_SIZE"],
        depth=mvit["DEPTH"],
        embed_dim=mvit["EMBED_DIM"],
        num_heads=mvit["NUM_HEADS"],
        dim_mul={int(i): factor for i, factor in mvit["DIM_MUL"]},
        head_mul={int(i): factor for i, factor in mvit["HEAD_MUL"]},
        pool_q_stride={int(i): tuple(s) for i, *s in mvit["POOL_Q_STRIDE"]},
        pool_kv_stride_adaptive=tuple(mvit["POOL_KV_STRIDE_ADAPTIVE"]),
        patch_kernel=tuple(mvit["PATCH_KERNEL"]),
        patch_stride=tuple(mvit["PATCH_STRIDE"]),
        patch_padding=tuple(mvit["PATCH_PADDING"]),
        dim_mul_in_att=mvit["DIM_MUL_IN_ATT"],
        residual_pooling=mvit["RESIDUAL_POOLING"],
        cls_token=mvit["CLS_EMBED_ON"],
        mean_pooling=True,
    )


def test_the_known_records_are_among_them(shared_dir):
    assert set(RECORDS) >= KNOWN
