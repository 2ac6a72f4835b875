"""V-JEPA 2 against recorded outputs of its repository and of transformers, and live peers."""

import json

import pytest
import torch

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
from videonet.checkpoint.projections import with_fused_projections
from videonet.checkpoint.translate import to_own_names
from videonet.errors import CheckpointError
from videonet.heads.attentive import AttentiveProbe
from videonet.models import create_model

OFFICIAL = ["base", "eps_probe", "rect"]
TRANSFORMERS = ["base", "eps_probe", "giant_ratio"]


def official(constructor, **changes):
    """Our model for the official encoder and classifier."""
    encoder, classifier = constructor["encoder"], constructor["classifier"]
    assert encoder["use_rope"] and encoder["norm_layer"] == "LayerNorm eps 1e-6"
    assert classifier["embed_dim"] == encoder["embed_dim"]
    arguments = {
        "num_frames": encoder["num_frames"],
        "crop_size": tuple(encoder["img_size"]),
        "tubelet_frames": encoder["tubelet_size"],
        "pooler_blocks": classifier["depth"] - 1,
        "pooler_heads": classifier["num_heads"],
        "num_classes": classifier["num_classes"],
    }
    same = ("patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio")
    arguments |= {key: encoder[key] for key in same}
    return create_model("vjepa2_l", **(arguments | changes))


def like_transformers(config, **changes):
    """Our model for ``VJEPA2ForVideoClassification(VJEPA2Config(**config))``."""
    arguments = {
        "num_frames": config["frames_per_clip"],
        "crop_size": config["crop_size"],
        "patch_size": config["patch_size"],
        "tubelet_frames": config["tubelet_size"],
        "embed_dim": config["hidden_size"],
        "depth": config["num_hidden_layers"],
        "num_heads": config["num_attention_heads"],
        "mlp_ratio": config.get("mlp_ratio", 4.0),
        "pooler_blocks": config["num_pooler_layers"],
        "pooler_heads": config["num_attention_heads"],
        "pooler_norm_eps": 1e-6,
        "num_classes": config["num_labels"],
    }
    return create_model("vjepa2_l", **(arguments | changes))


def own_module(name):
    for theirs, ours in (
        ("vjepa2.encoder.layer.", "blocks."),
        ("vjepa2.encoder.layernorm", "norm"),
        ("pooler.cross_attention_layer", "pooler"),
        ("encoder.blocks.", "blocks."),
        ("classifier.pooler", "pooler"),
    ):
        name = name.replace(theirs, ours)
    return "norm" if name == "encoder" else name


@pytest.mark.parametrize("variant", OFFICIAL)
def test_recorded_vjepa2(shared_dir, variant):
    record, tensors, state = read_record(shared_dir / "reference" / "vjepa2" / variant)
    model = official(record["constructor"])
    assert sum(p.numel() for p in model.parameters()) == record["num_parameters"]
    report = load_checkpoint(model, state)
    assert report.dialect == "vjepa2"
    assert_everything_loaded(report, model, state)
    assert_same_as_recorded(model, record, tensors, own_module)


def files_of(state):
    """What the repository publishes: a pre-training and a probe, of a state dict of both."""
    of_part = {
        part: {n.removeprefix(f"{part}."): t for n, t in state.items() if n.startswith(part)}
        for part in ("encoder", "classifier")
    }
    encoder = {f"module.backbone.{n}": t for n, t in of_part["encoder"].items()}
    encoder["module.backbone.pos_embed"] = torch.zeros(1, 8, 4)
    pretraining = {
        "encoder": {n: torch.ones_like(t) for n, t in encoder.items()},
        "target_encoder": encoder,
        "predictor": {
            "module.backbone.predictor_blocks.0.norm1.weight": torch.ones(3),
            "module.backbone.mask_tokens.0": torch.ones(1, 1, 3),
        },
        "opt": {"state": {}, "param_groups": [{"lr": 0.1}]},
        "epoch": 3,
    }
    probe = {f"module.{n}": t for n, t in of_part["classifier"].items()}
    return pretraining, {"classifiers": [probe], "opt": [{"state": {}}], "epoch": 20}


def test_published_files_one_after_the_other(shared_dir):
    record, tensors, state = read_record(shared_dir / "reference" / "vjepa2" / "base")
    pretraining, probe = files_of(state)
    model = official(record["constructor"]).eval()
    report = load_checkpoint(model, pretraining)
    assert report.dialect == "vjepa2 encoder"
    body = ("pooler.", "head.")
    assert set(report.loaded) == {n for n in model.state_dict() if not n.startswith(body)}
    assert set(report.reinitialised) == {n for n in model.state_dict() if n.startswith(body)}
    assert all(name.startswith("target_encoder.") for name in report.used)
    assert not any(name.startswith("target_encoder.") for name in report.unexpected)
    report = load_checkpoint(model, probe)
    assert report.dialect == "vjepa2 probe"
    assert set(report.loaded) == {n for n in model.state_dict() if n.startswith(body)}
    assert not report.unexpected
    with torch.no_grad():
        assert relative_error(model(tensors["input"]), tensors["output"]) <= TOLERANCE


