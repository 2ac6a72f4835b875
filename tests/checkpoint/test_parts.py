"""Checkpoints of several files and of other programs: read, or one sentence says what they are."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from videonet.checkpoint import load_checkpoint, read_checkpoint
from videonet.checkpoint.checkpoint_dir import newest_checkpoint
from videonet.checkpoint.read import verify_checkpoint
from videonet.errors import CheckpointError
from videonet.models import create_model


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    model = create_model("mvit_v2_xs", num_classes=5)
    return {name: tensor.clone().contiguous() for name, tensor in model.state_dict().items()}


def in_parts(folder, state, suffix):
    """Two files with an index, as model hubs store large models; returns the index."""
    names, table = list(state), {}
    stem = "model" if suffix == ".safetensors" else "pytorch_model"
    for part, chosen in enumerate((names[:40], names[40:]), 1):
        file = folder / f"{stem}-{part:05d}-of-00002{suffix}"
        tensors = {name: state[name] for name in chosen}
        save_file(tensors, file) if suffix == ".safetensors" else torch.save(tensors, file)
        table |= dict.fromkeys(chosen, file.name)
    index = folder / f"{stem}{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": table}))
    return index


def deepspeed(folder, state, ranks=1):
    step = folder / "global_step7"
    step.mkdir()
    (folder / "latest").write_text("global_step7\n")
    content = {"module": {f"module.{n}": t for n, t in state.items()}, "ds_version": "0.16"}
    for rank in range(ranks):
        torch.save(content, step / f"mp_rank_{rank:02d}_model_states.pt")
    torch.save({"optimizer_state_dict": {"a": {"b": torch.ones(2)}}}, step / "optim_states.pt")
    return folder


def one_file(folder, state, name):
    path = folder / name
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    return folder


READ = {
    "index of safetensors": lambda f, s: in_parts(f, s, ".safetensors"),
    "folder with an index of safetensors": lambda f, s: in_parts(f, s, ".safetensors").parent,
    "index of bin": lambda f, s: in_parts(f, s, ".bin"),
    "folder with an index of bin": lambda f, s: in_parts(f, s, ".bin").parent,
    "folder with one safetensors": lambda f, s: one_file(f, s, "model.safetensors"),
    "folder with one bin": lambda f, s: one_file(f, s, "pytorch_model.bin"),
    "folder of DeepSpeed": deepspeed,
    "step of DeepSpeed": lambda f, s: deepspeed(f, s) / "global_step7",
    "file of DeepSpeed": lambda f, s: deepspeed(f, s) / "global_step7/mp_rank_00_model_states.pt",
}


@pytest.mark.parametrize("kind", READ)
def test_weights_of_several_files_are_loaded(tmp_path, state, kind):
    path = READ[kind](tmp_path, state)
    model = create_model("mvit_v2_xs", num_classes=5)
    load_checkpoint(model, path)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in state.items())
    assert newest_checkpoint(path) == path  # as TRAIN.CHECKPOINT_FILE_PATH and --checkpoint


def edited(index, change):
    content = json.loads(index.read_text())
    change(content["weight_map"])
    index.write_text(json.dumps(content))
    return index


def without_a_part(folder, state):
    index = in_parts(folder, state, ".safetensors")
    (folder / "model-00002-of-00002.safetensors").unlink()
    return index


def distributed(folder, state):
    (folder / ".metadata").write_bytes(b"\x80\x04.")
    (folder / "__0_0.distcp").write_bytes(b"1234")
    return folder


def script(folder, state):
    torch.jit.script(nn.Linear(2, 2)).save(folder / "x.pt")
    return folder / "x.pt"


def program(folder, state):
    exported = torch.export.export(nn.Linear(2, 2), (torch.randn(3, 2),))
    torch.export.save(exported, folder / "x.pt2")
    return folder / "x.pt2"


def bytes_of(content, name="x.pth"):
    def make(folder, state):
        (folder / name).write_bytes(content)
        return folder / name

    return make


def empty_run(folder, state):
    (folder / "checkpoints").mkdir()
    return folder


def bomb(folder, state):
    torch.save({"a": torch.zeros(1)}, folder / "small.pth")
    with (
        zipfile.ZipFile(folder / "small.pth") as source,
        zipfile.ZipFile(folder / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            data = bytes(200 << 20) if name.endswith("data/0") else source.read(name)
            target.writestr(name, data)
    return folder / "bomb.pth"


def arrays(folder, state):
    np.savez(folder / "x.npz", a=np.ones(3))
    return folder / "x.npz"


REFUSED = {
    "part of several": (
        lambda f, s: in_parts(f, s, ".safetensors").parent / "model-00001-of-00002.safetensors",
        r"one of 2 parts: give their index, model\.safetensors\.index\.json",
    ),
    "index without a part": (without_a_part, "several files, and model-00002-of-00002"),
    "index that leaves the folder": (
        lambda f, s: edited(
            in_parts(f, s, ".safetensors"), lambda m: m.update(cls_token="../x.safetensors")
        ),
        "not beside it",
    ),
    "index of another tensor": (
        lambda f, s: edited(
            in_parts(f, s, ".safetensors"),
            lambda m: m.update(more="model-00001-of-00002.safetensors"),
        ),
        "lacks more",
    ),
    "other JSON": (bytes_of(b'{"architectures": ["ViT"]}', "config.json"), "not an index"),
    "no JSON": (bytes_of(b'{"weight_map": [', "x.index.json"), "not an index"),
    "deep JSON": (bytes_of(b"[" * 100_000, "x.index.json"), "not an index"),
    "distributed": (distributed, "dcp_to_torch"),
    "a shard": (bytes_of(b"1234", "__0_0.distcp"), "whole folder"),
    "DeepSpeed of two ranks": (lambda f, s: deepspeed(f, s, 2), "zero_to_fp32"),
    "optimiser of DeepSpeed": (
        lambda f, s: deepspeed(f, s) / "global_step7/optim_states.pt",
        "optimiser alone",
    ),
    "TorchScript": (script, r"TorchScript.*state_dict"),
    "exported": (program, r"torch\.export, not a checkpoint"),
    "NumPy": (arrays, "NumPy"),
    "Keras": (bytes_of(b"\x89HDF\r\n\x1a\n" + bytes(99)), "HDF5"),
    "GGUF": (bytes_of(b"GGUF" + bytes(99)), "GGUF"),
    "gzip": (bytes_of(b"\x1f\x8b" + bytes(99)), "unpack it first"),
    "ONNX": (bytes_of(b"\x08\x07", "x.onnx"), "ONNX"),
    "bomb": (bomb, "would unpack from .* KiB to 200 MiB"),
    "adapters": (lambda f, s: one_file(f, s, "adapter_model.safetensors"), "merge them"),
    "run without checkpoints": (empty_run, "is a folder of a run"),
    "metadata that is no object": (
        lambda f, s: save_file(s, f / "x.safetensors", {"videonet": "5"}) or f / "x.safetensors",
        "no JSON object",
    ),
    "metadata too deep": (
        lambda f, s: (
            save_file(s, f / "x.safetensors", {"videonet": "[" * 100_000}) or f / "x.safetensors"
        ),
        "damaged",
    ),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_read_is_named_in_one_sentence(tmp_path, state, kind):
    make, message = REFUSED[kind]
    path = make(tmp_path, state)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(create_model("mvit_v2_xs", num_classes=5), path)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


CONTAINERS = {
    "Lightning": lambda s: {
        "state_dict": {f"model.net.{n}": t for n, t in s.items()} | {"acc.tp": torch.ones(1)},
        "hyper_parameters": {"lr": 0.1},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3)}}}],
        "epoch": 3,
    },
    "timm's averages": lambda s: {"state_dict_ema": s, "epoch": 1},
    "DeiT's averages": lambda s: {"model_ema": s},
    "averages of a module": lambda s: {"ema": {"module": {f"module.{n}": t for n, t in s.items()}}},
    "averages by another name": lambda s: {"ema_state_dict": s, "optimizer": {"a": torch.ones(2)}},
    "this project's averages": lambda s: {"ema_state": s, "model_state": {}},
    "DeepSpeed": lambda s: {"module": s, "param_shapes": [{"a": torch.Size([3])}], "ds_config": {}},
    "Composer": lambda s: {"state": {"model": {f"module.{n}": t for n, t in s.items()}}},
    "body and head": lambda s: {
        "backbone": {n: t for n, t in s.items() if not n.startswith("head.")},
        "head": {n.removeprefix("head."): t for n, t in s.items() if n.startswith("head.")},
    },
    "another key": lambda s: {"video_encoder": s, "step": torch.tensor(3)},
}


@pytest.mark.parametrize("kind", CONTAINERS)
def test_weights_are_found_wherever_trainers_put_them(tmp_path, state, kind):
    path = tmp_path / "x.pth"
    torch.save(CONTAINERS[kind](state), path)
    model = create_model("mvit_v2_xs", num_classes=5)
    report = load_checkpoint(model, path)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in state.items())
    assert any("averages" in note for note in report.notes) == ("averages" in kind)


def test_weights_go_before_their_averages(tmp_path, state):
    averages = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    model = create_model("mvit_v2_xs", num_classes=5)
    report = load_checkpoint(model, {"model_ema": averages, "model": state})
    assert torch.equal(model.cls_token, state["cls_token"])
    assert any("model_ema" in note and "not taken" in note for note in report.notes)


def test_averages_without_names_are_told(state):
    with pytest.raises(CheckpointError, match="shadow_params lists tensors without names"):
        load_checkpoint(
            create_model("mvit_v2_xs"), {"decay": 0.9, "shadow_params": list(state.values())}
        )


def test_damaged_weights_are_not_read(tmp_path, state):
    path = tmp_path / "x.pth"
    torch.save({"model_state": state}, path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="checksum of its .* does not match"):
        read_checkpoint(path)


def test_weights_without_checksums_are_read(tmp_path, state):
    path = tmp_path / "x.pth"
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"model_state": state}, path)
    finally:
        torch.serialization.set_crc32_options(before)
    assert torch.equal(read_checkpoint(path)["model_state"]["cls_token"], state["cls_token"])
    verify_checkpoint(path)


def test_every_flip_in_the_directory_that_matters_is_found(tmp_path):
    """What passes can be read, and holds what was written."""
    path, flipped = tmp_path / "x.pth", tmp_path / "y.pth"
    content = {"model_state": {"a": torch.arange(4.0), "b": torch.arange(3.0)}}
    torch.save(content, path)
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        start = archive.start_dir
    passed = 0
    for bit in range(8 * start, 8 * len(data), 3):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        flipped.write_bytes(changed)
        try:
            verify_checkpoint(flipped)
        except CheckpointError:
            continue
        found = torch.load(flipped, weights_only=True)["model_state"]
        assert all(torch.equal(found[n], t) for n, t in content["model_state"].items())
        passed += 1
    assert 0 < passed < (len(data) - start) * 8 / 3 / 2
