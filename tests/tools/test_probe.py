"""videonet probe: a backbone and a new data set in, a model out."""

import json

import numpy as np
import pytest
import torch

import videonet
from tests.models.invariants import relative_error
from videonet.checkpoint import write_checkpoint
from videonet.commands.probe import main
from videonet.config import load_config
from videonet.data.feature_store import read_features
from videonet.data.preparing.synthetic import write_demo_dataset


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    write_demo_dataset(folder, train_clips=32, val_clips=8, size=32, num_frames=8, seed=0)
    rows = [line.split(" ")[0] for line in (folder / "train.csv").read_text().splitlines()]
    stems = [row.rpartition("/")[2].removesuffix(".mp4") for row in rows]
    groups = "".join(f"{stem},g{k // 2}\n" for k, stem in enumerate(stems))
    (folder / "meta.csv").write_text("id,group\n" + groups)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A run on three classes that are none of the demo's."""
    small = ["DATA.TEST_CROP_SIZE", "32", "MODEL.NUM_CLASSES", "3"]
    cfg = load_config("DEMO/MVITv2_XS.yaml", small)
    torch.manual_seed(0)
    model = videonet.create_model("mvit_v2_xs", num_classes=3, num_frames=8, crop_size=48)
    path = tmp_path_factory.mktemp("run") / "weights.pyth"
    names = ["sit", "stand", "walk"]
    write_checkpoint(
        path, {"model_state": model.state_dict(), "cfg": cfg.dump(), "class_names": names}
    )
    return path


def probe(capsys, checkpoint, data, output, *overrides):
    options = ["SOLVER.MAX_EPOCH", 3, "PROBE.RATES", "[1e-3, 1e-2]", "PROBE.DECAYS", "[0.1]",
               "TEST.NUM_ENSEMBLE_VIEWS", 2, "DEVICE", "cpu", "PROBE.AUGMENTED", 1,
               "PROBE.GROUPS", "meta.csv", "DATA.TRAIN_CROP_SIZE", 32,
               "DATA.TRAIN_JITTER_SCALES", "[32, 36]"]  # fmt: skip
    words = ["--checkpoint", checkpoint, "DATA.PATH_TO_DATA_DIR", data, "OUTPUT_DIR", output]
    main([str(word) for word in (*words, *options, *overrides)])
    return json.loads(capsys.readouterr().out)


def test_a_new_data_set_becomes_a_model(capsys, checkpoint, data, tmp_path):
    results = probe(capsys, checkpoint, data, tmp_path / "run")
    assert {"attentive", "statistics", "linear", "knn"} <= results.keys() and results[
        "val_videos"
    ] == 8
    assert results == json.loads((tmp_path / "run" / "results.json").read_text())
    folders = sorted(path.name.split("-")[0] for path in (tmp_path / "run" / "features").iterdir())
    assert folders == ["train", "train", "val"]

    predictor = videonet.Predictor.from_pretrained(results["model"])
    classes = (data / "classes.txt").read_text().split()
    assert predictor.class_names == classes
    rows = (tmp_path / "run" / "scores.csv").read_text().splitlines()[1:]
    heads = ("attentive", "statistics", "linear")
    best = max(heads, key=lambda method: results[method]["held_out"])
    for row in rows:
        method, path, _, predicted, score = row.split(",")
        if method == best:
            name, value = predictor(path).top[0]
            assert name == predicted and abs(value - float(score)) < 2e-3


def test_features_are_computed_once(capsys, checkpoint, data, tmp_path, monkeypatch):
    features = ("PROBE.FEATURES", tmp_path / "features")
    first = probe(capsys, checkpoint, data, tmp_path / "a", *features)
    (train,) = [p for p in (tmp_path / "features").glob("train-*") if "null" in
                (p / "features.json").read_text()]  # fmt: skip
    videos = read_features(train)
    assert videos[0].tokens.dtype == np.float16 and videos[0].tokens.shape[:1] == (2,)

    def refuse(*_):
        raise AssertionError("a feature is computed again")

    monkeypatch.setattr("videonet.inference.extraction._of_clips", refuse)
    again = probe(capsys, checkpoint, data, tmp_path / "b", *features)
    assert {**again, "model": ""} == {**first, "model": ""}
    with pytest.raises(AssertionError, match="again"):
        probe(capsys, checkpoint, data, tmp_path / "c", *features, "DATA.NUM_FRAMES", 4)


@pytest.mark.parametrize("method", ["attentive", "statistics", "linear"])
def test_the_model_computes_what_was_trained(capsys, checkpoint, data, tmp_path, method):
    results = probe(capsys, checkpoint, data, tmp_path / "run", "PROBE.METHODS", f"[{method}]")
    predictor = videonet.Predictor.from_pretrained(results["model"])
    assert ("head.pooler.query_tokens" in predictor.model.state_dict()) == (method == "attentive")
    clip = torch.randint(256, (1, 3, 8, 32, 32), dtype=torch.uint8)
    outputs, vectors = predictor.run(clip)
    with torch.no_grad():
        assert relative_error(predictor.model.head(vectors), outputs) < 1e-5


def test_without_a_data_set_or_with_too_much(capsys, checkpoint):
    for words in ([], ["--train", "a"], ["--train", "a", "--val", "b", "--checkpoint", "c"]):
        with pytest.raises(SystemExit):
            main(words)
    assert "--train and --val go together" in capsys.readouterr().err
