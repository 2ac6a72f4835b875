"""Backbones within the checkpoints of detectors and segmentations, and into them."""

import pytest
import torch
import torch.nn.functional as F

from tests.models.families import FAMILIES, SMALL_VIT
from tests.models.invariants import randomise
from videonet.checkpoint import load_checkpoint
from videonet.errors import CheckpointError
from videonet.models import create_model

SMALL = {
    "swin": ("swin_t", {"embed_dim": 12, "depths": (1, 1, 2, 1), "num_heads": (1, 1, 2, 2)}),
    "hornet": ("hornet_t", {"base_dim": 8, "depths": (1, 1, 2, 1)}),
    "asmlp": ("asmlp_t", {"embed_dim": 10, "depths": (1, 1, 2, 1)}),
    "cyclemlp": (
        "cyclemlp_b1",
        {"layers": (1,) * 4, "embed_dims": (8, 12, 16, 20), "mlp_ratios": (2,) * 4},
    ),
    "mvit": ("mvit_v2_t", {"embed_dim": 8, "depth": 9, "cls_token": False}),
}
RULES = {"swin": {"window_rule": "detection"}, "mvit": {"padded_keys": True}}


def build(family, norms=True, frames=1, **changes):
    name, arguments = SMALL[family]
    if norms:
        arguments = arguments | {"output_norms": True} | RULES.get(family, {})
    return create_model(name, **{"num_frames": frames, "crop_size": 64} | arguments | changes)


def official_norm(family, number):
    """What the official code calls the norm of an output."""
    return {"mvit": f"scale{number + 2}_norm", "cyclemlp": f"norm{2 * number}"}.get(
        family, f"norm{number}"
    )


def official_state(family, model):
    """The state of an image backbone in official names, kernels flat."""
    state = {}
    for name, tensor in model.state_dict().items():
        if name.startswith("output_norms."):
            _, number, leaf = name.split(".")
            name = f"{official_norm(family, int(number))}.{leaf}"
        state[name] = tensor.squeeze(2) if tensor.dim() == 5 else tensor
    return state


REST = {  # of detectors of mmdetection and of detectron2
    "backbone.": {"neck.lateral_convs.0.conv.weight": "neck", "rpn_head.rpn_cls.bias": "rpn_head"}
    | {"roi_head.bbox_head.0.fc_cls.weight": "roi_head"},
    "backbone.bottom_up.": {
        "backbone.fpn_lateral2.weight": "fpn_lateral",
        "proposal_generator.rpn_head.conv.weight": "proposal_generator",
        "roi_heads.mask_head.deconv.bias": "roi_heads",
        "pixel_mean": "pixel_mean",
    },
}


@pytest.mark.parametrize("prefix", REST)
@pytest.mark.parametrize("family", SMALL)
def test_the_backbone_of_a_detector_is_loaded_and_the_rest_is_named(family, prefix):
    backbone = randomise(build(family))
    state = {f"{prefix}{n}": t for n, t in official_state(family, backbone).items()}
    state |= {name: torch.randn(3, 3) for name in REST[prefix]}
    model = build(family)
    report = load_checkpoint(model, {"state_dict": state})
    assert sorted(report.loaded) == sorted(model.state_dict())
    assert not report.unexpected and not report.fatal
    assert sorted(report.dropped) == sorted(REST[prefix])
    for name, tensor in backbone.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name
    (note,) = [note for note in report.notes if "only the backbone is loaded" in note]
    for part in REST[prefix].values():
        assert part in note


@pytest.mark.parametrize("family", SMALL)
def test_a_classifier_leaves_the_output_norms_new_and_says_so(family):
    source = randomise(build(family, norms=False, num_classes=3))
    model = build(family, frames=4)
    report = load_checkpoint(model, source.state_dict())
    norms = [name for name in model.state_dict() if name.startswith("output_norms.")]
    assert report.reinitialised == norms
    reasons = {entry.reason for entry in report.target if entry.name in norms}
    assert reasons == {"new: the checkpoint has no norms of outputs"}
    assert {"norm.weight", "norm.bias"} <= set(report.dropped)
    assert "no norm behind its last block" in str(report)


@pytest.mark.parametrize("family", SMALL)
def test_a_backbone_leaves_the_last_norm_of_a_classifier_new(family):
    model = build(family, norms=False, num_classes=3)
    report = load_checkpoint(model, official_state(family, randomise(build(family))))
    assert {"norm.weight", "norm.bias"} <= set(report.reinitialised)
    assert not report.missing


def test_some_norms_of_outputs_are_not_enough():
    state = official_state("swin", randomise(build("swin")))
    del state["norm2.weight"]
    with pytest.raises(CheckpointError, match=r"1 missing \(output_norms\.2\.weight\)"):
        load_checkpoint(build("swin"), state)


