"""Training with a compiled forward pass: the same run, the same checkpoints."""

import pytest
import torch
from torch import nn

from tests.engine import subprocess_helpers
from videonet.checkpoint import read_checkpoint
from videonet.checkpoint.checkpoint_dir import saved_checkpoints
from videonet.engine import compiling
from videonet.engine.compiling import training_forward
from videonet.engine.distributed import Process, process
from videonet.engine.metric_logger import read_log
from videonet.engine.train import Trainer
from videonet.errors import ConfigError
from videonet.ops.kernels import cpu

OPTIONS = (
    *("MODEL.NAME", "vit_xs", "TRAIN.BATCH_SIZE", 10, "SOLVER.EMA_DECAY", 0.9),
    *("MODEL.DROPPATH_RATE", 0.3, "MODEL.DROPOUT_RATE", 0.3, "TRAIN.EVAL_PERIOD", 2),
    *("SOLVER.MAX_EPOCH", 2),
)


def run(cfg) -> list[dict]:
    with process("cpu") as this:
        Trainer(cfg, this).run()
    return [
        {key: record.get(key) for key in ("kind", "step", "loss", "grad_norm")}
        for record in read_log(f"{cfg.OUTPUT_DIR}/log.jsonl")
    ]


def state(folder) -> dict:
    content = read_checkpoint(saved_checkpoints(folder)[-1])
    return {**content["model_state"], **{f"ema {k}": v for k, v in content["ema_state"].items()}}


def assert_same_tensors(found, expected) -> None:
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_a_compiled_run_has_the_numbers_and_names_of_another(tiny, tmp_path, monkeypatch):
    """Traced operators run as they are here, so that all numbers are the same to the last bit.

    But for products by oneDNN, which round in another way than torch's own and are never traced.
    """
    monkeypatch.setattr(compiling, "BACKEND", "eager")
    monkeypatch.setattr(cpu, "_usable", lambda *_: False)
    expected = run(tiny(*OPTIONS, "OUTPUT_DIR", tmp_path / "plain"))
    options = (*OPTIONS, "TRAIN.COMPILE", True, "OUTPUT_DIR", tmp_path / "compiled")
    torch._dynamo.utils.counters.clear()
    assert run(tiny(*options)) == expected
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 1, "nothing was compiled"
    assert_same_tensors(state(tmp_path / "compiled"), state(tmp_path / "plain"))
    saved_checkpoints(tmp_path / "compiled")[-1].unlink()
    assert run(tiny(*options)) == expected, "a resumed run is another one"
    assert_same_tensors(state(tmp_path / "compiled"), state(tmp_path / "plain"))


def config(tiny, *overrides):
    return tiny("TRAIN.COMPILE", True, *overrides)


def test_what_cannot_be_compiled_is_one_sentence(tiny, monkeypatch):
    alone, two = (Process(0, count, torch.device("cpu")) for count in (1, 2))
    norms, plain = nn.Sequential(nn.BatchNorm3d(2)), nn.Sequential(nn.Linear(2, 2))
    again = ("MODEL.ACT_CHECKPOINT", True)
    with pytest.raises(ConfigError, match=r"TRAIN.COMPILE does not work .* batch norms"):
        training_forward(norms, norms, config(tiny, *again), alone)
    with pytest.raises(ConfigError, match=r"MODEL.COMPILE does not work .* several processes"):
        training_forward(plain, plain, tiny("MODEL.COMPILE", True, *again), two)
    monkeypatch.setattr(compiling, "is_sharded", lambda model: True)
    with pytest.raises(ConfigError, match="TRAIN.COMPILE does not work with TRAIN.PARALLEL fsdp"):
        training_forward(plain, plain, config(tiny), two)
    assert training_forward(plain, plain, tiny(), two) is plain


@pytest.mark.slow
def test_recomputed_activations_in_a_compiled_run(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(compiling, "BACKEND", "aot_eager")
    expected = run(tiny(*OPTIONS, "OUTPUT_DIR", tmp_path / "plain"))
    again = ("TRAIN.COMPILE", True, "MODEL.ACT_CHECKPOINT", True)
    found = run(tiny(*OPTIONS, *again, "OUTPUT_DIR", tmp_path / "again"))
    for record, wanted in zip(found, expected, strict=True):
        assert record["loss"] == pytest.approx(wanted["loss"], abs=1e-5)


@pytest.mark.slow
def test_inductor_trains_alike(tiny, tmp_path):
    # Inductor draws other numbers.
    without = ("MODEL.DROPPATH_RATE", 0.0, "MODEL.DROPOUT_RATE", 0.0)
    expected = run(tiny(*OPTIONS, *without, "OUTPUT_DIR", tmp_path / "plain"))
    options = (*OPTIONS, *without, "TRAIN.COMPILE", True)
    found = run(tiny(*options, "OUTPUT_DIR", tmp_path / "compiled"))
    for record, wanted in zip(found, expected, strict=True):
        assert record["loss"] == pytest.approx(wanted["loss"], abs=1e-3)


@pytest.mark.slow
def test_two_processes_compile(tiny, tmp_path):
    options = (*OPTIONS, "TRAIN.BATCH_SIZE", 8, "TRAIN.EVAL_PERIOD", 0)
    expected = run(tiny(*options, "OUTPUT_DIR", tmp_path / "alone"))
    cfg = tiny(*options, "TRAIN.COMPILE", True, "OUTPUT_DIR", tmp_path / "two")
    subprocess_helpers.in_processes(2, subprocess_helpers.compiled, cfg)
    found = read_log(tmp_path / "two" / "log.jsonl")
    for record, wanted in zip(found, expected, strict=True):
        assert record["loss"] == pytest.approx(wanted["loss"], abs=1e-5)
