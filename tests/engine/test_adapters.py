"""Low-rank adapters beside the linear layers of every architecture, in training and afterwards."""

import sys

import pytest
import torch

from tests.engine.test_finetune import run
from tests.models.invariants import relative_error
from videonet.checkpoint.adapters import merged_adapters
from videonet.checkpoint.checkpoint_dir import saved_checkpoints
from videonet.checkpoint.contents import find_state
from videonet.config import load_config
from videonet.engine.adapters import adapted_layers, add_adapters
from videonet.errors import CheckpointError, ConfigError
from videonet.inference import Predictor
from videonet.models import create_model, list_models

peft = pytest.importorskip("peft")
WITHOUT = ("asmlp_xs", "hrnet_xs")  # convolutions alone
MODELS = [name for name in list_models("*_xs") if name not in WITHOUT]


def options(**keys):
    overrides = [word for key, value in keys.items() for word in (f"MODEL.LORA.{key}", str(value))]
    return load_config(None, ["MODEL.NAME", "vit_xs", *overrides]).MODEL.LORA


def lively(name):
    """A model whose layer scales and zero projections let every layer have an effect."""
    torch.manual_seed(0)
    model = create_model(name, num_classes=5).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("name", MODELS)
def test_every_linear_layer_of_every_architecture(name):
    model = lively(name)
    clip = torch.randn(2, 3, 8, 48, 48)
    with torch.no_grad():
        before = model(clip)
    groups = len(model.layer_groups())
    names = add_adapters(model, options(RANK=4))
    assert not any(name.startswith("head.") for name in names)
    with torch.no_grad():
        assert relative_error(model(clip), before) < 1e-5
        for key, parameter in model.named_parameters():
            if ".lora_B" in key:
                parameter.normal_(std=0.02)
    outputs = model(clip)
    outputs.square().sum().backward()
    for key, parameter in model.named_parameters():
        trained = ".lora_" in key or key.startswith("head.")
        assert parameter.requires_grad == trained and (parameter.grad is not None) == trained, key
        assert not trained or parameter.grad.any(), key
    assert len(model.layer_groups()) == groups

    plain = create_model(name, num_classes=5).eval()
    plain.load_state_dict(merged_adapters(model.state_dict(), 16 / 4))
    with torch.no_grad():
        assert relative_error(outputs, before) > 1e-3
        assert relative_error(plain(clip), outputs) < 1e-5


def test_layers_by_the_ends_of_their_names():
    model = create_model("vit_xs", num_classes=5)
    assert len(adapted_layers(model)) == 4 * 4
    assert adapted_layers(model, ["qkv"]) == [f"blocks.{i}.attn.qkv" for i in range(4)]
    assert len(adapted_layers(model, ["attn.qkv", "fc1"])) == 8
    with pytest.raises(ConfigError, match="names 'kv', but the linear layers .* end with fc1"):
        adapted_layers(model, ["kv"])


@pytest.mark.parametrize("name", WITHOUT)
def test_a_model_without_linear_layers_is_refused(name):
    with pytest.raises(ConfigError, match="has no linear layers .* MODEL.FROZEN_LAYERS"):
        add_adapters(create_model(name, num_classes=5), options(RANK=4))


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r"MODEL.LORA.RANK is 4, .* 'videonet\[lora\]'"):
        add_adapters(create_model("vit_xs", num_classes=5), options(RANK=4))


def test_a_run_is_resumed_and_predicts_without_adapters(tiny, tmp_path):
    keys = ("MODEL.LORA.RANK", 2, "SOLVER.EMA_DECAY", 0.9, "TRAIN.CHECKPOINT_PERIOD", 1)
    before, whole = run(tiny(*keys, "SOLVER.MAX_EPOCH", 2, "OUTPUT_DIR", tmp_path / "whole"))
    state = whole.model.state_dict()
    for name, weight in before.items():
        if not name.startswith("head.") and ".lora_" not in name:
            assert torch.equal(state[name], weight), name
    run(tiny(*keys, "SOLVER.MAX_EPOCH", 2, "OUTPUT_DIR", tmp_path / "parts"))
    first, last = saved_checkpoints(tmp_path / "parts")
    last.unlink()
    _, parts = run(tiny(*keys, "SOLVER.MAX_EPOCH", 2, "OUTPUT_DIR", tmp_path / "parts"))
    for name, weight in parts.model.state_dict().items():
        assert torch.equal(weight, state[name]), name

    clip = torch.randint(256, (2, 3, *whole.loader.dataset.make_clips.clip_shape[1:]))
    clip = clip.to(torch.uint8)
    predictor = Predictor.from_checkpoint(tmp_path / "whole", overrides=["TEST.EMA", "False"])
    assert not any("lora" in name for name in predictor.model.state_dict())
    adapted = Predictor(whole.model, predictor.cfg, predictor.class_names)
    assert relative_error(predictor.run(clip)[0], adapted.run(clip)[0]) < 1e-5
    saved = Predictor.from_pretrained(predictor.save_pretrained(tmp_path / "model"))
    assert relative_error(saved.run(clip)[0], predictor.run(clip)[0]) < 1e-6


def test_adapters_whose_scale_nobody_tells_are_refused(tiny, tmp_path):
    down, up = "a.lora_A.default.weight", "a.lora_B.default.weight"
    state = {"a.base_layer.weight": torch.ones(2, 3), "a.base_layer.bias": torch.ones(2)}
    state |= {down: torch.ones(1, 3), up: torch.ones(2, 1)}
    merged = find_state({"model_state": state, "adapter_scale": 2.0}, "x").state
    assert torch.equal(merged["a.weight"], torch.full((2, 3), 3.0)) and set(merged) == {
        "a.weight",
        "a.bias",
    }
    with pytest.raises(CheckpointError, match="adapters"):
        find_state({"model_state": state}, "x")
    state[down] = torch.ones(1, 4)
    with pytest.raises(CheckpointError, match="adapter of a has matrices"):
        find_state({"model_state": state, "adapter_scale": 2.0}, "x")