def test_an_encoder_and_a_probe_together(shared_dir):
    record, tensors, state = read_record(shared_dir / "reference" / "vjepa2" / "base")
    pretraining, probe = files_of(state)
    model = official(record["constructor"]).eval()
    both = {"encoder": pretraining["target_encoder"], "classifiers": probe["classifiers"]}
    report = load_checkpoint(model, both)
    assert sorted(report.loaded) == sorted(model.state_dict())
    with torch.no_grad():
        assert relative_error(model(tensors["input"]), tensors["output"]) <= TOLERANCE


def test_a_probe_alone_reads_the_features_of_its_encoder(shared_dir):
    record, tensors, state = read_record(shared_dir / "reference" / "vjepa2" / "base")
    settings = record["constructor"]["classifier"]
    head = AttentiveProbe(
        settings["embed_dim"],
        settings["num_classes"],
        num_heads=settings["num_heads"],
        num_blocks=settings["depth"] - 1,
    )
    _, probe = files_of(state)
    report = load_checkpoint(head, probe)
    assert sorted(report.loaded) == sorted(head.state_dict()) and not report.unexpected
    with torch.no_grad():
        found = head.eval()(tensors["feature.encoder"])
    assert relative_error(found, tensors["output"]) <= TOLERANCE


def test_one_of_several_probes_has_to_be_chosen(shared_dir):
    record, _, state = read_record(shared_dir / "reference" / "vjepa2" / "base")
    _, probe = files_of(state)
    probe["classifiers"] *= 20
    with pytest.raises(CheckpointError, match="classifiers lists 20 state dicts: give one of them"):
        load_checkpoint(official(record["constructor"]), probe)


@pytest.mark.parametrize("variant", TRANSFORMERS)
def test_recorded_transformers(shared_dir, variant):
    record, tensors, state = read_record(shared_dir / "reference" / "hf_vjepa2" / variant)
    model = like_transformers(record["constructor"])
    report = load_checkpoint(model, state)
    assert report.dialect == "transformers vjepa2"
    predictor = [name for name in state if name.startswith("vjepa2.predictor.")]
    assert sorted(report.loaded) == sorted(model.state_dict())
    assert sorted([*report.used, *predictor]) == sorted(state) and not report.unexpected
    assert_same_as_recorded(model, record, tensors, own_module)


def test_every_record_is_tested(shared_dir):
    for system, known in (("vjepa2", OFFICIAL), ("hf_vjepa2", TRANSFORMERS)):
        folder = shared_dir / "reference" / system
        assert set(known) <= {path.stem for path in folder.glob("*.json")}


def test_parameters_are_those_of_transformers(shared_dir):
    """All but the predictor's, which the classifier does not run."""
    path = shared_dir / "reference/manifests/hf_vjepa2_vit_l_16x256.json"
    names = dict(json.loads(path.read_text())["parameters"])
    state = {name: torch.empty(shape, device="meta") for name, shape in names.items()}
    with torch.device("meta"):
        model = create_model("vjepa2_l", num_classes=174)
    theirs = with_fused_projections(to_own_names(state, "the manifest")).state
    assert {n: t.shape for n, t in theirs.items()} == {
        n: p.shape for n, p in model.named_parameters()
    }


SMALL = {
    "patch_size": 8,
    "crop_size": 32,
    "frames_per_clip": 4,
    "tubelet_size": 2,
    "hidden_size": 48,
    "num_attention_heads": 3,
    "num_hidden_layers": 2,
    "num_pooler_layers": 2,
    "pred_hidden_size": 12,
    "pred_num_attention_heads": 2,
    "pred_num_hidden_layers": 1,
    "num_labels": 7,
}


def peer_of(kind="VJEPA2ForVideoClassification", **config):
    transformers = pytest.importorskip("transformers")
    return getattr(transformers, kind)(transformers.VJEPA2Config(**config))


def test_small_transformers():
    peer, model = Logits(peer_of(**SMALL)), like_transformers(SMALL)
    ignored = tuple(n for n in peer.state_dict() if n.startswith("vjepa2.predictor."))
    assert_same_logits(model, peer, (2, 3, 4, 32, 32), "transformers vjepa2", ignored)


def test_an_image_is_repeated_to_fill_a_tubelet():
    peer, model = randomise(peer_of(**SMALL)), like_transformers(SMALL).eval()
    load_checkpoint(model, peer.state_dict())
    image = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = peer(image.unsqueeze(1)).logits
        assert relative_error(model(image), expected) <= TOLERANCE


def test_transformers_without_a_classifier():
    peer, model = randomise(peer_of("VJEPA2Model", **SMALL)), like_transformers(SMALL).eval()
    report = load_checkpoint(model, peer.state_dict())
    assert report.dialect == "transformers vjepa2" and not report.unexpected
    assert all(name.startswith(("pooler.", "head.")) for name in report.reinitialised)
    clip = torch.randn(2, 3, 4, 32, 32)
    with torch.no_grad():
        expected = peer.get_vision_features(clip.transpose(1, 2))
        assert relative_error(model.forward_features(clip), expected) <= TOLERANCE


@pytest.mark.slow
def test_transformers_at_full_size():
    config = {"frames_per_clip": 4, "crop_size": 128, "num_labels": 174}
    peer = Logits(peer_of(**config))
    model = create_model("vjepa2_l", num_classes=174, pooler_norm_eps=1e-6)
    ignored = tuple(n for n in peer.state_dict() if n.startswith("vjepa2.predictor."))
    assert_same_logits(model, peer, (1, 3, 4, 128, 128), "transformers vjepa2", ignored)
