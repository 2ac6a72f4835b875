"""A training step does not wait for the device, except where a log asks for its numbers."""

import math

import pytest
import torch
import torch.nn.functional as F

import videonet
from tests.engine.host_reads import HostReads
from tests.models.test_devices import SMALL
from videonet.checkpoint.checkpoint_dir import saved_checkpoints
from videonet.engine.distributed import Process, process
from videonet.engine.metric_logger import read_log
from videonet.engine.step_numbers import StepNumbers
from videonet.engine.train import Trainer
from videonet.errors import Interrupted, TrainingError

EVERYTHING = (  # that takes part in a step
    *("MIXUP.ENABLE", True, "AUG.NUM_SAMPLE", 2, "TRAIN.GRAD_ACCUM_STEPS", 2),
    *("SOLVER.EMA_DECAY", 0.9, "SOLVER.CLIP_GRAD_L2NORM", 0.5, "SOLVER.CLIP_GRAD_VAL", 0.1),
    *("MODEL.DROPOUT_RATE", 0.3, "MODEL.DROPPATH_RATE", 0.3, "SOLVER.MAX_EPOCH", 1),
)


def test_reads_are_counted():
    x = torch.ones(3)
    host = torch.empty(3)
    with HostReads() as reads:
        (x + 1).sum().item()
        reads.mark(x)
        y = (x * 2).sum()
        assert not reads.reads
        float(y)
        bool(y > 0)
        x[x > 0]
        host.copy_(x)
        assert host.sum().item() == 3
    assert len(reads.reads) == 3 and reads.sent == 1


def as_on_a_gpu(trainer: Trainer) -> list[int]:
    """Let the numbers of a step arrive one step later; returns the steps that were waited for."""
    trainer.numbers.lag, waited, arrived = 1, [], trainer.numbers.arrived

    def counted(*, everything=False):
        found = arrived(everything=everything)
        waited.extend(note.number for _, note in found if note.number == trainer.position.step + 1)
        return found

    trainer.numbers.arrived = counted
    return waited


def test_only_steps_that_are_logged_are_waited_for(tiny):
    """Nothing is read of what the device computes; one copy a step is begun."""
    with process("cpu") as this:
        trainer = Trainer(tiny(*EVERYTHING, "LOG_PERIOD", 3), this)
        waited = as_on_a_gpu(trainer)
        trainer.loader.set_position(0, 0)
        trainer.model.train()
        with HostReads() as reads:
            reads.mark(*trainer.model.state_dict().values(), *trainer.state.average.state.values())
            for batch in trainer.loader:
                reads.mark(batch.clips, *batch.targets.values())
                trainer._train_step(batch, 1e-3, (trainer.position.step + 1) % 3 == 0)
    assert trainer.position.step == 4
    assert not reads.reads, reads.reads[0]
    assert reads.sent == 4
    assert waited == [3]


@pytest.mark.parametrize("name", SMALL)
def test_no_model_reads_what_it_computes(name):
    model = videonet.create_model(name, num_classes=5, drop_path_rate=0.0).train()
    clip, labels = torch.randn(2, 3, 4, 48, 48), torch.arange(2)
    with HostReads() as reads:
        reads.mark(*model.state_dict().values(), clip, labels)
        F.cross_entropy(model(clip), labels).backward()
    assert not reads.reads, reads.reads[0]


def run(cfg, *, lag: int) -> list[dict]:
    with process("cpu") as this:
        trainer = Trainer(cfg, this)
        trainer.numbers.lag = lag
        trainer.run()
    return [
        {key: record.get(key) for key in ("step", "loss", "grad_norm", "top1")}
        for record in read_log(f"{cfg.OUTPUT_DIR}/log.jsonl")
    ]


def test_numbers_that_arrive_later_are_the_same(tiny, tmp_path):
    options = (*EVERYTHING, "LOG_PERIOD", 3)
    at_once = run(tiny(*options, "OUTPUT_DIR", tmp_path / "a"), lag=0)
    assert run(tiny(*options, "OUTPUT_DIR", tmp_path / "b"), lag=1) == at_once
    assert all(math.isfinite(record["loss"]) for record in at_once)


def test_a_step_that_is_not_finite_is_named_a_step_later_and_nothing_is_saved(tiny, tmp_path):
    options = ("LOG_PERIOD", 100, "TRAIN.CHECKPOINT_STEPS", 2, "TRAIN.EVAL_PERIOD", 0)
    with process("cpu") as this:
        trainer = Trainer(tiny(*options), this)
        trainer.numbers.lag, backward, losses = 1, trainer.train_step.backward, []

        def poisoned(*args):
            losses.append(backward(*args))
            return losses[-1] * (math.nan if len(losses) == 2 else 1)

        trainer.train_step.backward = poisoned
        with pytest.raises(TrainingError, match=r"the loss is nan in step 2 \(epoch 1,.*\.mp4"):
            trainer.run()
    assert len(losses) == 2, "the save behind step 2 asks for its numbers"
    assert saved_checkpoints(tmp_path / "run") == []


@pytest.mark.parametrize("at", [2, 4])
def test_a_signal_is_seen_a_step_later_or_at_the_end_of_the_epoch(at, tiny, tmp_path):
    with process("cpu") as this:
        trainer = Trainer(tiny("LOG_PERIOD", 100), this)
        trainer.numbers.lag, backward = 1, trainer.train_step.backward

        def signalled(*args):
            if trainer.position.step + 1 == at:
                trainer.stop._note(15, None)
            return backward(*args)

        trainer.train_step.backward = signalled
        with pytest.raises(Interrupted, match=f"SIGTERM after {min(at + 1, 4)} steps"):
            trainer.run()


def test_numbers_come_back_in_order_with_their_notes():
    numbers: StepNumbers[str] = StepNumbers(torch.device("cpu"))
    numbers.put(torch.tensor([1.0, 2.0]), "first")
    assert numbers.arrived() == [([1.0, 2.0], "first")]
    numbers.lag = 1
    given = torch.tensor([3.0])
    numbers.put(given, "second")
    given.zero_()  # what was put in is a copy
    assert numbers.arrived() == []
    numbers.put(torch.tensor([4.0]), "third")
    assert numbers.arrived() == [([3.0], "second")]
    assert numbers.arrived(everything=True) == [([4.0], "third")]
    assert numbers.arrived(everything=True) == []


@pytest.mark.cuda
@pytest.mark.parametrize("half", ["fp32", "bf16", "fp16"])
def test_steps_on_a_gpu_do_not_synchronise(half, tiny, device):
    if device.type != "cuda":
        pytest.skip("torch watches synchronisation on CUDA alone")
    options = (
        () if half == "fp32" else ("TRAIN.MIXED_PRECISION", True, "TRAIN.HALF_PRECISION", half)
    )
    this = Process(rank=0, world_size=1, device=torch.device("cuda", 0))
    trainer = Trainer(tiny(*EVERYTHING, *options, "DEVICE", "cuda"), this)
    trainer.model.train()
    trainer.loader.set_position(0, 0)
    batches = [batch.pin_memory() for batch in trainer.loader]
    try:
        for number, batch in enumerate(batches):
            # The first steps choose kernels and remember sizes.
            torch.cuda.set_sync_debug_mode("error" if number >= 2 else "default")
            trainer._train_step(batch, 1e-3, False)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    trainer._read_numbers(everything=True)
    assert math.isfinite(trainer.known.loss)
