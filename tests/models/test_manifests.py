"""Names, shapes and counts of the published models."""

import json

import pytest
import torch

import videonet
from tests.models.invariants import published_shapes
from videonet.checkpoint import load_checkpoint

IMAGE = {"num_frames": 1, "num_classes": 1000}
PUBLISHED = {
    "mvitv1_b_16x4_k400": ("mvit_v1_b", {}),
    "mvitv1_b_32x3_depth16": ("mvit_v1_b", {"num_frames": 32}),
    "mvitv1_b_16_image": ("mvit_v1_b", {"num_frames": 1, "num_classes": 1000}),
    "mvitv2_s_16x4_k400": ("mvit_v2_s", {}),
    "mvitv2_s_16x4_ssv2": ("mvit_v2_s", {"num_classes": 174}),
    "mvitv2_b_32x3_k400": ("mvit_v2_b", {}),
    "mvitv2_l_40x3_312_k400": ("mvit_v2_l", {}),
    "mvitv2_t_image": ("mvit_v2_t", {"num_frames": 1, "num_classes": 1000}),
    "mvitv2_s_image": ("mvit_v2_s", {"num_frames": 1, "num_classes": 1000}),
    "mvitv2_b_image": ("mvit_v2_b", {"num_frames": 1, "num_classes": 1000}),
    "mvitv2_l_image": ("mvit_v2_l", {"num_frames": 1, "num_classes": 1000}),
    **{f"swin_{s}": (f"swin_{s}", {"num_frames": 1, "num_classes": 1000}) for s in "tsbl"},
    **{f"video_swin_{s}_k400": (f"swin_{s}", {}) for s in "tsb"},
    "videomae_vit_b": ("videomae_b", {}),
    "vit_b16": ("vit_b", {"num_frames": 1, "num_classes": 1000}),
    "vjepa2_vit_l_16x256": ("vjepa2_l", {"num_classes": 174}),
    "cvt_13": ("cvt_13", {"num_frames": 1, "num_classes": 1000}),
    "cvt_21": ("cvt_21", {"num_frames": 1, "num_classes": 1000}),
    "cvt_w24": ("cvt_w24", {"num_frames": 1, "num_classes": 1000}),
    "dilateformer_tiny": ("dilateformer_t", IMAGE),
    "dilateformer_small": ("dilateformer_s", IMAGE),
    "dilateformer_base": ("dilateformer_b", IMAGE),
    "hiera_base_224": ("hiera_b", IMAGE),
    "hiera_base_16x224": ("hiera_b", {}),
    "hiera_large_16x224": ("hiera_l", {}),
    "hornet_tiny_7x7": ("hornet_t", IMAGE),
    "hornet_small_7x7": ("hornet_s", IMAGE),
    "hornet_base_7x7": ("hornet_b", IMAGE),
    "hornet_large_7x7": ("hornet_l", IMAGE),
    "hornet_tiny_gf": ("hornet_gf_t", IMAGE),
    "hornet_small_gf": ("hornet_gf_s", IMAGE),
    "hornet_base_gf": ("hornet_gf_b", IMAGE),
    "hornet_large_gf": ("hornet_gf_l", IMAGE),
}
IMAGE_MODELS = (
    *(f"cyclemlp_b{i}" for i in range(1, 6)),
    *(f"asmlp_{size}" for size in "tsb"),
    *(f"hrnet_w{width}" for width in (18, 32, 48)),
)
PUBLISHED |= {name: (name, {"num_frames": 1, "num_classes": 1000}) for name in IMAGE_MODELS}


@pytest.mark.parametrize("manifest", sorted(PUBLISHED))
def test_parameters_are_the_published_ones(manifest, shared_dir):
    published = json.loads((shared_dir / f"reference/manifests/{manifest}.json").read_text())
    name, arguments = PUBLISHED[manifest]
    with torch.device("meta"):
        model = videonet.create_model(name, **arguments)
    ours = {n: list(p.shape) for n, p in model.named_parameters()}
    assert ours == published_shapes(published)
    assert sum(p.numel() for p in model.parameters()) == published["total_parameters"]


# Names differ in more than words there (queries, keys and values apart; other tables of positions),
# or there is a decoder: what is new in a classifier, and what is left of the file.
LOADED = {
    "hf_videomae_base": ("videomae_b", (), ()),
    "hf_timesformer_base": ("timesformer_b", (), ()),
    "hf_vivit_b_16x2": ("vivit_b", (), ()),
    "videomae_vit_b": ("videomae_b", (), ()),
    "videomae_vit_b_pt": (
        "videomae_b",
        ("fc_norm.", "head."),
        ("mask_token", "encoder.norm.", "decoder.", "encoder_to_decoder."),
    ),
    "mae_vit_b_16x4_pt": ("mae_b", ("head.",), ("mask_token", "decoder_", "pred_head.")),
}


@pytest.mark.parametrize("manifest", LOADED)
def test_a_checkpoint_of_the_published_names_and_shapes_loads(manifest, shared_dir):
    published = json.loads((shared_dir / f"reference/manifests/{manifest}.json").read_text())
    name, new, left = LOADED[manifest]
    with torch.device("meta"):
        model = videonet.create_model(name)
    model.to_empty(device="cpu")
    state = {name: torch.zeros(shape) for name, shape in published["parameters"]}
    report = load_checkpoint(model, state)
    names = list(model.state_dict())
    assert report.reinitialised == [n for n in names if n.startswith(new or ("-",))]
    assert len(report.loaded) == len(names) - len(report.reinitialised)
    assert set(report.dropped) == {n for n in state if n.startswith(left or ("-",))}
    assert not report.missing and not report.unexpected
    if not new:
        assert sum(p.numel() for p in model.parameters()) == published["total_parameters"]
