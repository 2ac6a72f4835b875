"""Batch norms of a model that trains on several processes, and precise statistics."""

import logging
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.engine import subprocess_helpers
from videonet.checkpoint import load_trained, read_checkpoint
from videonet.checkpoint.checkpoint_dir import saved_checkpoints
from videonet.checkpoint.contents import evaluation_weights
from videonet.data import build_loader
from videonet.engine.batch_norm import SyncBatchNorm, precise_statistics
from videonet.engine.distributed import Process, process
from videonet.engine.evaluate import evaluate
from videonet.engine.metric_logger import read_log
from videonet.engine.setup import build_model
from videonet.tasks import build_task

CPU = Process(rank=0, world_size=1, device=torch.device("cpu"))
# hrnet and cvt have batch norms; everything that draws random numbers is on.
RUN = (
    *("TRAIN.BATCH_SIZE", 8, "SOLVER.MAX_EPOCH", 2),
    *("MODEL.DROPPATH_RATE", 0.2, "MODEL.DROPOUT_RATE", 0.5, "MIXUP.ENABLE", True),
    *("SOLVER.EMA_DECAY", 0.5, "TEST.BATCH_SIZE", 2),
)
HRNET = (  # of both kinds of blocks, with a branch of another resolution
    *("MODEL.NAME", "hrnet_xs"),
    "MODEL.ARGUMENTS",
    "{stages: [[1, bottleneck, [1], [8]], [1, basic, [1, 1], [8, 12]]], stem_width: 8,"
    " head_channels: [4, 6], final_channels: 16}",
)
CVT = ("MODEL.NAME", "cvt_xs")


def losses(cfg, kind):
    found = read_log(Path(cfg.OUTPUT_DIR) / "log.jsonl")
    return torch.tensor([r["loss"] for r in found if r["kind"] == kind], dtype=torch.float64)


def loss_of_checkpoint(cfg, *, averaged: bool) -> float:
    with process("cpu") as this:
        model = build_model(cfg, this, build_task(cfg))
        content = read_checkpoint(saved_checkpoints(cfg.OUTPUT_DIR)[-1])
        load_trained(model, evaluation_weights(content, averaged=averaged), origin="the run")
        loader = build_loader(cfg, "val")
        found = evaluate(
            model, loader, this, build_task(cfg), mean=cfg.DATA.MEAN, std=cfg.DATA.STD, max_clips=2
        )
    return found.loss()


def assert_validation_is_the_checkpoints(cfg) -> None:
    assert loss_of_checkpoint(cfg, averaged=False) == pytest.approx(
        losses(cfg, "val")[-1].item(), abs=1e-5
    )
    assert loss_of_checkpoint(cfg, averaged=True) == pytest.approx(
        losses(cfg, "val_ema")[-1].item(), abs=1e-5
    )


@pytest.mark.parametrize(
    "network",
    [pytest.param(HRNET, id="hrnet"), pytest.param(CVT, id="cvt", marks=pytest.mark.slow)],
)
@pytest.mark.parametrize(
    ("processes", "options"),
    [
        (2, ()),
        pytest.param(4, (), marks=pytest.mark.slow),
        (2, ("BN.USE_PRECISE_STATS", True, "BN.NUM_BATCHES_PRECISE", 2)),
        pytest.param(2, ("TRAIN.PARALLEL", "fsdp"), marks=pytest.mark.slow),
        pytest.param(2, ("MODEL.ACT_CHECKPOINT", True), marks=pytest.mark.slow),
    ],
    ids=["two", "four", "precise", "fsdp", "recomputed"],
)
def test_processes_with_batch_norms_train_as_one_does(network, processes, options, tiny, tmp_path):
    model = (*RUN, *network)
    precise = options if "BN.USE_PRECISE_STATS" in options else ()
    alone = tiny(*model, *precise, "OUTPUT_DIR", tmp_path / "alone")
    subprocess_helpers.run(alone)
    cfg = tiny(*model, *options, "OUTPUT_DIR", tmp_path / "more")
    subprocess_helpers.in_processes(processes, subprocess_helpers.run, cfg)
    for kind in ("train", "val", "val_ema"):
        wanted = losses(alone, kind)
        assert len(wanted) > 1 and wanted[0] != wanted[-1]
        torch.testing.assert_close(losses(cfg, kind), wanted, rtol=0, atol=1e-5)
    for run in (alone, cfg):
        assert_validation_is_the_checkpoints(run)


