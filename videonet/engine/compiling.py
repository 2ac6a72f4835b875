"""The forward pass of training, compiled by torch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from videonet.engine.batch_norm import batch_norms
from videonet.engine.distributed import Process
from videonet.engine.parallel import is_sharded
from videonet.errors import ConfigError

BACKEND = "inductor"  # of torch.compile


def training_forward(
    model: nn.Module, module: nn.Module, cfg: CfgNode, process: Process
) -> Callable[[Tensor], Tensor]:
    """What a training step calls: `module`, compiled where the configuration says so.

    The region is the model from the clip to the logits, and its backward pass. Weights stay where
    they are, under their names; whatever else calls the model runs it uncompiled.

    Args:
        model: as :func:`videonet.engine.setup.build_model` returns it.
        module: the model, or what averages its gradients over the processes.
        cfg: the configuration.
        process: this process.

    Raises:
        ConfigError: the model cannot be compiled together with another setting.
    """
    keys = [key for key, group in (("TRAIN", cfg.TRAIN), ("MODEL", cfg.MODEL)) if group.COMPILE]
    if not keys:
        return module
    key = f"{keys[0]}.COMPILE"
    if is_sharded(model):
        raise ConfigError(f"{key} does not work with TRAIN.PARALLEL fsdp: take ddp, or leave it")
    if cfg.MODEL.ACT_CHECKPOINT and batch_norms(model):
        raise ConfigError(
            f"{key} does not work with MODEL.ACT_CHECKPOINT for a model with batch norms, whose "
            "statistics would count recomputed clips twice: switch one of them off"
        )
    if cfg.MODEL.ACT_CHECKPOINT and process.world_size > 1:
        raise ConfigError(
            f"{key} does not work with MODEL.ACT_CHECKPOINT on several processes, as torch cannot "
            "divide such a graph to send gradients early: switch one of them off"
        )
    return torch.compile(module, backend=BACKEND)
