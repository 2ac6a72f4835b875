"""Models of transformers without a classifier: the body is loaded, the head is new."""

from __future__ import annotations

import pytest
import torch

from videonet.checkpoint import load_checkpoint, load_trained
from videonet.errors import CheckpointError
from videonet.models import create_model

transformers = pytest.importorskip("transformers")

SIZES = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 192,
    "image_size": 32,
    "patch_size": 8,
    "num_labels": 5,
}
SMALL = {"crop_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 48, "num_heads": 3}
STAGES = {"embed_dim": (16, 32, 48), "num_heads": (1, 2, 3)}
CASES = {  # the name of the project's model, its sizes, our family and its arguments
    "ViT": ("vit", SIZES, "vit", SMALL | {"num_frames": 1, "norm_eps": 1e-12}),
    "Timesformer": (
        "timesformer",
        SIZES | {"num_frames": 4},
        "vit",
        SMALL | {"num_frames": 4, "space_time": "divided", "tubelet_frames": 1},
    ),
    "Cvt": (
        "cvt",
        STAGES | {"depth": (1, 2, 3), "num_labels": 5},
        "cvt",
        {"num_frames": 1, "depths": (1, 2, 3), "embed_dims": (16, 32, 48), "num_heads": (1, 2, 3)},
    ),
}


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("wrapper", ["", "model.", "backbone._orig_mod."])
def test_the_body_is_loaded_and_the_head_is_new(kind, wrapper):
    prefix, sizes, family, arguments = CASES[kind]
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**sizes)
    suffix = "VideoClassification" if kind == "Timesformer" else "ImageClassification"
    whole = getattr(transformers, f"{kind}For{suffix}")(config)
    base = getattr(transformers, f"{kind}Model")(config)
    body = {f"{prefix}.{name}": tensor for name, tensor in base.state_dict().items()}
    whole.load_state_dict(body, strict=False)

    wanted = create_model(family, num_classes=5, **arguments)
    load_checkpoint(wanted, whole.state_dict())
    model = create_model(family, num_classes=5, **arguments)
    state = {wrapper + name: tensor for name, tensor in base.state_dict().items()}
    report = load_checkpoint(model, state)
    assert {name.partition(".")[0] for name in report.reinitialised} <= {"head", "norm"}
    for name, tensor in wanted.state_dict().items():
        if name not in report.reinitialised:
            assert torch.equal(model.state_dict()[name], tensor), name
    assert all(name.startswith(f"{wrapper}pooler.") for name in report.dropped)
    assert not report.unexpected
    with pytest.raises(CheckpointError, match="not trained for the classes"):
        load_trained(model, state)


@pytest.mark.parametrize("wrapper", ["", "model."])
def test_a_vit_of_timm_without_a_classifier(wrapper):
    """MViT's names are the same but for the pooling."""
    timm = pytest.importorskip("timm")
    theirs = timm.create_model("vit_tiny_patch16_224", num_classes=0, depth=2, img_size=32)
    state = {wrapper + name: tensor for name, tensor in theirs.state_dict().items()}
    arguments = {"num_frames": 1, "crop_size": 32, "depth": 2, "embed_dim": 192, "num_heads": 3}
    ours = create_model("vit_s", **arguments, num_classes=5)
    report = load_checkpoint(ours, state)
    assert report.dialect == "timm vit" and not report.missing and not report.unexpected
    assert all(name.startswith("head.") for name in report.reinitialised)
    with pytest.raises(CheckpointError, match="looks like a vision transformer"):
        load_checkpoint(create_model("cvt_xs"), state)
