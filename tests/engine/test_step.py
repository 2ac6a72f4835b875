"""One step in one or several parts, and in half precision."""

import pytest
import torch

from videonet.devices import autocast_dtype
from videonet.engine.distributed import Process, process
from videonet.engine.metric_logger import read_log
from videonet.engine.step import TrainingStep, gradient_scaler
from videonet.engine.train import Trainer
from videonet.tasks.classification import LOSSES, classification_loss

CPU = Process(rank=0, world_size=1, device=torch.device("cpu"))


def losses(cfg):
    with process("cpu") as this:
        Trainer(cfg, this).run()
    records = read_log(f"{cfg.OUTPUT_DIR}/log.jsonl")
    return torch.tensor([r["loss"] for r in records if r["kind"] == "train"])


def test_a_batch_in_parts_is_the_same_batch(tiny, tmp_path):
    options = ("TRAIN.BATCH_SIZE", 8, "SOLVER.MAX_EPOCH", 10, "TRAIN.EVAL_PERIOD", 0)
    whole = losses(tiny(*options, "OUTPUT_DIR", tmp_path / "whole"))
    parts = losses(tiny(*options, "TRAIN.GRAD_ACCUM_STEPS", 2, "OUTPUT_DIR", tmp_path / "parts"))
    assert len(whole) == 20 and whole[0] != whole[-1]
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("parts", [1, 2, 3, 7, 9])
def test_uneven_parts_give_the_gradient_of_the_whole(parts):
    torch.manual_seed(0)
    model = torch.nn.Linear(5, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    clips, labels = torch.randn(7, 5), torch.randint(3, (7,))
    loss = torch.nn.functional.cross_entropy(model(clips), labels)
    (expected,) = torch.autograd.grad(loss, model.weight)
    step = TrainingStep(
        model,
        optimizer,
        gradient_scaler(None, CPU.device),
        CPU,
        clips_per_step=7,
        loss=classification_loss,
        parts=parts,
    )
    torch.testing.assert_close(step.backward(clips, labels), loss.detach())
    torch.testing.assert_close(model.weight.grad, expected)


@pytest.mark.parametrize("parts", [1, 3])
def test_losses_with_names_are_added_and_kept(parts):
    model = torch.nn.Linear(5, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    clips, labels = torch.randn(7, 5), torch.randint(3, (7,))

    def losses(outputs, labels):
        return {"class": classification_loss(outputs, labels), "size": outputs.square().mean()}

    expected = losses(model(clips), labels)
    (gradient,) = torch.autograd.grad(sum(expected.values()), model.weight)
    step = TrainingStep(
        *(model, optimizer, gradient_scaler(None, CPU.device), CPU),
        clips_per_step=7,
        loss=losses,
        parts=parts,
    )
    torch.testing.assert_close(step.backward(clips, labels), sum(expected.values()).detach())
    torch.testing.assert_close(model.weight.grad, gradient)
    assert step.losses.keys() == expected.keys()
    for name, value in step.losses.items():
        torch.testing.assert_close(value, expected[name].detach())


def test_clipping_scales_to_the_norm_and_reports_the_one_before():
    model = torch.nn.Linear(1, 2, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    step = TrainingStep(
        *(model, optimizer, gradient_scaler(None, CPU.device), CPU),
        clips_per_step=1,
        loss=classification_loss,
        clip_norm=1.0,
    )
    model.weight.grad = torch.tensor([[3.0], [4.0]])
    assert step.clip_gradients().item() == pytest.approx(5.0)
    torch.testing.assert_close(model.weight.grad, torch.tensor([[0.6], [0.8]]))
    step.clip_norm, step.clip_value = None, 0.7
    assert step.clip_gradients().item() == pytest.approx(1.0)
    torch.testing.assert_close(model.weight.grad, torch.tensor([[0.6], [0.7]]))


def test_an_overflow_in_fp16_leaves_out_the_step():
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = gradient_scaler(torch.float16, CPU.device)
    step = TrainingStep(model, optimizer, scaler, CPU, clips_per_step=1, loss=classification_loss)
    before = model.weight.detach().clone()
    step.backward(torch.ones(1, 2), torch.tensor([0]))
    model.weight.grad[0, 0] = float("inf")
    step.clip_gradients()
    step.update()
    assert torch.equal(model.weight, before)
    assert scaler.get_scale() == 2.0**15
    step.backward(torch.ones(1, 2), torch.tensor([0]))
    step.clip_gradients()
    step.update()
    assert not torch.equal(model.weight, before)


def test_precisions(tiny):
    cpu = torch.device("cpu")
    assert autocast_dtype(tiny(), cpu) is None
    assert autocast_dtype(tiny("TRAIN.MIXED_PRECISION", True), cpu) is None
    half = ("TRAIN.MIXED_PRECISION", True, "TRAIN.HALF_PRECISION")
    assert autocast_dtype(tiny(*half, "bf16"), cpu) is torch.bfloat16
    assert autocast_dtype(tiny(*half, "fp16"), cpu) is torch.float16


@pytest.mark.parametrize(("name", "tolerance"), [("bf16", 0.02), ("fp16", 0.1)])
def test_half_precision_trains_close_to_full(name, tolerance, tiny, tmp_path):
    options = ("SOLVER.MAX_EPOCH", 2, "TRAIN.EVAL_PERIOD", 0)
    full = losses(tiny(*options, "OUTPUT_DIR", tmp_path / "full"))
    options = (*options, "TRAIN.MIXED_PRECISION", True, "TRAIN.HALF_PRECISION", name)
    half = losses(tiny(*options, "OUTPUT_DIR", tmp_path / name))
    assert not torch.equal(half, full)
    # With fp16 the scaler leaves out a step while it looks for its scale.
    torch.testing.assert_close(half, full, rtol=tolerance, atol=0)


def test_binary_cross_entropy_by_hand():
    logits = torch.tensor([[0.0, 2.0]])
    loss = LOSSES["bce_logit"](logits, torch.tensor([[1.0, 0.0]]))
    expected = (torch.tensor(2.0).log() + (1 + torch.tensor(2.0).exp()).log()) / 2
    torch.testing.assert_close(loss, expected)
