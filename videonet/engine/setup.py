"""The model and the state that a training starts from: new, from given weights, or resumed."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import torch
from fvcore.common.config import CfgNode

from videonet.checkpoint.checkpoint_dir import newest_checkpoint
from videonet.config import model_arguments
from videonet.engine.adapters import add_adapters
from videonet.engine.distributed import Process
from videonet.engine.ema import WeightAverage
from videonet.engine.finetune import freeze
from videonet.engine.optim import build_optimizer
from videonet.engine.parallel import shard
from videonet.engine.resume import newest_of_this_run, resume
from videonet.engine.state import TrainingState
from videonet.engine.step import gradient_scaler
from videonet.errors import ConfigError
from videonet.models.base import VideoModel
from videonet.models.weights import load_weights
from videonet.tasks.task import Model, Task

logger = logging.getLogger(__name__)


def build_model(cfg: CfgNode, process: Process, task: Task) -> Model:
    """The model with random weights, the same on all processes.

    Args:
        cfg: the configuration.
        process: this process.
        task: says which model and head.
    """
    torch.manual_seed(cfg.RNG_SEED)
    model = task.build_model().to(process.device)
    model.set_grad_checkpointing(cfg.MODEL.ACT_CHECKPOINT)
    if cfg.LOG_MODEL_INFO:
        parameters = sum(p.numel() for p in model.parameters())
        logger.info(
            "%s: %.2f M parameters on %s", model_arguments(cfg)[0], parameters / 1e6, process.device
        )
    return model


def start_state(
    cfg: CfgNode,
    process: Process,
    model: Model,
    task: Task,
    dtype: torch.dtype | None,
    facts: Mapping,
) -> TrainingState:
    """The newest state of this run, or a new one with ``TRAIN.CHECKPOINT_FILE_PATH``'s weights.

    The model is frozen, gets adapters and is sharded as the configuration says.

    Args:
        cfg: the configuration.
        process: this process.
        model: as :func:`build_model` returns it.
        task: names the outputs, which a checkpoint's head must fit.
        dtype: precision of autocast; None for full precision.
        facts: what :func:`videonet.engine.resume.resume` compares.

    Raises:
        CheckpointError: a checkpoint cannot be read or belongs to another run.
        ConfigError: the model takes no adapters.
    """
    saved = newest_of_this_run(cfg, process)
    if saved is None and cfg.TRAIN.CHECKPOINT_FILE_PATH:
        report = load_weights(
            model,
            newest_checkpoint(cfg.TRAIN.CHECKPOINT_FILE_PATH),
            class_names=task.names,
            class_table=cfg.TRAIN.CLASS_TABLE or None,
            new_head=cfg.TRAIN.NEW_HEAD,
            inflation=cfg.TRAIN.INFLATION,
        )
        logger.info("initial weights\n%s", report)
    if cfg.MODEL.FROZEN_LAYERS:
        frozen = freeze(model, cfg.MODEL.FROZEN_LAYERS)
        logger.info("%d parameters keep their values: %s", len(frozen), ", ".join(frozen))
    if cfg.MODEL.LORA.RANK:
        if not isinstance(model, VideoModel):
            raise ConfigError(f"MODEL.LORA.RANK must be 0 with MODEL.TASK {cfg.MODEL.TASK}")
        names = add_adapters(model, cfg.MODEL.LORA)
        logger.info("adapters beside %d linear layers: %s", len(names), ", ".join(names))
    if cfg.TRAIN.PARALLEL == "fsdp" and process.world_size > 1:
        shard(model, process)
    optimizer = build_optimizer(cfg, model)
    state = TrainingState(model, optimizer, gradient_scaler(dtype, process.device))
    if cfg.SOLVER.EMA_DECAY > 0:
        state.average = WeightAverage(model, cfg.SOLVER.EMA_DECAY)
    if saved is not None:
        resume(cfg, state, saved, facts, process)
    return state
