"""``videonet refine`` with checkpoints of runs and of the official code."""

import json

import pytest
import torch

from tests.inference.test_refinement import write_data
from tests.models.invariants import randomise
from tests.ops.test_boundary_patches import disk
from videonet.checkpoint import write_checkpoint
from videonet.cli import main
from videonet.config import load_config
from videonet.errors import ConfigError
from videonet.models.boundary_refiner import make_boundary_refiner

pytest.importorskip("pycocotools")
CONFIG = "CELLS/BPR_XS.yaml"


@pytest.fixture
def data(tmp_path):
    return write_data(
        tmp_path, torch.stack([disk(centre=(20, 18 + 4 * k)) for k in range(3)]), False
    )


@pytest.fixture
def refiner():
    return randomise(make_boundary_refiner("hrnet_xs"))


def official_names(model):
    """The state dict of a refiner as mmsegmentation would write it."""
    state = {}
    for name, tensor in model.state_dict().items():
        theirs = name.replace("convs.0.norm.", "convs.0.bn.")
        state[theirs] = tensor.squeeze(2) if tensor.dim() == 5 else tensor
    return state


def test_results_are_refined_and_scored(tmp_path, data, refiner, capsys):
    checkpoint = tmp_path / "checkpoint.safetensors"
    content = {"model_state": refiner.state_dict(), "cfg": load_config(CONFIG).dump()}
    write_checkpoint(checkpoint, content)
    output = tmp_path / "refined.json"
    words = ["refine", "--data", str(data), "--checkpoint", str(checkpoint), "--quiet"]
    main([*words, "--coarse", "3", "3", "--output", str(output), "--scores", "--batch-size", "4"])
    scores = json.loads(capsys.readouterr().out)
    assert scores["before"]["mask AP"] > scores["after"]["mask AP"]  # of random weights
    first = json.loads(output.read_text())
    assert [one["image_id"] for one in first] == [0, 1, 2]
    assert all({"segmentation", "bbox", "area", "score"} <= one.keys() for one in first)

    # The official file gives the same; its configuration is named.
    file = tmp_path / "official.pth"
    torch.save({"state_dict": official_names(refiner), "meta": {"epoch": 1}}, file)
    words[words.index(str(checkpoint))] = str(file)
    again = tmp_path / "again.json"
    main([*words, "--cfg", CONFIG, "--coarse", "3", "3", "--output", str(again)])
    assert json.loads(again.read_text()) == first
    # Results in a file, and a key of the configuration.
    third = tmp_path / "third.json"
    words += ["--cfg", CONFIG, "--output", str(third), "BOUNDARY.OVERLAP", "0.55"]
    main([*words[:1], str(output), *words[1:]])
    assert len(json.loads(third.read_text())) == 3


@pytest.mark.parametrize(
    "words, message",
    [
        (["--output", "x.json"], "either a file of results or --coarse"),
        (["a.json", "--coarse", "1", "2", "--output", "x.json"], "either a file of results"),
        (["a.json"], "--output, --scores or both"),
    ],
)
def test_words_that_make_no_sense(words, message):
    with pytest.raises(ConfigError, match=message):
        main(["refine", "--data", "d.json", "--checkpoint", "c", *words])
