"""Records of a run, also of one that was cut short."""

import logging
import sys
from types import SimpleNamespace

import pytest

from videonet.engine.metric_logger import MetricLogger, read_log
from videonet.engine.plots import plot_runs
from videonet.errors import ConfigError


@pytest.fixture(autouse=True)
def pictures():
    """They are painted."""


def write(folder, **records):
    log = MetricLogger(folder)
    for kind, values in records.items():
        log.write(kind, **values)
    log.close()


def test_later_records_of_a_step_replace_earlier_ones(tmp_path):
    write(tmp_path, train={"step": 2, "loss": 3.0}, val={"step": 2, "top1": 50.0})
    write(tmp_path, train={"step": 2, "loss": 1.0})
    write(tmp_path, train={"step": 1, "loss": 4.0})
    records = read_log(tmp_path / "log.jsonl")
    assert [(r["kind"], r["step"], r.get("loss")) for r in records] == [
        *(("train", 1, 4.0), ("train", 2, 1.0), ("val", 2, None)),
    ]


def test_a_line_cut_short_costs_that_line_only(tmp_path, caplog):
    path = tmp_path / "log.jsonl"
    write(tmp_path, train={"step": 1, "loss": 3.0})
    path.write_text(path.read_text() + '{"kind": "train", "st')
    with caplog.at_level(logging.WARNING):
        assert [r["step"] for r in read_log(path)] == [1]
    assert f"{path}, line 2 is cut short" in caplog.text
    write(tmp_path, train={"step": 2, "loss": 2.0})
    with caplog.at_level(logging.WARNING):
        assert [r["step"] for r in read_log(path)] == [1, 2]


def test_numbers_that_are_not_finite_are_left_out(tmp_path):
    write(tmp_path, train={"step": 1, "loss": 1.0, "grad_norm": float("inf")})
    assert read_log(tmp_path / "log.jsonl") == [{"kind": "train", "step": 1, "loss": 1.0}]


def test_weights_and_biases_gets_the_same_records(tmp_path, monkeypatch):
    started, logged = [], []
    run = SimpleNamespace(log=lambda values, step: logged.append((step, values)), finish=list)
    init = lambda **options: started.append(options) or run  # noqa: E731
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    for step in (1, 2):
        log = MetricLogger(tmp_path, wandb="videos", config={"RNG_SEED": 3})
        log.write("train", step, loss=0.5)
        log.close()
    assert logged == [(1, {"train/loss": 0.5}), (2, {"train/loss": 0.5})]
    assert started[0] == started[1]
    assert started[0]["project"] == "videos" and started[0]["config"] == {"RNG_SEED": 3}


def test_weights_and_biases_that_are_missing_are_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match="wandb is not installed: pip install wandb"):
        MetricLogger(tmp_path, wandb="videos")


def test_runs_of_different_kinds_in_one_picture(tmp_path):
    train = {"kind": "train", "epoch": 1.0, "loss": 2.0, "clips_per_second": 5.0}
    runs = {
        "plain": [train, {"kind": "val", "epoch": 1, "loss": 2.0, "top1": 50.0, "top5": 90.0}],
        "averaged": [train, train, {"kind": "val_ema", "epoch": 1, "loss": 1.0, "mAP": 50.0}],
        "only just begun": [],
    }
    plot_runs(runs, tmp_path / "runs.png", smoothing=2)
    assert (tmp_path / "runs.png").stat().st_size > 0