@pytest.mark.parametrize("family", RULES)
def test_other_windows_than_the_official_ones_are_noted(family):
    state = official_state(family, randomise(build(family)))
    assert not load_checkpoint(build(family), state).notes
    other = {"swin": {"window_rule": "fit"}, "mvit": {"padded_keys": False}}[family]
    (note,) = load_checkpoint(build(family, **other), state).notes
    assert f"{next(iter(other))}=" in note
    own = randomise(build(family, **other)).state_dict()
    assert not load_checkpoint(build(family, **other), own).notes


def mmdet_swin(state):
    """The official names and order of neighbours -> those of mmdetection 3."""
    renamed = {}
    for name, tensor in state.items():
        name = name.replace("layers.", "stages.").replace(
            "patch_embed.proj.", "patch_embed.projection."
        )
        name = name.replace(".attn.", ".attn.w_msa.").replace(".mlp.fc1.", ".ffn.layers.0.0.")
        name = name.replace(".mlp.fc2.", ".ffn.layers.1.")
        renamed[name] = tensor
    return renamed


def test_swin_of_mmdetection_merges_patches_in_the_order_of_unfold():
    backbone = randomise(build("swin"))
    state = mmdet_swin(official_state("swin", backbone))
    # Columns as nn.Unfold orders them.
    for stage, width in enumerate((12, 24, 48)):
        order = unfolded_places(width)
        for leaf in ("reduction.weight", "norm.weight", "norm.bias"):
            name = f"stages.{stage}.downsample.{leaf}"
            state[name] = state[name][..., order]
    model = build("swin")
    report = load_checkpoint(model, {"state_dict": {f"backbone.{n}": t for n, t in state.items()}})
    assert report.dialect == "mmdet swin"
    for name, tensor in backbone.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name


def unfolded_places(width):
    """For each row of ``nn.Unfold``'s columns its place in the official order."""
    neighbours = torch.arange(4 * width, dtype=torch.float).reshape(4, width)
    upper_left, lower_left, upper_right, lower_right = neighbours
    rows = torch.stack([upper_left, upper_right, lower_left, lower_right])
    picture = rows.T.reshape(1, width, 2, 2)
    return F.unfold(picture, 2)[0, :, 0].long()


def test_positions_of_a_swin_detector_are_a_map():
    backbone = randomise(build("swin", use_abs_pos=True))
    state = official_state("swin", backbone)
    state["absolute_pos_embed"] = state.pop("pos_embed").transpose(1, 2).unflatten(2, (16, 16))
    model = build("swin", use_abs_pos=True)
    report = load_checkpoint(model, state)
    assert sorted(report.loaded) == sorted(model.state_dict())
    assert torch.equal(model.pos_embed, backbone.pos_embed)


def test_an_hrnet_backbone_has_no_neck_of_a_classifier():
    arguments = FAMILIES["hrnet_*"].small
    source = randomise(create_model("hrnet_w18", num_frames=1, **arguments))
    neck = ("incre_modules", "downsamp_modules", "final_layer")
    state = {
        f"backbone.{n}": t.squeeze(2) if t.dim() == 5 else t
        for n, t in source.state_dict().items()
        if not n.startswith((*neck, "head"))
    } | {"neck.fpn_convs.0.conv.weight": torch.ones(1)}
    model = create_model("hrnet_w18", num_frames=1, num_classes=0, **arguments)
    report = load_checkpoint(model, {"state_dict": state})
    assert report.dialect == "hrnet backbone"
    assert all(name.startswith(neck) for name in report.reinitialised) and not report.missing
    assert report.dropped == ["neck.fpn_convs.0.conv.weight"]


def test_vitdet_starts_from_a_classifier_with_tables_of_zeros():
    arguments = SMALL_VIT | {"crop_size": 64}
    source = randomise(create_model("mae_b", num_frames=1, num_classes=3, **arguments))
    model = create_model("vitdet_b", num_frames=1, num_classes=0, **arguments)
    report = load_checkpoint(model, source.state_dict())
    tables = [name for name in model.state_dict() if "rel_pos" in name]
    assert report.reinitialised == tables and report.interpolated == ["pos_embed"]
    assert not any(model.state_dict()[name].any() for name in tables)
    assert "cls_token" in report.dropped


def test_a_class_row_of_detectron2s_positions_is_left_out():
    source = randomise(create_model("vitdet_b", num_frames=1, num_classes=0, **SMALL_VIT))
    state = {
        f"backbone.net.{n}": t.squeeze(2) if t.dim() == 5 else t
        for n, t in source.state_dict().items()
    }
    table = state["backbone.net.pos_embed"]
    for rows in (table, torch.cat((torch.ones_like(table[:, :1]), table), dim=1)):
        model = create_model("vitdet_b", num_frames=1, num_classes=0, **SMALL_VIT)
        report = load_checkpoint(model, {"model": state | {"backbone.net.pos_embed": rows}})
        assert report.dialect == "detectron2 vit"
        assert torch.equal(model.pos_embed, table)
        assert len(report.loaded) == len(model.state_dict())
