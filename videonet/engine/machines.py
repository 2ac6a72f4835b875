"""PySlowFast's options for several machines, as a command line of torchrun."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import torch
from fvcore.common.config import CfgNode

from videonet.config.command_line import TrainingArguments, machines_of
from videonet.errors import ConfigError


def torchrun_command(args: TrainingArguments, configs: Sequence[CfgNode]) -> list[str]:
    """The command that takes the place of this process where ``--num_shards`` is above 1.

    PySlowFast's ``TRAIN.BATCH_SIZE`` counts the videos of one machine, and with
    ``SOLVER.BASE_LR_SCALE_NUM_SHARDS`` the rates are of one machine too. Here both are of all
    machines, so the command overrides both.

    Args:
        args: of the command line.
        configs: that it names.

    Returns:
        The command and its arguments; empty for one machine.

    Raises:
        ConfigError: the options cannot be followed.
    """
    machines = machines_of(args.options)
    if machines is None:
        return []
    if "WORLD_SIZE" in os.environ:
        raise ConfigError(
            f"--num_shards {machines.count} starts the processes of this machine, but torchrun has "
            "done so already: leave one of them out"
        )
    if len(args.files) > 1:
        raise ConfigError(f"--num_shards {machines.count} takes one --cfg, not {len(args.files)}")
    (cfg,) = configs
    return [
        *(sys.executable, "-m", "torch.distributed.run"),
        *("--nnodes", str(machines.count), "--node-rank", str(machines.index)),
        *("--nproc-per-node", str(_processes(cfg))),
        *("--master-addr", machines.host, "--master-port", str(machines.port)),
        *("-m", "videonet", "run", "--cfg", args.files[0], *args.overrides),
        *_of_all_machines(cfg, machines.count),
    ]


def _processes(cfg: CfgNode) -> int:
    """The number of processes of one machine: one per GPU of ``NUM_GPUS``, or one on the CPU."""
    if not torch.cuda.is_available() or not cfg.DEVICE.startswith(("auto", "cuda")):
        return 1
    there = torch.cuda.device_count()
    if there < cfg.NUM_GPUS:
        raise ConfigError(f"NUM_GPUS is {cfg.NUM_GPUS}, but this machine has {there} GPUs")
    return max(cfg.NUM_GPUS, 1)


def _of_all_machines(cfg: CfgNode, count: int) -> list[str]:
    """Overrides that turn the batch size and rates of one machine into those of all."""
    found = ["TRAIN.BATCH_SIZE", str(cfg.TRAIN.BATCH_SIZE * count)]
    solver = cfg.SOLVER
    if solver.BASE_LR_SCALE_NUM_SHARDS and solver.BASE_LR_CLIPS == 0:
        for key in ("BASE_LR", "WARMUP_START_LR", "COSINE_END_LR"):
            found += [f"SOLVER.{key}", repr(solver[key] * count)]
    return found
