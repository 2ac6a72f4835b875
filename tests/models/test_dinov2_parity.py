"""DINOv2, DeiT-III and CLIP's towers: the same logits as timm and transformers give."""

import pytest
import torch

from tests.models.invariants import (
    TOLERANCE,
    Logits,
    assert_same_logits,
    randomise,
    relative_error,
)
from videonet.checkpoint import load_checkpoint
from videonet.models import create_model

SMALL = {"embed_dim": 24, "depth": 2, "num_heads": 3}
IMAGE = {"num_frames": 1, "num_classes": 7}


def small_timm(**options):
    vision_transformer = pytest.importorskip("timm.models.vision_transformer")
    arguments = {"img_size": 28, "patch_size": 14, "init_values": 1e-5, "num_classes": 7}
    return vision_transformer.VisionTransformer(**arguments | SMALL | options)


def gated():
    layers = pytest.importorskip("timm.layers")
    return {"mlp_layer": layers.SwiGLUPacked, "act_layer": torch.nn.SiLU, "mlp_ratio": 16 / 3}


@pytest.mark.parametrize("size", ["b", "g"])
@pytest.mark.parametrize("registers", [0, 4])
def test_small_timm(size, registers):
    options = gated() if size == "g" else {}
    if registers:
        options |= {"reg_tokens": registers, "no_embed_class": True}
    name = f"dinov2_reg_{size}" if registers else f"dinov2_{size}"
    model = create_model(name, crop_size=28, **IMAGE | SMALL)
    assert_same_logits(model, small_timm(**options), (2, 3, 28, 28), "timm vit")


def official_names(state):
    """From timm's names to those of the DINOv2 repository."""
    renamed = {}
    for name, tensor in state.items():
        for theirs, official in (("mlp.fc1", "mlp.w12"), ("mlp.fc2", "mlp.w3")):
            name = name.replace(theirs, official)
        renamed[name.replace("reg_token", "register_tokens")] = tensor
    return renamed


@pytest.mark.parametrize("registers", [0, 4])
def test_official_files_with_their_class_position(registers):
    """Their table has a row for the class token, which timm adds to the token itself."""
    options = {"reg_tokens": registers, "no_embed_class": True} if registers else {}
    peer = randomise(small_timm(num_classes=0, **gated(), **options))
    state = official_names(peer.state_dict())
    state["mask_token"] = torch.randn(1, 24)
    if registers:
        first = torch.randn(1, 1, 24)
        state["pos_embed"] = torch.cat((first, state["pos_embed"]), dim=1)
        state["cls_token"] = state["cls_token"] - first
    name = "dinov2_reg_g" if registers else "dinov2_g"
    model = create_model(name, crop_size=28, **IMAGE | SMALL | {"num_classes": 0}).eval()
    report = load_checkpoint(model, state)
    assert report.dialect == "dinov2" and sorted(report.loaded) == sorted(model.state_dict())
    assert report.dropped == ["mask_token"] and not report.unexpected
    assert any("added to the token" in note for note in report.notes) == bool(registers)
    image = torch.randn(2, 3, 28, 28)
    with torch.no_grad():
        assert relative_error(model(image), peer(image)) <= TOLERANCE


def small_transformers(kind, **changes):
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}
    sizes |= {"image_size": 28, "patch_size": 14, "num_labels": 7, "mlp_ratio": 4}
    config = getattr(transformers, f"{kind}Config")(**sizes | changes)
    return getattr(transformers, f"{kind}ForImageClassification")(config)


@pytest.mark.parametrize("size", [28, 42, (70, 42)])
@pytest.mark.parametrize("kind", ["Dinov2", "Dinov2WithRegisters"])
def test_small_transformers_at_several_sizes(kind, size):
    """Positions are resized with antialiasing where there are registers, else without."""
    name = "dinov2_b" if kind == "Dinov2" else "dinov2_reg_b"
    arguments = SMALL | IMAGE | {"pooling": "token_avg"}
    model = create_model(name, crop_size=28, **arguments)
    height, width = (size, size) if isinstance(size, int) else size
    peer = Logits(small_transformers(kind))
    assert_same_logits(model, peer, (2, 3, height, width), "transformers dinov2", ("mask_token",))


def test_a_gated_mlp_of_transformers():
    peer = Logits(small_transformers("Dinov2", use_swiglu_ffn=True))
    arguments = SMALL | IMAGE | {"pooling": "token_avg", "mlp_ratio": 16 / 3}
    model = create_model("dinov2_g", crop_size=28, **arguments)
    assert_same_logits(model, peer, (2, 3, 28, 28), "transformers dinov2", ("mask_token",))


SIZES = {"small": "s", "base": "b", "large": "l"}
DINOV2 = {
    **{f"vit_{size}_patch14_dinov2": f"dinov2_{s}" for size, s in SIZES.items()},
    **{f"vit_{size}_patch14_reg4_dinov2": f"dinov2_reg_{s}" for size, s in SIZES.items()},
}
DEIT3 = {"layer_scale": 1e-6, "embed_class": False}
CLIP = {"pre_norm": True, "norm_eps": 1e-5}
OF_TIMM = {
    **{name: (ours, {"num_classes": 0}) for name, ours in DINOV2.items()},
    # At 224², for the memory of a small machine.
    "vit_giant_patch14_dinov2": ("dinov2_g", {"num_classes": 0, "crop_size": 224}),
    "vit_giant_patch14_reg4_dinov2": ("dinov2_reg_g", {"num_classes": 0, "crop_size": 224}),
    "deit3_small_patch16_224": ("vit_s", DEIT3),
    "deit3_base_patch16_224": ("vit_b", DEIT3),
    "deit3_base_patch16_384": ("vit_b", DEIT3 | {"crop_size": 384}),
    "deit3_large_patch16_224": ("vit_l", DEIT3),
    "deit3_huge_patch14_224": ("vit_h", DEIT3),
    "vit_base_patch32_clip_224": ("vit_b", CLIP | {"patch_size": 32}),
    "vit_base_patch32_clip_quickgelu_224": (
        "vit_b",
        CLIP | {"patch_size": 32, "activation": "quick_gelu"},
    ),
    "vit_base_patch16_clip_224": ("vit_b", CLIP),
    "vit_large_patch14_clip_224": ("vit_l", CLIP | {"patch_size": 14}),
    "vit_huge_patch14_clip_224": ("vit_h", CLIP),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_TIMM)
def test_timm_at_full_size(name):
    timm = pytest.importorskip("timm")
    ours, arguments = OF_TIMM[name]
    arguments = {"num_frames": 1, "num_classes": 1000, "crop_size": None} | arguments
    peer = timm.create_model(
        name,
        num_classes=arguments["num_classes"],
        **({"img_size": 224} if "giant" in name else {}),
    )
    model = create_model(ours, **arguments)
    side = arguments["crop_size"] or (518 if "dinov2" in name else 224)
    assert_same_logits(model, peer, (1, 3, side, side), "timm vit")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["Dinov2", "Dinov2WithRegisters"])
def test_transformers_at_full_size(kind):
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{kind}Config")(image_size=518, patch_size=14, num_labels=1000)
    peer = Logits(getattr(transformers, f"{kind}ForImageClassification")(config))
    name = "dinov2_b" if kind == "Dinov2" else "dinov2_reg_b"
    model = create_model(name, num_frames=1, num_classes=1000, pooling="token_avg")
    assert_same_logits(model, peer, (1, 3, 518, 518), "transformers dinov2", ("mask_token",))
