"""Pickles of NumPy arrays, as detectron2 publishes its weights."""

import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch

from tests.models.families import SMALL_VIT
from tests.models.invariants import randomise
from videonet.checkpoint import load_checkpoint
from videonet.checkpoint.read import read_checkpoint
from videonet.errors import CheckpointError
from videonet.models import create_model


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_arrays_are_read_as_tensors(tmp_path, protocol):
    arrays = {
        "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "a.turned": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "a.count": np.array(7),
        "a.mask": np.array([True, False]),
    }
    content = {"model": OrderedDict(arrays), "__author__": "MAE", "n": np.int64(3)}
    path = tmp_path / "model_final.pkl"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    read = read_checkpoint(path)
    assert read["__author__"] == "MAE" and read["n"] == 3
    for name, array in arrays.items():
        assert torch.equal(
            read["model"][name], torch.from_numpy(np.ascontiguousarray(array)).reshape(array.shape)
        )


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_published_detector_is_loaded_from_its_file(tmp_path):
    source = randomise(create_model("vitdet_b", num_frames=1, num_classes=0, **SMALL_VIT))
    state = {f"backbone.net.{n}": t.squeeze(2).numpy() if t.dim() == 5 else t.numpy()
             for n, t in source.state_dict().items()}  # fmt: skip
    state["backbone.simfp_4.0.weight"] = np.ones((2, 2, 1, 1), dtype=np.float32)
    path = tmp_path / "model_final.pkl"
    path.write_bytes(pickle.dumps({"model": state, "__author__": "us"}))
    model = create_model("vitdet_b", num_frames=1, num_classes=0, **SMALL_VIT)
    report = load_checkpoint(model, path)
    assert report.dialect == "detectron2 vit"
    assert len(report.loaded) == len(model.state_dict())
    assert report.dropped == ["backbone.simfp_4.0.weight"]


class Opens:
    """Writes a file when it is unpickled carelessly."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize(
    "content",
    [
        lambda path: pickle.dumps({"a": np.ones(2), "b": Opens(path)}),
        lambda path: pickle.dumps({"a": np.array([Opens(path)], dtype=object)}),
        lambda path: pickle.dumps({"a": np.ones(2, dtype=">f4")}),
        lambda path: pickle.dumps({"a": np.ones(2)})[:-20],
        # An array that never gets its content, a function that gets a state, a number far away.
        lambda path: b"\x80\x02cnumpy\nndarray\n)R.",
        lambda path: b"\x80\x02c_codecs\nencode\n}b.",
        lambda path: b"\x80\x02]r\xff\xff\xff\xff.",
    ],
    ids=["object", "array of objects", "order", "cut", "empty", "state", "memo"],
)
def test_anything_else_is_refused(tmp_path, content):
    victim, path = tmp_path / "victim", tmp_path / "model.pkl"
    path.write_bytes(content(victim))
    with pytest.raises(CheckpointError):
        read_checkpoint(path)
    assert not victim.exists()
