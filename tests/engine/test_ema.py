"""The average of the weights against its formula, and where it is used."""

import pytest
import torch

from videonet.checkpoint import read_checkpoint
from videonet.checkpoint.checkpoint_dir import saved_checkpoints
from videonet.checkpoint.contents import evaluation_weights
from videonet.engine.distributed import process
from videonet.engine.ema import WeightAverage
from videonet.engine.metric_logger import read_log
from videonet.engine.multiview import run_multiview_test
from videonet.engine.train import Trainer
from videonet.inference import Predictor


def train(cfg):
    with process("cpu") as this:
        trainer = Trainer(cfg, this)
        trainer.run()
    return trainer


def test_average_by_hand():
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(model.weight, 1.0)
    average = WeightAverage(model, 0.5)
    torch.nn.init.constant_(model.weight, 3.0)
    average.update(model, 1)  # (1 + 1) / (10 + 1) stays: 2/11 + 3 * 9/11
    assert average.state["weight"].item() == pytest.approx(29 / 11)
    average.update(model, 1000)  # the decay itself: half stays
    assert average.state["weight"].item() == pytest.approx((29 / 11 + 3) / 2)


def test_counters_are_copied_and_statistics_averaged():
    model = torch.nn.BatchNorm1d(1)
    average = WeightAverage(model, 0.9)
    model(torch.randn(4, 1))
    average.update(model, 10**6)
    assert average.state["num_batches_tracked"] == 1
    expected = 0.1 * model.running_mean
    torch.testing.assert_close(average.state["running_mean"], expected)


def test_a_model_gets_its_own_weights_back():
    model = torch.nn.Linear(2, 2)
    average = WeightAverage(model, 0.9)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    average.state = {name: torch.zeros_like(weight) for name, weight in average.state.items()}
    with pytest.raises(KeyboardInterrupt), average.applied_to(model):
        assert not model.weight.any()
        raise KeyboardInterrupt
    assert all(torch.equal(weight, before[n]) for n, weight in model.state_dict().items())


def test_averages_are_validated_saved_resumed_and_tested(tiny, tmp_path):
    whole = train(tiny("SOLVER.EMA_DECAY", 0.9, "OUTPUT_DIR", tmp_path / "whole"))
    parts = {"OUTPUT_DIR": tmp_path / "parts", "SOLVER.EMA_DECAY": 0.9}
    options = [item for pair in parts.items() for item in pair]
    train(tiny(*options))
    saved_checkpoints(tmp_path / "parts")[-1].unlink()
    again = train(tiny(*options))
    own = whole.model.state_dict()
    for name, mean in whole.state.average.state.items():
        assert torch.equal(mean, again.state.average.state[name]), name
    assert not torch.equal(whole.state.average.state["cls_token"], own["cls_token"])

    records = read_log(tmp_path / "whole" / "log.jsonl")
    assert [r["epoch"] for r in records if r["kind"] == "val_ema"] == [1, 2, 3]
    path = saved_checkpoints(tmp_path / "whole")[-1]
    content = read_checkpoint(path)
    for averaged, expected in ((True, whole.state.average.state), (False, own)):
        chosen = evaluation_weights(content, averaged=averaged)["model_state"]
        assert all(torch.equal(chosen[name], expected[name]) for name in own)
        predictor = Predictor.from_checkpoint(path, overrides=["TEST.EMA", str(averaged)])
        loaded = predictor.model.state_dict()
        assert all(torch.equal(loaded[name], expected[name]) for name in own)


def test_the_test_takes_the_averages(tiny, tmp_path):
    cfg = tiny("SOLVER.EMA_DECAY", 0.5, "SOLVER.MAX_EPOCH", 2, "TEST.NUM_ENSEMBLE_VIEWS", 1)
    train(cfg)
    with process("cpu") as this:
        run_multiview_test(cfg, this)
    averaged = (tmp_path / "run" / "predictions.csv").read_text()
    plain = cfg.clone()
    plain.defrost()
    plain.TEST.EMA = False
    with process("cpu") as this:
        run_multiview_test(plain, this)
    assert averaged != (tmp_path / "run" / "predictions.csv").read_text()
