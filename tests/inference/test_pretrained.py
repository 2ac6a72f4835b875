"""Models by name, in a folder and on the hub: the same scores, and a card of what is in it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

import videonet
import videonet.inference.pretrained as pretrained
import videonet.models.weights as tables
from videonet.config import load_config_text
from videonet.data.preparing.synthetic import write_demo_dataset
from videonet.errors import CheckpointError, ConfigError
from videonet.models.weights import Weights

SCORES = """
import sys, torch, videonet
torch.set_num_threads(1)
video, *sources = sys.argv[1:]
for source in sources:
    predictor = videonet.Predictor.from_pretrained(source)
    print(predictor(video).scores.double().tolist(), predictor.class_names)
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_demo_dataset(folder, train_clips=8, val_clips=8, size=32, num_frames=8, seed=0)
    return folder


@pytest.fixture(scope="module")
def run(data, tmp_path_factory) -> Path:
    """The folder of a finished run, with a test."""
    from videonet.config import load_config
    from videonet.engine.distributed import process
    from videonet.engine.multiview import run_multiview_test
    from videonet.engine.train import Trainer

    folder = tmp_path_factory.mktemp("runs") / "a run"
    words = [
        *("DATA.PATH_TO_DATA_DIR", str(data), "OUTPUT_DIR", str(folder), "DEVICE", "cpu"),
        *("DATA.NUM_FRAMES", "4", "DATA.TRAIN_CROP_SIZE", "32", "DATA.TEST_CROP_SIZE", "32"),
        *("DATA.TRAIN_JITTER_SCALES", "[32, 36]", "TRAIN.BATCH_SIZE", "4"),
        *("DATA_LOADER.NUM_WORKERS", "0", "SOLVER.MAX_EPOCH", "1", "SOLVER.WARMUP_EPOCHS", "0"),
        *("TEST.CROP_RATIO", "0.8", "TEST.INTERPOLATION", "bicubic", "SOLVER.EMA_DECAY", "0.5"),
    ]
    cfg = load_config("DEMO/MVITv2_XS.yaml", words)
    with process("cpu") as this:
        Trainer(cfg, this).run()
        run_multiview_test(cfg, this)
    return folder


