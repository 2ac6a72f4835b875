"""Exported models compute what the eager model computes, in a process of their own too."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

import videonet
from videonet.choices import EXPORT_SUFFIXES
from videonet.config import load_config
from videonet.errors import ConfigError
from videonet.inference import Predictor
from videonet.inference import export as exporting
from videonet.inference.export import (
    ExportError,
    export_model,
    read_aoti,
    read_onnx,
    read_pt2,
)

ROOT = Path(__file__).resolve().parents[2]

FRESH = """
import sys, torch
from videonet.inference.export import read_onnx, read_pt2
clips, expected = torch.load(sys.argv[2], weights_only=True)
path = sys.argv[1]
run, about = read_onnx(path) if path.endswith(".onnx") else read_pt2(path, trust_file=True)
with torch.no_grad():
    found = run(clips)
print(((found - expected).abs().max() / expected.abs().max()).item(), len(about["classes"]))
"""


def make_predictor(name: str, frames: int, size: int, **arguments) -> Predictor:
    """A model of random weights with large logits."""
    torch.manual_seed(0)
    model = videonet.create_model(
        name, num_classes=7, num_frames=frames, crop_size=size, **arguments
    )
    with torch.no_grad():
        model.head.projection.weight.normal_(std=1.0)
    overrides = {
        "MODEL.NAME": name,
        "MODEL.NUM_CLASSES": 7,
        "DATA.NUM_FRAMES": frames,
        "DATA.TEST_CROP_SIZE": size,
        "DEVICE": "cpu",
    }
    cfg = load_config(None, [str(part) for pair in overrides.items() for part in pair])
    return Predictor(model, cfg, [f"class {k}" for k in range(7)])


def check_in_a_fresh_process(predictor: Predictor, path: Path, batch: int) -> None:
    torch.manual_seed(1)
    clips = torch.randn(batch, *exporting.clip_shape(predictor))
    with torch.no_grad():
        expected = predictor.model(clips)
    torch.save((clips, expected), path.with_suffix(".pt"))
    command = [sys.executable, "-c", FRESH, str(path), str(path.with_suffix(".pt"))]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=900)
    assert done.returncode == 0, done.stderr
    error, classes = done.stdout.split()[-2:]
    assert float(error) <= 1e-4 and classes == "7"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pt2", "onnx"])
def test_a_small_model_in_a_fresh_process(kind, tmp_path):
    if kind == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    predictor = make_predictor("mvit_v2_xs", 4, 32)
    path = tmp_path / f"model{EXPORT_SUFFIXES[kind]}"
    assert export_model(predictor, kind, path) <= 1e-4
    check_in_a_fresh_process(predictor, path, batch=5)
    about = (read_onnx(path) if kind == "onnx" else read_pt2(path, trust_file=True))[1]
    assert about["input"] == [3, 4, 32, 32] and about["mean"] == [0.45, 0.45, 0.45]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pt2", "onnx"])
def test_full_size(kind, tmp_path):
    """MViTv2-S at 16 x 224 x 224."""
    if kind == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    predictor = make_predictor("mvit_v2_s", 16, 224)
    path = tmp_path / f"model{EXPORT_SUFFIXES[kind]}"
    assert export_model(predictor, kind, path) <= 1e-4
    check_in_a_fresh_process(predictor, path, batch=1)


@pytest.mark.slow
def test_a_compiled_package(tmp_path):
    predictor = make_predictor("mvit_v2_xs", 4, 32)
    assert export_model(predictor, "aoti", tmp_path / "model.pt2") <= 1e-4


class Other(nn.Module):
    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, clip):
        return self.model(clip) * 1.001


def test_a_file_that_computes_something_else_is_refused(tmp_path, monkeypatch):
    predictor = make_predictor("mvit_v2_xs", 4, 32)

    def write(change):
        def writer(model, clip, description, path):
            path.write_bytes(b"a program")
            return change(model)

        monkeypatch.setitem(exporting.WRITERS, "pt2", writer)

    write(Other)
    with pytest.raises(ExportError, match="differ by 0.001"):
        export_model(predictor, "pt2", tmp_path / "model.pt2")
    assert not list(tmp_path.iterdir())
    write(lambda model: model)
    assert export_model(predictor, "pt2", tmp_path / "model.pt2") == 0.0


class RunsCode:
    def __init__(self, victim: Path):
        self.victim = victim

    def __reduce__(self):
        return os.mkdir, (str(self.victim),)


@pytest.mark.parametrize("read", [read_pt2, read_aoti])
@pytest.mark.parametrize("trust", [{}, {"trust_file": False}, {"trust_file": 1}])
def test_a_program_is_opened_only_where_its_file_is_trusted_by_name(tmp_path, read, trust):
    path, hostile = tmp_path / "good.pt2", tmp_path / "hostile.pt2"
    program = torch.export.export(nn.Linear(4, 2), (torch.randn(3, 4),))
    torch.export.save(program, path, extra_files={"videonet.json": "{}"})
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(hostile, "w") as target:
        for name in source.namelist():
            content = source.read(name).replace(b'"use_pickle": false', b'"use_pickle": true')
            if name.endswith("weight_0"):
                content = pickle.dumps(RunsCode(tmp_path / "victim"))
            target.writestr(name, content)
    for file in (path, hostile):
        with pytest.raises(ExportError, match=rf"{read.__name__}\(path, trust_file=True\)"):
            read(file, **trust)
    assert not (tmp_path / "victim").exists()


@pytest.mark.parametrize("place", ["../secret.bin", "/etc/hostname", "link.bin"])
def test_weights_of_an_onnx_file_lie_beside_it(tmp_path, place):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    (tmp_path / "secret.bin").write_bytes(bytes(16))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    weight = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[4], data_location=1)
    weight.external_data.add(key="location", value=place)
    vector = onnx.helper.make_tensor_value_info("clip", onnx.TensorProto.FLOAT, [4])
    out = onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [4])
    node = onnx.helper.make_node("Add", ["clip", "w"], ["logits"])
    graph = onnx.helper.make_graph([node], "g", [vector], [out], initializer=[weight])
    (folder / "x.onnx").write_bytes(onnx.helper.make_model(graph).SerializeToString())
    with pytest.raises(ExportError, match="takes w from .*, which does not lie beside it"):
        read_onnx(folder / "x.onnx")
    (folder / "x.onnx").write_bytes(b"no protobuf \xff")
    with pytest.raises(ExportError, match="not an ONNX file"):
        read_onnx(folder / "x.onnx")
    node.input[1] = "nowhere"
    graph = onnx.helper.make_graph([node], "g", [vector], [out])
    (folder / "x.onnx").write_bytes(onnx.helper.make_model(graph).SerializeToString())
    with pytest.raises(ExportError, match="no ONNX model that can be run") as caught:
        read_onnx(folder / "x.onnx")
    assert "\n" not in str(caught.value)


def test_what_cannot_be_exported_is_named(tmp_path, monkeypatch):
    predictor = make_predictor("mvit_v2_xs", 4, 32)
    with pytest.raises(ConfigError, match="tflite"):
        export_model(predictor, "tflite", tmp_path / "model.tflite")
    monkeypatch.setattr(exporting.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'videonet\[export\]'"):
        export_model(predictor, "onnx", tmp_path / "model.onnx")
    monkeypatch.undo()
    monkeypatch.setattr(exporting.shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match="compiler"):
        export_model(predictor, "aoti", tmp_path / "model.pt2")


@pytest.mark.parametrize(
    ("size", "depth"),
    [
        (64, 4),  # with two of the three blocks that pool queries and widen
        pytest.param(224, 16, marks=pytest.mark.slow),
    ],
)
def test_compiling_breaks_no_graph(size, depth):
    model = videonet.create_model("mvit_v2_s", num_frames=16, crop_size=size, depth=depth).eval()
    clip = torch.randn(1, 3, 16, size, size)
    torch._dynamo.reset()
    with torch.no_grad():  # a whole graph, or an error
        whole = torch.compile(model, fullgraph=True, backend="eager")(clip)
        assert torch.allclose(whole, model(clip), atol=1e-5)
    torch._dynamo.reset()
