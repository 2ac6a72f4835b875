"""Where a training begins: random weights, given ones, or the newest state of the same run."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from fvcore.common.config import CfgNode
from torch import nn

from videonet.checkpoint import load_checkpoint
from videonet.config import model_arguments
from videonet.data.classes import class_names
from videonet.engine.checkpoints import newest_checkpoint, newest_whole, remove_unfinished
from videonet.engine.distributed import Process
from videonet.engine.ema import WeightAverage
from videonet.engine.finetune import freeze
from videonet.engine.optim import build_optimizer
from videonet.engine.parallel import shard
from videonet.engine.precision import gradient_scaler
from videonet.engine.state import TrainingState
from videonet.errors import CheckpointError
from videonet.models import create_model

logger = logging.getLogger(__name__)


def build_model(cfg: CfgNode, process: Process) -> nn.Module:
    """The model with random weights, the same on all processes."""
    torch.manual_seed(cfg.RNG_SEED)
    name, arguments = model_arguments(cfg)
    model = create_model(name, **arguments).to(process.device)
    model.set_grad_checkpointing(cfg.MODEL.ACT_CHECKPOINT)
    if cfg.LOG_MODEL_INFO:
        parameters = sum(p.numel() for p in model.parameters())
        logger.info("%s: %.2f M parameters on %s", name, parameters / 1e6, process.device)
    return model


def start_state(
    cfg: CfgNode,
    process: Process,
    model: nn.Module,
    dtype: torch.dtype | None,
    steps_per_epoch: int,
) -> TrainingState:
    """The newest state of this run, else one that begins at ``TRAIN.CHECKPOINT_FILE_PATH``.

    Freezes, shards and compiles the model as the configuration says, and seeds the generators.

    Args:
        model: as :func:`build_model` gave it.
        dtype: precision of autocast; None for full precision.

    Raises:
        CheckpointError: a checkpoint cannot be read or belongs to another run.
    """
    saved = _newest_of_this_run(cfg, process)
    if saved is None and cfg.TRAIN.CHECKPOINT_FILE_PATH:
        path = newest_checkpoint(cfg.TRAIN.CHECKPOINT_FILE_PATH)
        names, new_head = class_names(cfg), cfg.TRAIN.NEW_HEAD
        report = load_checkpoint(model, path, class_names=names, new_head=new_head)
        logger.info("initial weights\n%s", report)
    if cfg.MODEL.FROZEN_LAYERS:
        frozen = freeze(model, cfg.MODEL.FROZEN_LAYERS)
        logger.info("%d parameters keep their values: %s", len(frozen), ", ".join(frozen))
    # The weights are the same everywhere; what is drawn from here on is each process's own.
    torch.manual_seed(cfg.RNG_SEED + process.rank)
    if cfg.TRAIN.PARALLEL == "fsdp" and process.world_size > 1:
        shard(model, process)
    optimizer = build_optimizer(cfg, model)
    state = TrainingState(model, optimizer, gradient_scaler(dtype, process.device))
    if cfg.SOLVER.EMA_DECAY > 0:
        state.average = WeightAverage(model, cfg.SOLVER.EMA_DECAY)
    if saved is not None:
        _resume(state, saved, process, steps_per_epoch)
    if cfg.MODEL.COMPILE:
        model.compile()
    return state


def _newest_of_this_run(cfg: CfgNode, process: Process) -> Path | None:
    saved = None
    if cfg.TRAIN.AUTO_RESUME and process.is_main:
        remove_unfinished(cfg.OUTPUT_DIR)
        saved = newest_whole(cfg.OUTPUT_DIR)
    return process.gather(saved)[0]  # one process looks, so that all take the same file


def _resume(state: TrainingState, path: Path, process: Process, steps_per_epoch: int) -> None:
    content = state.restore(path, process)
    steps, position = content.get("steps_per_epoch", steps_per_epoch), state.position
    if position.batch and steps != steps_per_epoch:
        raise CheckpointError(
            f"{path} was saved after {position.batch} of the {steps} steps of an epoch, but "
            f"with this list and TRAIN.BATCH_SIZE an epoch has {steps_per_epoch} steps"
        )
    logger.info(
        "resumed from %s after %d epochs and %d steps (%d in all)",
        *(path, position.epoch, position.batch, position.step),
    )
