"""Reduced official DilateFormers with random weights: the same logits and tokens per stage."""

import pytest
import torch

import videonet
from tests.models.invariants import assert_everything_loaded, assert_same_as_recorded, read_record
from videonet.checkpoint import load_checkpoint
from videonet.errors import ConfigError

RECORDS = ["default", "eps_probe", "rect_conv2"]
TOKENIZERS = {"overlaping": "overlapping", "nonoverlaping": "patches", "pointconv": "pointwise"}
# Official name -> name here; what the official constructor leaves out is the same here.
SAME_MEANING = {
    "img_size": "crop_size",
    "in_chans": "in_channels",
    "drop": "dropout",
    "drop_path": "drop_path_rate",
    "cpe_per_block": "positions_per_block",
    "cpe_per_satge": "positions_per_stage",
}


def arguments_of(constructor):
    """Our arguments for the official ``Dilateformer(**constructor)``."""
    arguments = {SAME_MEANING.get(name, name): value for name, value in constructor.items()}
    arguments.pop("attn_drop", None)  # does nothing in eval mode
    arguments["num_heads"] = arguments.get("num_heads", (3, 6, 12, 24))
    arguments["depths"] = arguments.get("depths", (2, 2, 6, 2))
    arguments["embed_dim"] = arguments.get("embed_dim", 96)
    if isinstance(arguments.get("crop_size"), list):
        arguments["crop_size"] = tuple(arguments["crop_size"])
    if "patch_way" in arguments:
        arguments["tokenizer"] = TOKENIZERS[arguments.pop("patch_way")]
    # Every stage merges but the last one: other values fail in the official code.
    *merging, last = arguments.pop("downsamples", [True, True, True, False])
    assert all(merging) and not last
    return arguments


def channels_first(ours, recorded):
    """(B, 1, H, W, C) -> (B, C, H, W)."""
    return ours.squeeze(1).movedim(-1, 1)


@pytest.mark.parametrize("variant", RECORDS)
def test_official_dilateformer(shared_dir, variant):
    record, tensors, state = read_record(shared_dir / "reference" / "dilateformer" / variant)
    arguments = arguments_of(record["constructor"])
    model = videonet.create_model("dilateformer", num_frames=1, **arguments)
    assert sum(p.numel() for p in model.parameters()) == record["num_parameters"]
    report = load_checkpoint(model, {"model": state})
    assert report.dialect == "dilateformer"
    assert_everything_loaded(report, model, state)

    def module_at(stage):  # what the official stage returns
        return stage if model.get_submodule(stage).downsample is None else f"{stage}.downsample"

    assert_same_as_recorded(model, record, tensors, module_at, channels_first)


def test_every_record_is_tested(shared_dir):
    folder = shared_dir / "reference" / "dilateformer"
    assert sorted(RECORDS) == sorted(path.stem for path in folder.glob("*.json"))


def test_the_pointwise_tokenizer_halves_the_frame_twice():
    model = videonet.create_model("dilateformer_xs", tokenizer="pointwise", num_classes=3)
    kernels = [m.kernel_size for m in model.patch_embed.proj if isinstance(m, torch.nn.Conv3d)]
    assert kernels == [(3, 3, 3), (1, 1, 1), (1, 3, 3), (1, 1, 1)]
    features = model.eval().forward_intermediates(torch.randn(1, 3, 8, 48, 48))
    assert features[0].shape == (1, 48, 4, 12, 12)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"cls_token": True}, "no class token"),
        ({"num_heads": (4, 6)}, "4 heads cannot be shared out over 3 dilations"),
        ({"depths": (1, 1, 1)}, "one entry per stage"),
        ({"temporal_dilation": (1, 2)}, "temporal_dilation has 2 entries and dilation 3"),
        ({"kernel_size": 2}, "window of 2 taps with dilation 1 has no centre"),
        ({"temporal_kernel": 2}, "windows are 2 frames long"),
        ({"tokenizer": "patch"}, "tokenizer is 'patch'"),
        ({"merging_way": "avgpool3_2"}, "merging_way is 'avgpool3_2'"),
    ],
)
def test_contradictions_are_named(arguments, message):
    with pytest.raises(ConfigError, match=message):
        videonet.create_model("dilateformer_xs", **arguments)
