"""Runs in processes of their own that are killed, each at its moment.

Started by a fork server: a fork of the tests' own process would inherit locks that its threads
hold.
"""

import logging
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from videonet.checkpoint.checkpoint_dir import saved_checkpoints
from videonet.config import load_config_text
from videonet.data.loading.loader import positions
from videonet.engine import compiling, train
from videonet.engine.batch_norm import synchronize
from videonet.engine.distributed import process
from videonet.engine.draws import StepShare
from videonet.engine.lock import only_run_in
from videonet.engine.multiview import run_multiview_test

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([__name__])


def start(target, cfg) -> multiprocessing.Process:
    """Begin ``target(cfg)`` in a process of its own."""
    child = CONTEXT.Process(target=_run_with_text, args=(target, cfg.dump()))
    child.start()
    return child


def exit_code(target, cfg) -> int:
    """Run ``target(cfg)`` in a process of its own to its end."""
    child = start(target, cfg)
    child.join()
    return child.exitcode


def in_processes(count: int, target, cfg) -> None:
    """Run ``target(cfg)`` in `count` processes of one group, as torchrun does."""
    in_group(count, _run_with_text, target, cfg.dump())


def in_group(count: int, target, *arguments) -> None:
    """Run ``target(*arguments)`` in `count` processes of one group."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    members = [
        CONTEXT.Process(target=_run_as_member, args=(rank, count, port, target, *arguments))
        for rank in range(count)
    ]
    for member in members:
        member.start()
    for member in members:
        member.join()
    assert [member.exitcode for member in members] == [0] * count


def _run_as_member(rank: int, count: int, port: int, target, *arguments) -> None:
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), **address}
    target(*arguments)


def _run_with_text(target, text: str) -> None:
    torch.set_num_threads(1)
    target(load_config_text(text))


def run(cfg) -> train.Trainer:
    """A training; what it logs goes to ``said.txt`` too."""
    folder = Path(cfg.OUTPUT_DIR)
    folder.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(folder / "said.txt", encoding="utf-8")
    logging.getLogger("videonet").addHandler(handler)
    try:
        return _run(cfg)
    finally:
        logging.getLogger("videonet").removeHandler(handler)
        handler.close()


def _run(cfg) -> train.Trainer:
    # Sharded weights go through torch's own products, whole ones through oneDNN's: without oneDNN
    # all runs round alike, and what is left is the order of sums over processes.
    with process("cpu") as this, torch.backends.mkldnn.flags(enabled=False):
        trainer = train.Trainer(cfg, this)
        trainer.run()
    return trainer


def normalise(folder: str) -> None:
    """Two and four of six rows through a synchronised batch norm, forward and backward."""
    torch.set_num_threads(1)
    x, gradient, state, affine = torch.load(Path(folder, "input.pt"))
    with process("cpu") as this:
        norm = torch.nn.BatchNorm3d(3, affine=affine, momentum=None, dtype=x.dtype)
        norm.load_state_dict(state)
        synchronize(norm)
        mine = slice(0, 2) if this.rank == 0 else slice(2, 6)
        part = x[mine].requires_grad_()
        y = norm(part)
        y.backward(gradient[mine])
        found = {"y": y.detach(), "x": part.grad, "state": norm.state_dict()}
        found["grads"] = {name: p.grad for name, p in norm.named_parameters()}
        torch.save(found, Path(folder, f"{this.rank}.pt"))


def find_partners(videos: int, folder: str) -> None:
    """The places of this process's clips, two per video, and of their partners."""
    with process("cpu") as this:
        share = StepShare(this, positions(videos, this.world_size), 2)
        torch.save((share.rows, share.partners(share.rows)), Path(folder, f"{this.rank}.pt"))


def test(cfg) -> None:
    with process("cpu") as this:
        run_multiview_test(cfg, this)


@contextmanager
def holding(folder: Path) -> Iterator[multiprocessing.Process]:
    """A process of its own that holds the lock of a run's folder."""
    here, there = CONTEXT.Pipe()
    other = CONTEXT.Process(target=_hold, args=(folder, there))
    other.start()
    there.close()
    try:
        assert here.recv() == "held"
        yield other
    finally:
        other.kill()
        other.join()


def _hold(folder: Path, pipe: Connection) -> None:
    with process("cpu") as this, only_run_in(folder, this):
        pipe.send("held")
        time.sleep(600)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed_between_steps(cfg) -> None:
    update = train.Trainer._train_step

    def step(trainer, *args):
        if trainer.position.step == 2:
            die()
        return update(trainer, *args)

    train.Trainer._train_step = step
    run(cfg)


def killed_while_writing(cfg) -> None:
    """In the middle of the fourth file, with half of it on the disk."""
    save, count = torch.save, []

    def write(content, file):
        count.append(1)
        save(content, file)
        if len(count) == 4:
            file.flush()
            os.truncate(file.name, file.tell() // 2)
            die()

    torch.save = write
    run(cfg)


def killed_before_old_ones_go(cfg) -> None:
    def remove(*args):
        if len(saved_checkpoints(cfg.OUTPUT_DIR)) == 5:
            die()

    train.remove_old = remove
    run(cfg)


def killed_in_validation(cfg) -> None:
    train.Trainer._validate = lambda *args: die()
    run(cfg)


def compiled(cfg) -> None:
    """A compiled training, without the wait for a C++ compiler."""
    compiling.BACKEND = "aot_eager"
    run(cfg)
