"""TimeSformer, ViViT and MAE-ST's fine-tuned ViT against recorded outputs."""

import copy
from pathlib import Path

import pytest
import torch

from tests.conftest import SHARED
from tests.models.invariants import (
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

REFERENCE = SHARED / "reference"
KNOWN = {
    "hf_timesformer": {"divided", "divided_rect", "eps_probe", "joint"},
    "hf_vivit": {"base", "eps_probe", "rect"},
    "mae_st": {"finetune"},
}
RECORDS = [
    (system, path.stem)
    for system in KNOWN
    for path in sorted((REFERENCE / system).glob("*.json"))
    if system != "mae_st" or path.stem == "finetune"  # the others are pre-trainings
]


def arguments_of_transformers(c):
    """What TimesformerConfig, VivitConfig and ours say in other words."""
    size = c["image_size"]
    return {
        "num_classes": c["num_labels"],
        "num_frames": c["num_frames"],
        "crop_size": tuple(size) if isinstance(size, list) else size,
        "embed_dim": c["hidden_size"],
        "depth": c["num_hidden_layers"],
        "num_heads": c["num_attention_heads"],
        "mlp_ratio": c["intermediate_size"] / c["hidden_size"],
    }


def timesformer(c):
    joint = c.get("attention_type") == "joint_space_time"
    arguments = arguments_of_transformers(c) | {"patch_size": c["patch_size"]}
    if joint:
        arguments["space_time"] = "joint"
    return create_model("timesformer_b", **arguments)


def vivit(c):
    frames, height, width = c["tubelet_size"]
    arguments = {"tubelet_frames": frames, "patch_size": (height, width)}
    return create_model("vivit_b", **arguments_of_transformers(c), **arguments)


def mae_st(c):
    arguments = {
        "num_classes": c["num_classes"],
        "num_frames": c["num_frames"],
        "tubelet_frames": c["t_patch_size"],
        "crop_size": c["img_size"],
        "patch_size": c["patch_size"],
        "embed_dim": c["embed_dim"],
        "depth": c["depth"],
        "num_heads": c["num_heads"],
        "mlp_ratio": c["mlp_ratio"],
        "sep_pos_embed": c["sep_pos_embed"],
        "cls_token": c["cls_embed"],
    }
    return create_model("mae_b", **arguments)


BUILD = {"hf_timesformer": timesformer, "hf_vivit": vivit, "mae_st": mae_st}
DIALECTS = {
    "hf_timesformer": "transformers timesformer",
    "hf_vivit": "transformers vivit",
    "mae_st": "mae-st",
}


def own_module(name):
    for theirs, ours in (
        ("timesformer.encoder.layer.", "blocks."),
        ("timesformer.layernorm", "norm"),
        ("vivit.layers.", "blocks."),
        ("vivit.layernorm", "norm"),
    ):
        name = name.replace(theirs, ours)
    return name


def time_fastest(frames):
    """Tokens in TimeSformer's order: for each place its frames."""

    def convert(tokens, _):
        first, cells = tokens[:, :1], tokens[:, 1:]
        cells = cells.unflatten(1, (frames, -1)).transpose(1, 2).flatten(1, 2)
        return torch.cat((first, cells), dim=1)

    return convert


@pytest.mark.parametrize(("system", "variant"), RECORDS)
def test_recorded(system, variant):
    record, tensors, state = read_record(REFERENCE / system / Path(variant))
    model = BUILD[system](record["constructor"])
    assert sum(p.numel() for p in model.parameters()) == record["num_parameters"]
    report = load_checkpoint(model, state)
    assert report.dialect == DIALECTS[system]
    assert_everything_loaded(report, model, state)
    if system == "mae_st":  # its norm follows the pooling
        record["features"]["feature.norm"]["module"] = "fc_norm"
    convert = time_fastest(model.grid[0]) if system == "hf_timesformer" else None
    assert_same_as_recorded(model, record, tensors, own_module, convert)


def test_the_known_records_are_among_them(shared_dir):
    found = {system: {v for s, v in RECORDS if s == system} for system in KNOWN}
    assert all(found[system] >= names for system, names in KNOWN.items())


SIZES = {
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 96,
    "image_size": 16,
    "num_frames": 4,
    "num_labels": 5,
}
# Class of transformers -> what its configuration needs beside the sizes, and our model.
PEERS = {
    "Timesformer": ({"patch_size": 8}, "timesformer_b", {"patch_size": 8}),
    "Vivit": ({"tubelet_size": [2, 8, 8]}, "vivit_b", {"patch_size": 8}),
    "VideoMAE": (
        {"patch_size": 8},
        "videomae_b",
        {"patch_size": 8, "sine_grid": (2, 2, 2), "norm_eps": 1e-12, "last_norm_eps": 1e-5},
    ),
}


def small_peer(kind, **changes):
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{kind}Config")(**SIZES | PEERS[kind][0] | changes)
    return randomise(getattr(transformers, f"{kind}ForVideoClassification")(config))


def small_own(kind, **changes):
    _, name, arguments = PEERS[kind]
    return create_model(name, **arguments_of_transformers(SIZES) | arguments | changes)


@pytest.mark.parametrize("kind", PEERS)
def test_names_of_transformers_in_memory(kind):
    """From version 5 on its models have other names than the files that they write."""
    assert_same_logits(
        small_own(kind),
        Logits(small_peer(kind)),
        (2, 3, 4, 16, 16),
        f"transformers {kind.lower()}",
    )


@pytest.mark.parametrize("kind", PEERS)
def test_names_of_transformers_in_files(kind, tmp_path):
    """What ``save_pretrained`` writes; a bias that is left out or zero changes the logits."""
    peer = small_peer(kind)
    peer.save_pretrained(tmp_path)
    model = small_own(kind).eval()
    report = load_checkpoint(model, tmp_path)
    assert sorted(report.loaded) == sorted(model.state_dict())
    assert not report.dropped and not report.unexpected
    clip = torch.randn(2, 3, 4, 16, 16)
    with torch.no_grad():
        assert relative_error(model(clip), Logits(peer)(clip)) <= 1e-4
        if kind == "VideoMAE":
            for bias in ("q_bias", "v_bias"):
                other = copy.deepcopy(model)
                for block in other.blocks:
                    getattr(block.attn, bias).zero_()
                assert relative_error(other(clip), Logits(peer)(clip)) > 1e-3, bias


@pytest.mark.parametrize("wrapper", ["", "backbone."])
@pytest.mark.parametrize("kind", PEERS)
def test_a_model_of_transformers_without_a_classifier(kind, wrapper):
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{kind}Config")(**SIZES | PEERS[kind][0])
    base = randomise(getattr(transformers, f"{kind}Model")(config))
    state = {wrapper + name: tensor for name, tensor in base.state_dict().items()}
    model = small_own(kind)
    report = load_checkpoint(model, state)
    assert report.dialect == f"transformers {kind.lower()}"
    assert {n.partition(".")[0] for n in report.reinitialised} <= {"head", "fc_norm"}
    assert not report.missing and not report.unexpected
    assert all("pooler" in name or "layernorm" in name for name in report.dropped)
    body = {n for n in model.state_dict() if not n.startswith(("head.", "fc_norm."))}
    assert set(report.loaded) >= body


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "name", "arguments"),
    [
        ("Timesformer", "timesformer_b", {}),
        ("Vivit", "vivit_b", {}),
        ("VideoMAE", "videomae_b", {"norm_eps": 1e-12, "last_norm_eps": 1e-5}),
    ],
)
def test_transformers_at_full_size(kind, name, arguments):
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{kind}Config")(num_labels=400)
    peer = Logits(getattr(transformers, f"{kind}ForVideoClassification")(config))
    model = create_model(name, **arguments)
    shape = (1, 3, config.num_frames, 224, 224)
    assert_same_logits(model, peer, shape, f"transformers {kind.lower()}")
