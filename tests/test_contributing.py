"""The example of a new model in CONTRIBUTING.md does all that a registered model does."""

import importlib
import json
import re
import sys
import textwrap
from inspect import signature
from pathlib import Path
from types import ModuleType

import pytest
import torch

from tests.models import families, test_models
from videonet import tasks
from videonet.commands import predict
from videonet.config import load_config
from videonet.data.datasets import registry as datasets
from videonet.data.loading.build import build_dataset
from videonet.data.preparing.synthetic import write_demo_dataset
from videonet.engine.distributed import process
from videonet.engine.metric_logger import read_log
from videonet.engine.multiview import run_multiview_test
from videonet.engine.setup import build_model
from videonet.engine.train import Trainer
from videonet.errors import ConfigError
from videonet.inference import Predictor
from videonet.models import registry
from videonet.tasks import build_task

ROOT = Path(__file__).parents[1]
NAME = "convmixer_xs"
CHECKS = [check for name, check in vars(test_models).items() if name.startswith("test_")]
CHECKS = [check for check in CHECKS if "name" in signature(check).parameters]


def pieces(title: str) -> list[str]:
    """The code of a section of the page."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = page.partition(f"## {title}\n")[2].partition("\n## ")[0]
    found = re.findall(r"^ +```(?:python|yaml)\n(.*?)^ +```", section, re.DOTALL | re.MULTILINE)
    return list(map(textwrap.dedent, found))


def blocks() -> dict[str, str]:
    """The pieces of the example of a model: model, line, config and test."""
    return dict(zip(["model", "line", "config", "test"], pieces("A new model"), strict=True))


@pytest.fixture
def example(monkeypatch):
    """The model of the page, registered as the page says."""
    module = ModuleType("convmixer")
    monkeypatch.setitem(sys.modules, "convmixer", module)
    exec(compile(blocks()["model"], "CONTRIBUTING.md", "exec"), module.__dict__)
    line = eval("{" + blocks()["line"] + "}", {"convmixer": module})
    monkeypatch.setattr(registry, "FAMILIES", registry.FAMILIES | line)
    entry = eval("{" + blocks()["test"] + "}", {"Family": families.Family})
    monkeypatch.setattr(families, "FAMILIES", families.FAMILIES | entry)
    return module


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_example_passes_what_all_models_pass(example, check):
    rest = [{"frames": n} for n in (2, 4, 8)] if "frames" in signature(check).parameters else [{}]
    for arguments in rest:
        check(name=NAME, **arguments)


def test_the_config_of_the_example_builds_it(example, tmp_path):
    (tmp_path / "MVITv2_XS.yaml").write_text((ROOT / "configs/DEMO/MVITv2_XS.yaml").read_text())
    (tmp_path / "ConvMixer_XS.yaml").write_text(blocks()["config"])
    cfg = load_config(tmp_path / "ConvMixer_XS.yaml")
    with process("cpu") as alone:
        model = build_model(cfg, alone, build_task(cfg))
    assert type(model) is example.ConvMixer
    assert model.num_classes == 8


def test_the_example_of_a_data_set_and_a_task_is_trained_and_tested(monkeypatch, tmp_path):
    form, form_line, task, task_line = pieces("A new data set, a new task")
    monkeypatch.syspath_prepend(tmp_path)  # workers import what makes the targets
    (tmp_path / "demo_boxes.py").write_text(form)
    (tmp_path / "place.py").write_text(task)
    names = {name: importlib.import_module(name) for name in ("demo_boxes", "place")}
    forms = datasets.DATASETS | eval("{" + form_line + "}", names)
    monkeypatch.setattr(datasets, "DATASETS", forms)
    monkeypatch.setitem(sys.modules, "videonet.tasks.place", names["place"])
    monkeypatch.setattr(tasks, "TASKS", tasks.TASKS | eval("{" + task_line + "}"))
    data, run = tmp_path / "data", tmp_path / "run"
    write_demo_dataset(data, train_clips=8, val_clips=8, size=32, num_frames=8, seed=0)
    overrides = [
        *("MODEL.TASK", "place", "DATA.PATH_TO_DATA_DIR", data, "OUTPUT_DIR", run),
        *("TRAIN.DATASET", "demo_boxes", "TEST.DATASET", "demo_boxes"),
        *("DATA.NUM_FRAMES", 4, "DATA.TRAIN_CROP_SIZE", 32, "DATA.TEST_CROP_SIZE", 32),
        *("DATA.TRAIN_JITTER_SCALES", "[32, 36]", "TRAIN.BATCH_SIZE", 8, "DEVICE", "cpu"),
        *("DATA_LOADER.NUM_WORKERS", 1, "SOLVER.MAX_EPOCH", 12, "SOLVER.WARMUP_EPOCHS", 0),
        *("TRAIN.EVAL_PERIOD", 6, "TRAIN.CHECKPOINT_PERIOD", 6, "LOG_PERIOD", 1),
    ]
    cfg = load_config("DEMO/MVITv2_XS.yaml", [str(value) for value in overrides])
    with process("cpu") as alone:
        Trainer(cfg, alone).run()
        results = run_multiview_test(cfg, alone)
    records = read_log(run / "log.jsonl")
    losses = [record["loss"] for record in records if record["kind"] == "train"]
    assert len(losses) == 12 and losses[-1] < 0.5 * losses[0]
    assert [r["error"] for r in records if r["kind"] == "val"][-1] == pytest.approx(
        results["error"], abs=0.2 * results["error"]
    )
    assert results["videos"] == 8 and not (run / "scores.csv").exists()
    assert json.loads((run / "results.json").read_text()) == results
    predict_the_place(run, results)


def predict_the_place(run, results):
    """Prediction finds what the test found, and needs no classes for it."""
    predictor = Predictor.from_checkpoint(run)
    dataset = build_dataset(predictor.cfg, "test", predictor.task.annotate)
    labels = [predictor.task.to_keep(dataset[0, index].targets) for index in range(len(dataset))]
    found = [predictor(path) for path in dataset.paths]
    scores = torch.stack([prediction.scores for prediction in found])
    error = (scores - torch.stack(labels)).abs().nanmean().item()
    assert error == pytest.approx(results["error"], abs=1e-3)
    sides = ["left", "top", "right", "bottom"]
    assert found[0].top == list(zip(sides, found[0].scores.tolist(), strict=True))
    output, pictures = run / "found.jsonl", run / "pictures"
    options = ["--stride", "0.1", "--window", "0.2", "--quiet", "--output", str(output)]
    for kind in ("timeline", "picture", "explain"):
        options += [f"--{kind}", str(pictures / f"{kind}.png")]
    assert predict.main([dataset.paths[0], "--checkpoint", str(run), *options]) == 0
    *windows, video = map(json.loads, output.read_text().splitlines())
    mean = sum(window["scores"][0] for window in windows) / len(windows)
    assert len(windows) > 1 and video["segments"] == []
    assert video["top"][0] == ["left", pytest.approx(mean, abs=1e-4)]
    assert len(list(pictures.iterdir())) == 3


def test_a_task_that_is_none_is_named():
    cfg = load_config("DEMO/MVITv2_XS.yaml", ["MODEL.TASK", "classificaton"])
    with pytest.raises(ConfigError, match="did you mean classification"):
        tasks.build_task(cfg)
