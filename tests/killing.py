"""Whole jobs in process groups of their own, killed at random moments and begun again.

A job is forked from a server that has the package imported, so that a life costs what the job
costs. Its workers are forked from it for the same reason; what they do when one of them or their
parent is killed is the same as with the fork server that the package uses.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from tests.engine import subprocess_helpers
from videonet.config import load_config_text
from videonet.data.loading import workers
from videonet.data.preparing import verify
from videonet.data.preparing.synthetic import write_demo_dataset
from videonet.engine.parent import end_with_torchrun
from videonet.errors import run_tool

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([__name__])
LONGEST = 120.0  # seconds of a life that nobody ends

VICTIMS = ("parent", "worker", "group")


@dataclass(frozen=True)
class Job:
    """What is run, with its arguments; both have to be picklable."""

    target: Callable[..., None]
    arguments: tuple
    log: str = os.devnull  # what the job says goes there

    def start(self) -> multiprocessing.Process:
        process = CONTEXT.Process(target=_live, args=(self.target, self.arguments, self.log))
        process.start()
        return process

    def finish(self) -> float:
        """Run it to its end, and return how many seconds that took.

        The server's own start, which imports the package, is not part of them.
        """
        server = CONTEXT.Process(target=os.getpid)
        server.start()
        server.join()
        begun, process = time.monotonic(), self.start()
        process.join(LONGEST)
        assert process.exitcode == 0, f"exit code {process.exitcode}"
        return time.monotonic() - begun


def kill_at_random(
    job: Job, seconds: float, kills: int, rng: random.Random, check: Callable[[], None]
) -> Counter:
    """Kill a job, begin it again, and so on; at every end `check`, which also clears the place.

    Returns:
        How often the parent, a worker or the whole group was killed, and how often it ended.
    """
    done: Counter = Counter()
    while sum(done[victim] for victim in VICTIMS) < kills:
        process = job.start()
        process.join(rng.uniform(0, 1.2 * seconds))
        victim = _kill(process, rng) if process.exitcode is None else "nobody"
        done[victim] += 1
        process.join(LONGEST)
        assert process.exitcode is not None, f"the job hangs after a kill of {victim}"
        _wait_for_the_others(process.pid)
        # Where a worker was killed, a job may end in one sentence.
        allowed = {"nobody": (0,), "worker": (0, 1)}.get(victim, (0, -signal.SIGKILL))
        assert process.exitcode in allowed, (
            f"exit code {process.exitcode} after {victim}: {job.log}"
        )
        if process.exitcode == 0:
            done["ends"] += 1
            check()
    job.finish()
    done["ends"] += 1
    check()
    return done


def _kill(process: multiprocessing.Process, rng: random.Random) -> str:
    """Returns who was killed: the parent where there is no worker, or no group so far."""
    victim, below = rng.choice(VICTIMS), _children(process.pid)
    with contextlib.suppress(ProcessLookupError):
        if victim == "worker" and below:
            os.kill(rng.choice(below), signal.SIGKILL)
            return victim
        if victim == "group" and os.getpgid(process.pid) == process.pid:
            os.killpg(process.pid, signal.SIGKILL)
            return victim
    process.kill()
    return "parent"


def _wait_for_the_others(group: int) -> None:
    """The processes that a killed job had started end with it."""
    deadline = time.monotonic() + LONGEST
    while _members(group):
        assert time.monotonic() < deadline, "processes of a job outlive it"
        time.sleep(0.05)


def _members(group: int) -> list[int]:
    """The processes of a group that run, zombies apart."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, of_group = status.read_text().rpartition(")")[2].split()[:3]
            if int(of_group) == group and state != "Z":
                found.append(int(status.parent.name))
    return found


def _children(pid: int) -> list[int]:
    try:
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _live(target: Callable[..., None], arguments: tuple, log: str) -> None:
    os.setsid()
    torch.set_num_threads(1)
    with open(log, "a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    workers._clean_context = lambda: multiprocessing.get_context("fork")
    verify.SAVE_EVERY, verify.SAVE_SHARE = 0.0, 1
    target(*arguments)


def run_main(module: str, *arguments: str) -> None:
    """The ``main`` of a tool."""
    main = __import__(f"tools.{module}", fromlist=["main"]).main
    sys.argv = [module, *map(str, arguments)]
    run_tool(main)


def train(text: str) -> None:
    subprocess_helpers.run(load_config_text(text))


def train_as_rank(text: str) -> None:
    with end_with_torchrun():
        train(text)


def train_in_two(text: str, port: int) -> None:
    """Two ranks; where one dies the other one is ended, as torchrun does."""
    os.environ["TORCHELASTIC_RUN_ID"] = "kills"  # they end with this process, as with torchrun
    context = multiprocessing.get_context("fork")
    ranks = [
        context.Process(
            target=subprocess_helpers._run_as_member, args=(rank, 2, port, train_as_rank, text)
        )
        for rank in range(2)
    ]
    for rank in ranks:
        rank.start()
    while any(rank.is_alive() for rank in ranks):
        time.sleep(0.01)
        if any(rank.exitcode for rank in ranks):
            for rank in ranks:
                rank.kill()
    sys.exit(any(rank.exitcode for rank in ranks))


def write_demo(folder: str) -> None:
    sizes = {"train_clips": 60, "val_clips": 20, "size": 48, "num_frames": 12}

    def main() -> None:
        write_demo_dataset(folder, processes=2, **sizes)

    run_tool(main)


def verify_list(folder: str, data: str) -> None:
    """`verify` of a copy of the list of training videos, which lie in another folder."""
    Path(folder).mkdir(exist_ok=True)
    shutil.copy(Path(data, "train.csv"), folder)
    shutil.copy(Path(data, "classes.txt"), folder)
    options = ("--cfg", "DEMO/MVITv2_XS.yaml", "--split", "train", "--workers", "2")
    where = ("DATA.PATH_TO_DATA_DIR", folder, "DATA.PATH_PREFIX", data)
    run_main("data", "verify", *options, *where)
