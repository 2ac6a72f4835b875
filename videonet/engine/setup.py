"""Where a training begins: random weights, given ones, or the newest state of the same run."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import torch
from fvcore.common.config import CfgNode
from torch import nn

from videonet.checkpoint import load_checkpoint
from videonet.checkpoint.checkpoint_dir import newest_checkpoint
from videonet.config import model_arguments
from videonet.engine.distributed import Process
from videonet.engine.ema import WeightAverage
from videonet.engine.finetune import freeze
from videonet.engine.optim import build_optimizer
from videonet.engine.parallel import shard
from videonet.engine.precision import gradient_scaler
from videonet.engine.resume import newest_of_this_run, resume
from videonet.engine.state import TrainingState
from videonet.models import create_model
from videonet.tasks.task import Task

logger = logging.getLogger(__name__)


def build_model(cfg: CfgNode, process: Process, task: Task) -> nn.Module:
    """The model with random weights, the same on all processes."""
    torch.manual_seed(cfg.RNG_SEED)
    name, arguments = model_arguments(cfg)
    model = create_model(name, **arguments | {"num_classes": task.num_outputs})
    model = model.to(process.device)
    model.set_grad_checkpointing(cfg.MODEL.ACT_CHECKPOINT)
    if cfg.LOG_MODEL_INFO:
        parameters = sum(p.numel() for p in model.parameters())
        logger.info("%s: %.2f M parameters on %s", name, parameters / 1e6, process.device)
    return model


def start_state(
    cfg: CfgNode,
    process: Process,
    model: nn.Module,
    task: Task,
    dtype: torch.dtype | None,
    facts: Mapping,
) -> TrainingState:
    """The newest state of this run, else one that begins at ``TRAIN.CHECKPOINT_FILE_PATH``.

    Freezes, shards and compiles the model as the configuration says.

    Args:
        model: as :func:`build_model` gave it.
        dtype: precision of autocast; None for full precision.
        facts: what :func:`videonet.engine.resume.resume` compares.

    Raises:
        CheckpointError: a checkpoint cannot be read or belongs to another run.
    """
    saved = newest_of_this_run(cfg, process)
    if saved is None and cfg.TRAIN.CHECKPOINT_FILE_PATH:
        path = newest_checkpoint(cfg.TRAIN.CHECKPOINT_FILE_PATH)
        report = load_checkpoint(model, path, class_names=task.names, new_head=cfg.TRAIN.NEW_HEAD)
        logger.info("initial weights\n%s", report)
    if cfg.MODEL.FROZEN_LAYERS:
        frozen = freeze(model, cfg.MODEL.FROZEN_LAYERS)
        logger.info("%d parameters keep their values: %s", len(frozen), ", ".join(frozen))
    if cfg.TRAIN.PARALLEL == "fsdp" and process.world_size > 1:
        shard(model, process)
    optimizer = build_optimizer(cfg, model)
    state = TrainingState(model, optimizer, gradient_scaler(dtype, process.device))
    if cfg.SOLVER.EMA_DECAY > 0:
        state.average = WeightAverage(model, cfg.SOLVER.EMA_DECAY)
    if saved is not None:
        resume(cfg, state, saved, facts, process)
    if cfg.MODEL.COMPILE:
        model.compile()
    return state
