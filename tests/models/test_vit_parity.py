"""ViT against recorded outputs of timm and torchvision, and against live peers."""

from pathlib import Path

import pytest
import torch
from torchvision.models import VisionTransformer as TorchvisionViT
from torchvision.models import vit_b_16

from tests.conftest import SHARED
from tests.models.invariants import (
    TOLERANCE,
    Logits,
    assert_everything_loaded,
    assert_same_as_recorded,
    assert_same_logits,
    randomise,
    read_record,
    relative_error,
)
from videonet.checkpoint import load_checkpoint
from videonet.models import create_model

RECORDS = sorted(path.stem for path in (SHARED / "reference" / "vit").glob("*.json"))
KNOWN = {"timm_cls", "timm_eps_probe", "timm_gap", "timm_resized", "torchvision_cls"}
ACTIVATIONS = {None: "gelu", "gelu": "gelu", "gelu_tanh": "gelu_tanh", "quick_gelu": "quick_gelu"}
# timm's name -> ours, where one value says the same in both.
RENAMED = {
    "img_size": "crop_size",
    "patch_size": "patch_size",
    "in_chans": "in_channels",
    "num_classes": "num_classes",
    "embed_dim": "embed_dim",
    "depth": "depth",
    "num_heads": "num_heads",
    "mlp_ratio": "mlp_ratio",
    "qkv_bias": "qkv_bias",
    "qk_norm": "qk_norm",
    "scale_attn_norm": "scale_attn_norm",
    "scale_mlp_norm": "scale_mlp_norm",
    "proj_bias": "proj_bias",
    "init_values": "layer_scale",
    "class_token": "cls_token",
    "global_pool": "pooling",
    "reg_tokens": "num_registers",
    "pre_norm": "pre_norm",
    "final_norm": "final_norm",
    "fc_norm": "fc_norm",
    "pool_include_prefix": "pool_include_prefix",
    "dynamic_img_pad": "pad_to_patch",
}
# Options that change nothing in eval mode, or nothing here: positions always follow the input.
WITHOUT_EFFECT = {"dynamic_img_size", "weight_init", "fix_init"}


def arguments_of_timm(constructor):
    """Our arguments for timm's ``VisionTransformer(**constructor)``; unknown ones are an error."""
    arguments = {}
    for key, value in constructor.items():
        if key in RENAMED:
            arguments[RENAMED[key]] = tuple(value) if isinstance(value, list) else value
        elif key == "no_embed_class":
            arguments["embed_class"] = not value
        elif key == "pos_embed":
            arguments["use_abs_pos"] = value == "learn"
        elif key == "act_layer":
            arguments["activation"] = ACTIVATIONS[value]
        elif not key.endswith("_rate") and key not in WITHOUT_EFFECT:
            raise KeyError(f"timm's argument {key} has no counterpart")
    return arguments


def arguments_of_torchvision(constructor):
    """Our arguments for torchvision's ``VisionTransformer(**constructor)``."""
    c = constructor
    return {
        "crop_size": c["image_size"],
        "patch_size": c["patch_size"],
        "depth": c["num_layers"],
        "num_heads": c["num_heads"],
        "embed_dim": c["hidden_dim"],
        "mlp_ratio": c["mlp_dim"] / c["hidden_dim"],
        "num_classes": c.get("num_classes", 1000),
        "representation_size": c.get("representation_size"),
    }


def image_model(library, constructor):
    convert = arguments_of_timm if library == "timm" else arguments_of_torchvision
    return create_model("vit_b", num_frames=1, **convert(constructor))


def own_block(module):
    return module.replace("encoder.layers.encoder_layer_", "blocks.")


@pytest.mark.parametrize("variant", RECORDS)
def test_recorded_vit(variant):
    record, tensors, state = read_record(SHARED / "reference" / "vit" / Path(variant))
    library = record["official"]["package"]
    model = image_model(library, record["constructor"])
    assert sum(p.numel() for p in model.parameters()) == record["num_parameters"]
    report = load_checkpoint(model, state)
    assert report.dialect == f"{library} vit"
    assert_everything_loaded(report, model, state)
    assert_same_as_recorded(
        model,
        record,
        tensors,
        lambda name: name.replace("encoder.layers.encoder_layer_", "blocks."),
    )


def test_the_known_records_are_among_them(shared_dir):
    assert set(RECORDS) >= KNOWN


SMALL = {"img_size": 32, "patch_size": 8, "num_classes": 7, "embed_dim": 24, "depth": 2} | {
    "num_heads": 3
}
TIMM_OPTIONS = {
    "plain": {},
    "no bias": {"qkv_bias": False, "proj_bias": False},
    "norms inside": {"qk_norm": True, "scale_attn_norm": True, "scale_mlp_norm": True},
    "layer scale": {"init_values": 1e-2},
    "pre-norm, as in CLIP": {"pre_norm": True, "act_layer": "quick_gelu"},
    "registers": {"reg_tokens": 4},
    "registers without positions": {"reg_tokens": 4, "no_embed_class": True},
    "no positions of the class": {"no_embed_class": True},
    "no positions": {"pos_embed": "none"},
    "mean beside a class token": {"global_pool": "avg"},
    "mean after the norm": {"global_pool": "avg", "fc_norm": False, "pool_include_prefix": True},
    "maximum": {"global_pool": "max", "class_token": False},
    "mean and maximum": {"global_pool": "avgmax", "class_token": False, "fc_norm": False},
    "norm after the class token": {"fc_norm": True},
    "no final norm": {"final_norm": False},
    "narrow MLP": {"mlp_ratio": 1.5},
    "rectangle": {"img_size": [32, 48], "patch_size": [8, 16]},
}