def test_without_synchronisation_the_checkpoint_holds_the_mean_of_all(tiny, tmp_path):
    cfg = tiny(*RUN, *HRNET, "BN.SYNC", False)
    subprocess_helpers.in_processes(2, subprocess_helpers.run, cfg)
    assert_validation_is_the_checkpoints(cfg)
    assert "batch norms see 4 of the 8 clips of a step" in (tmp_path / "run/said.txt").read_text()


def test_accumulation_says_what_batch_norms_see(tiny, caplog):
    options = (*RUN, "SOLVER.MAX_EPOCH", 1, "TRAIN.EVAL_PERIOD", 0)
    with caplog.at_level(logging.WARNING, logger="videonet"):
        subprocess_helpers.run(tiny(*options, *HRNET, "TRAIN.GRAD_ACCUM_STEPS", 4))
    assert (
        "batch norms see 2 of the 8 clips of a step at a time (TRAIN.GRAD_ACCUM_STEPS 4"
        in caplog.text
    )


def test_a_model_without_batch_norms_says_nothing(tiny, caplog):
    with caplog.at_level(logging.WARNING, logger="videonet"):
        subprocess_helpers.run(
            tiny("SOLVER.MAX_EPOCH", 1, "TRAIN.EVAL_PERIOD", 0, "TRAIN.GRAD_ACCUM_STEPS", 5)
        )
    assert "batch norm" not in caplog.text


@pytest.mark.parametrize("shape", [(6, 3), (6, 3, 5), (6, 3, 5, 4), (6, 3, 2, 5, 4)])
@pytest.mark.parametrize("affine", [True, False])
def test_parts_of_uneven_size_are_normalised_as_the_whole(shape, affine, tmp_path):
    """Outputs, gradients and running statistics of two processes, against torch's batch norm."""
    torch.manual_seed(0)
    x, gradient = torch.randn(2, *shape, dtype=torch.float64)
    x = x * 3 + 100
    norm = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}[len(shape)]
    norm = norm(3, affine=affine, momentum=None, dtype=torch.float64)
    if affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    torch.save((x, gradient, norm.state_dict(), affine), tmp_path / "input.pt")
    subprocess_helpers.in_group(2, subprocess_helpers.normalise, str(tmp_path))
    x.requires_grad_()
    y = norm(x)
    y.backward(gradient)
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    torch.testing.assert_close(torch.cat([part["y"] for part in found]), y.detach())
    torch.testing.assert_close(torch.cat([part["x"] for part in found]), x.grad)
    for key, value in norm.state_dict().items():
        torch.testing.assert_close(found[0]["state"][key], value)
        assert torch.equal(found[0]["state"][key], found[1]["state"][key])
    for key, value in norm.named_parameters():
        torch.testing.assert_close(found[0]["grads"][key] + found[1]["grads"][key], value.grad)


def test_in_evaluation_it_is_an_ordinary_batch_norm():
    norm = nn.BatchNorm3d(3).eval()
    nn.init.normal_(norm.running_mean)
    x = torch.randn(2, 3, 2, 4, 4)
    expected = norm(x)
    norm.__class__ = SyncBatchNorm
    torch.testing.assert_close(norm(x), expected)


def test_precise_statistics_are_those_of_all_clips():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4))
    frozen = nn.BatchNorm2d(4).eval()
    model.append(frozen)
    batches = [torch.randn(size, 3, 8, 8) * size for size in (2, 5, 3)]
    precise_statistics(model, batches, model, CPU)
    first = torch.cat([model[0](clips) for clips in batches]).transpose(0, 1).flatten(1)
    torch.testing.assert_close(model[1].running_mean, first.mean(1))
    torch.testing.assert_close(model[1].running_var, first.var(1, correction=0))
    assert model[1].num_batches_tracked == 0 and model[1].momentum == 0.1
    assert torch.equal(frozen.running_mean, torch.zeros(4))