@pytest.fixture(scope="module")
def saved(run, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "toy"
    predictor = videonet.Predictor.from_pretrained(run)
    assert predictor.save_pretrained(folder, licence="MIT") == folder
    return folder


def scores(video: Path, *sources: Path) -> list[str]:
    """What another process says of a video, by the model of each source."""
    done = subprocess.run(
        [sys.executable, "-c", SCORES, str(video), *map(str, sources)],
        capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_saved_run_gives_the_same_scores_in_another_process(run, saved, data, tmp_path):
    video = next((data / "val").rglob("*.mp4"))
    moved = shutil.copytree(saved, tmp_path / "elsewhere")
    of_run, of_moved = scores(video, run, moved)
    assert of_run == of_moved


def test_the_folder_holds_weights_config_card_and_picture_and_no_place(run, saved, data):
    names = {path.name for path in saved.iterdir()}
    assert names == {"model.safetensors", "config.json", "README.md", "confusion.png"}
    text = (saved / "config.json").read_text() + (saved / "README.md").read_text()
    assert str(data) not in text and str(run) not in text and str(run.parent) not in text
    config = json.loads((saved / "config.json").read_text())
    assert config["format"] == "videonet" and len(config["class_names"]) == 8
    assert config["config"]["MODEL"]["NAME"] == "mvit_v2_xs"
    assert config["config"]["DATA"]["NUM_FRAMES"] == 4
    assert config["config"]["TEST"]["INTERPOLATION"] == "bicubic"


def test_whoever_may_read_the_config_may_read_the_weights(saved):
    modes = {(saved / name).stat().st_mode for name in ("config.json", "model.safetensors")}
    assert len(modes) == 1


def test_the_card_says_what_the_run_says(run, saved):
    card = (saved / "README.md").read_text()
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["library_name"] == "videonet" and front["license"] == "mit"
    assert front["pipeline_tag"] == "video-classification"
    results = json.loads((run / "results.json").read_text())
    assert f"| top-1 accuracy (%) | {results['top1']:.2f} |" in card
    assert "![Which class was taken for which](confusion.png)" in card
    assert "clips of 4 frames" in card and "MAX_EPOCH: 1" in card
    assert "## Licence\n\nMIT" in card


def test_a_saved_model_is_saved_again_and_loaded_as_any_checkpoint(saved, tmp_path):
    again = videonet.Predictor.from_pretrained(saved).save_pretrained(tmp_path / "again")
    one, two = (json.loads((f / "config.json").read_text()) for f in (saved, again))
    assert one == two
    model = videonet.create_model("mvit_v2_xs", weights=again, num_classes=8, num_frames=4)
    state = videonet.Predictor.from_checkpoint(saved).model.state_dict()
    assert torch.equal(model.state_dict()["head.projection.bias"], state["head.projection.bias"])


def test_names_in_a_card_are_text(run, tmp_path):
    predictor = videonet.Predictor.from_pretrained(run)
    predictor.class_names[0] = "![x](http://a)\n# b <script>"
    card = predictor.save_pretrained(tmp_path / "x").joinpath("README.md").read_text()
    assert "<script>" not in card.replace("\\<script", "") and "\n# b" not in card


def test_sending_to_the_hub_sends_the_folder(run, monkeypatch):
    hub = pytest.importorskip("huggingface_hub", reason="needs the extra hub")
    for variable in ("VIDEONET_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    sent = {}

    class Api:
        def __init__(self, token):
            sent["token"] = token

        def create_repo(self, repository, private, exist_ok):
            sent.update(repository=repository, private=private, exist_ok=exist_ok)

        def upload_folder(self, repo_id, folder_path, commit_message):
            sent["files"] = sorted(path.name for path in Path(folder_path).iterdir())
            sent["card"] = (Path(folder_path) / "README.md").read_text()
            return f"https://hub/{repo_id}"

    monkeypatch.setattr(hub, "HfApi", Api)
    predictor = videonet.Predictor.from_pretrained(run)
    place = predictor.push_to_hub("me/toy", private=True, token="secret")
    assert place == "https://hub/me/toy"
    assert (sent["repository"], sent["private"], sent["token"]) == ("me/toy", True, "secret")
    assert sent["files"] == ["README.md", "config.json", "confusion.png", "model.safetensors"]
    assert "# toy" in sent["card"] and "secret" not in sent["card"]
    with pytest.raises(ConfigError, match="'toy' is no repository of the hub: expected OWNER/NAME"):
        predictor.push_to_hub("toy")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(CheckpointError, match="HF_HUB_OFFLINE is set"):
        predictor.push_to_hub("me/toy")


@pytest.fixture
def entry(monkeypatch, tmp_path) -> Weights:
    """Published weights of videonet's own smallest model, whose file lies in the cache."""
    weights = Weights(
        "mvit_v2_xs.toys", {"num_frames": 4, "crop_size": 32}, num_classes=5, size=32,
        interpolation="bicubic", source="a test", classes="toys", short_side=40, stride=2,
        mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2), views=(2, 1), top1=71.5, licence="MIT",
        trained_on="toys",
    )  # fmt: skip
    monkeypatch.setenv("VIDEONET_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(tables, "all_weights", lambda: {weights.name: weights})
    monkeypatch.setattr(tables, "names_of", lambda classes: list("abcde"))
    torch.manual_seed(0)
    model = videonet.create_model("mvit_v2_xs", **weights.model_arguments())
    (tmp_path / "home" / "weights").mkdir(parents=True)
    torch.save(model.state_dict(), tmp_path / "home" / "weights" / "mvit_v2_xs.toys.pth")
    return weights


def test_a_name_brings_preprocessing_views_and_classes(entry, data, tmp_path):
    predictor = videonet.Predictor.from_pretrained("mvit_v2_xs.toys", overrides=("DEVICE", "cpu"))
    cfg = predictor.cfg
    assert (cfg.DATA.MEAN, cfg.DATA.STD) == ([0.5, 0.4, 0.3], [0.2, 0.2, 0.2])
    assert (cfg.DATA.NUM_FRAMES, cfg.DATA.SAMPLING_RATE, cfg.DATA.TARGET_FPS) == (4, 2, 0)
    assert (cfg.TEST.CROP_RATIO, cfg.TEST.INTERPOLATION) == (0.8, "bicubic")
    assert cfg.TEST.NUM_ENSEMBLE_VIEWS == 2 and predictor.class_names == list("abcde")
    found = predictor(next((data / "val").rglob("*.mp4")))
    assert len(found.clip_scores) == 2 and found.scores.sum() == pytest.approx(1, abs=1e-5)
    card = predictor.save_pretrained(tmp_path / "x").joinpath("README.md").read_text()
    assert "Published: 71.5 % top-1" in card and "Trained on toys." in card
    assert yaml.safe_load(card.split("---\n")[1])["license"] == "mit"


def test_weights_without_a_classifier_predict_nothing(entry, monkeypatch):
    bare = replace(entry, num_classes=0)
    monkeypatch.setattr(tables, "all_weights", lambda: {bare.name: bare})
    with pytest.raises(ConfigError, match=r"without a classifier: create_model\('mvit_v2_xs', wei"):
        videonet.Predictor.from_pretrained("mvit_v2_xs.toys")


def test_a_wrong_name_is_told(entry):
    with pytest.raises(ConfigError, match="mvit_v2_xs has no weights 'toy', only toys"):
        videonet.Predictor.from_pretrained("mvit_v2_xs.toy")
    with pytest.raises(CheckpointError, match="checkpoint runs/nothing does not exist"):
        videonet.Predictor.from_pretrained("runs/nothing")


@pytest.mark.parametrize("name", videonet.list_weights())
def test_every_entry_gives_a_configuration(name):
    weights = videonet.get_weights(name)
    cfg = load_config_text(yaml.safe_dump(pretrained.config_of(weights)))
    side = round(cfg.DATA.TEST_CROP_SIZE / cfg.TEST.CROP_RATIO)
    assert side == (weights.short_side or weights.size)
    _, arguments = videonet.config.model_arguments(cfg)
    wanted = weights.model_arguments(num_classes=weights.num_classes or 400)
    assert {key: arguments[key] for key in wanted} == wanted