@pytest.mark.parametrize("options", TIMM_OPTIONS.values(), ids=TIMM_OPTIONS)
def test_every_option_of_timm(options):
    timm_vit = pytest.importorskip("timm.models.vision_transformer")
    constructor = SMALL | options
    height, width = constructor["img_size"] if "img_size" in options else (32, 32)
    peer = timm_vit.VisionTransformer(**constructor)
    assert_same_logits(image_model("timm", constructor), peer, (2, 3, height, width), "timm vit")


@pytest.mark.parametrize("registers", [0, 4])
def test_padded_frames_of_another_size(registers):
    timm_vit = pytest.importorskip("timm.models.vision_transformer")
    constructor = SMALL | {"dynamic_img_size": True, "dynamic_img_pad": True}
    constructor["reg_tokens"] = registers
    peer = timm_vit.VisionTransformer(**constructor)
    assert_same_logits(image_model("timm", constructor), peer, (2, 3, 45, 51), "timm vit")


@pytest.mark.parametrize("size", [(48, 48), (40, 56)])
def test_resizing_at_load_is_resizing_at_run_time(size):
    """And both are timm's bicubic resizing."""
    timm_vit = pytest.importorskip("timm.models.vision_transformer")
    peer = randomise(timm_vit.VisionTransformer(**SMALL, dynamic_img_size=True))
    model = image_model("timm", SMALL | {"img_size": size}).eval()
    report = load_checkpoint(model, peer.state_dict())
    assert report.interpolated == ["pos_embed"]
    image = torch.randn(1, 3, *size)
    with torch.no_grad():
        assert relative_error(model(image), peer(image)) <= TOLERANCE


@pytest.mark.parametrize("representation_size", [None, 20])
def test_small_torchvision(representation_size):
    constructor = {
        "image_size": 32,
        "patch_size": 8,
        "num_layers": 2,
        "num_heads": 3,
        "hidden_dim": 24,
        "mlp_dim": 50,
        "representation_size": representation_size,
    }
    model = image_model("torchvision", constructor)
    assert_same_logits(model, TorchvisionViT(**constructor), (2, 3, 32, 32), "torchvision vit")


def small_transformers():
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=48,
        image_size=32,
        patch_size=8,
        num_labels=7,
    )
    return transformers.ViTForImageClassification(config)


def small_like_transformers(**changes):
    arguments = {"crop_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}
    arguments |= {"mlp_ratio": 2.0, "num_classes": 7, "norm_eps": 1e-12}
    return create_model("vit_b", num_frames=1, **(arguments | changes))


def test_small_transformers():
    peer = Logits(small_transformers())
    model, state = small_like_transformers(), peer.state_dict()
    assert_same_logits(model, peer, (2, 3, 32, 32), "transformers vit")
    assert set(state) == set(small_transformers().state_dict())


def test_names_of_older_transformers():
    """The names that files on the hub have, whatever version wrote the model's code."""
    peer = randomise(small_transformers())
    older = {}
    for name, tensor in peer.state_dict().items():
        name = name.replace("vit.layers.", "vit.encoder.layer.")
        for letter, word in (("q", "query"), ("k", "key"), ("v", "value")):
            name = name.replace(f"attention.{letter}_proj", f"attention.attention.{word}")
        name = name.replace("attention.o_proj", "attention.output.dense")
        name = name.replace("mlp.fc1", "intermediate.dense").replace("mlp.fc2", "output.dense")
        older[name] = tensor
    model = small_like_transformers().eval()
    report = load_checkpoint(model, older)
    assert report.dialect == "transformers vit"
    assert_everything_loaded(report, model, older)
    image = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert relative_error(model(image), peer(image).logits) <= TOLERANCE


@pytest.mark.slow
def test_torchvision_at_full_size():
    model = create_model("vit_b", num_frames=1, num_classes=1000)
    assert_same_logits(model, vit_b_16(), (1, 3, 224, 224), "torchvision vit")


@pytest.mark.slow
@pytest.mark.parametrize("size", ["small", "base", "large"])
def test_timm_at_full_size(size):
    timm = pytest.importorskip("timm")
    model = create_model(f"vit_{size[0]}", num_frames=1, num_classes=1000)
    peer = timm.create_model(f"vit_{size}_patch16_224")
    assert_same_logits(model, peer, (1, 3, 224, 224), "timm vit")


@pytest.mark.slow
def test_transformers_at_full_size():
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(num_labels=1000)
    peer = Logits(transformers.ViTForImageClassification(config))
    model = create_model("vit_b", num_frames=1, num_classes=1000, norm_eps=1e-12)
    assert_same_logits(model, peer, (1, 3, 224, 224), "transformers vit")
