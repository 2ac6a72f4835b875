"""CvT against recorded outputs of the official code, and against transformers' CvT."""

import re
from pathlib import Path

import pytest
import torch

from tests.conftest import SHARED
from tests.models.invariants import (
    TOLERANCE,
    Logits,
    assert_everything_loaded,
    assert_same_logits,
    randomise,
    read_record,
    relative_error,
)
from videonet.checkpoint import load_checkpoint
from videonet.models import create_model

RECORDS = sorted(path.stem for path in (SHARED / "reference" / "cvt").glob("*.json"))
KNOWN = {"avg_proj", "cls_last", "eps_probe", "nocls_rect"}
RENAMED = {  # official key of the specification -> our argument; one entry per stage in both
    "DEPTH": "depths",
    "DIM_EMBED": "embed_dims",
    "NUM_HEADS": "num_heads",
    "MLP_RATIO": "mlp_ratio",
    "QKV_BIAS": "qkv_bias",
    "PATCH_SIZE": "patch_kernel",
    "PATCH_STRIDE": "patch_stride",
    "PATCH_PADDING": "patch_padding",
    "KERNEL_QKV": "qkv_kernel",
    "STRIDE_KV": "kv_stride",
    "PADDING_KV": "kv_padding",
    "QKV_PROJ_METHOD": "projection",
    "CLS_TOKEN": "cls_token",
}
ACTIVATIONS = {"QuickGELU": "quick_gelu", "GELU": "gelu"}


def arguments_of(constructor):
    """Our arguments for the official ``ConvolutionalVisionTransformer(**constructor)``."""
    spec = constructor["spec"]
    eps = re.search(r"eps=([\d.e-]+)", constructor.get("norm_layer", ""))
    return {ours: tuple(spec[theirs]) for theirs, ours in RENAMED.items()} | {
        "num_classes": constructor.get("num_classes", 1000),
        "in_channels": constructor.get("in_chans", 3),
        "activation": ACTIVATIONS[constructor.get("act_layer", "GELU")],
        "norm_eps": float(eps[1]) if eps else 1e-5,
    }


@pytest.mark.parametrize("variant", RECORDS)
def test_recorded_cvt(variant):
    record, tensors, state = read_record(SHARED / "reference" / "cvt" / Path(variant))
    model = create_model("cvt_13", num_frames=1, **arguments_of(record["constructor"])).eval()
    assert sum(p.numel() for p in model.parameters()) == record["num_parameters"]
    report = load_checkpoint(model, state)
    assert report.dialect == "cvt"
    assert_everything_loaded(report, model, state)
    with torch.no_grad():
        logits, features = model(tensors["input"]), model.forward_intermediates(tensors["input"])
    found = {f"feature.{i}": feature.squeeze(2) for i, feature in enumerate(features)}
    assert set(found) == set(record["features"])
    for name, value in {**found, "output": logits}.items():
        assert value.shape == tensors[name].shape
        error = relative_error(value, tensors[name])
        assert error <= TOLERANCE, f"{name}: {error:.1e}"


def test_the_known_records_are_among_them(shared_dir):
    assert set(RECORDS) >= KNOWN


def transformers_cvt(**changes):
    transformers = pytest.importorskip("transformers")
    peer = transformers.CvtForImageClassification(transformers.CvtConfig(**changes))
    return Logits(peer)


SMALL = {"embed_dim": [16, 32, 48], "depth": [1, 2, 3], "num_heads": [1, 2, 3], "num_labels": 7}
OURS = {"embed_dims": (16, 32, 48), "depths": (1, 2, 3), "num_heads": (1, 2, 3), "num_classes": 7}
OURS |= {"num_frames": 1, "activation": "gelu"}


@pytest.mark.parametrize(
    "theirs, ours",
    [
        ({}, {}),
        ({"qkv_bias": [False] * 3, "mlp_ratio": [2.0] * 3}, {"qkv_bias": False, "mlp_ratio": 2.0}),
        (
            {"stride_kv": [1, 2, 3], "kernel_qkv": [3, 5, 5], "padding_q": [1, 2, 2]}
            | {"padding_kv": [1, 2, 0]},
            {"kv_stride": (1, 2, 3), "qkv_kernel": (3, 5, 5), "kv_padding": (1, 2, 0)},
        ),
    ],
    ids=["plain", "no bias", "other projections"],
)
def test_small_transformers(theirs, ours):
    peer = transformers_cvt(**(SMALL | theirs))
    model = create_model("cvt_13", **(OURS | ours))
    assert_same_logits(model, peer, (2, 3, 68, 84), "transformers cvt")


def test_the_other_activation_of_transformers_is_reported():
    peer = randomise(transformers_cvt(**SMALL))
    model = create_model("cvt_13", **(OURS | {"activation": "quick_gelu"})).eval()
    report = load_checkpoint(model, peer.state_dict())
    assert any("QuickGELU" in note for note in report.notes)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert relative_error(model(image), peer(image)) > TOLERANCE


SIZES = {
    "cvt_13": {"depth": [1, 2, 10]},
    "cvt_21": {"depth": [1, 4, 16]},
    "cvt_w24": {"depth": [2, 2, 20], "embed_dim": [192, 768, 1024], "num_heads": [3, 12, 16]},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES)
def test_transformers_at_full_size(name):
    peer = transformers_cvt(num_labels=1000, **SIZES[name])
    model = create_model(name, num_frames=1, num_classes=1000, activation="gelu")
    assert_same_logits(model, peer, (1, 3, 224, 224), "transformers cvt")
