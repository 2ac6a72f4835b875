"""The state of a training run: everything that the next step depends on."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import nn

from videonet.checkpoint.files import SHARDED
from videonet.checkpoint.read import read_checkpoint
from videonet.checkpoint.sharded import has_averages, load_shards, read_rest, split
from videonet.engine.ema import WeightAverage
from videonet.engine.optim import fitted_optimizer_state
from videonet.engine.parallel import is_sharded, load_optimizer_state, optimizer_state
from videonet.errors import CheckpointError, TrainingError

logger = logging.getLogger(__name__)

ANOTHER_RUN = (
    "than this configuration, so the run cannot go on from it; choose another OUTPUT_DIR or set "
    "TRAIN.AUTO_RESUME False"
)
REQUIRED = {"model_state", "optimizer_state", "epoch", "step"}


@dataclass
class Position:
    """How far a run is.

    Attributes:
        epoch: finished epochs.
        batch: steps done in the epoch that runs.
        step: steps of the whole run.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0


@dataclass
class TrainingState:
    """What a checkpoint holds of a run; order and random numbers follow from seed and position."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: WeightAverage | None = None
    position: Position = field(default_factory=Position)

    def content(self) -> dict:
        """The state as tensors, numbers and text; called by all processes together.

        The keys ``model_state``, ``optimizer_state``, ``epoch`` and ``cfg`` are PySlowFast's.

        Raises:
            TrainingError: a weight is not finite, so that the state is not worth keeping.
        """
        model_state = self.model.state_dict()
        for name, tensor in model_state.items():
            if not torch.isfinite(tensor).all():
                raise TrainingError(
                    f"{name} is not finite after step {self.position.step}; nothing was saved and "
                    f"the checkpoints before are untouched"
                )
        return {
            "model_state": model_state,
            "optimizer_state": optimizer_state(self.model, self.optimizer),
            "scaler_state": self.scaler.state_dict(),
            "ema_state": self.average.state if self.average is not None else {},
            **asdict(self.position),
        }

    def restore(self, path: Path) -> dict:
        """Put a saved state back; called by all processes together.

        Returns:
            The other entries of the checkpoint.

        Raises:
            CheckpointError: the checkpoint is no training state of this model.
        """
        in_shards = path.suffix == SHARDED
        if in_shards != is_sharded(self.model):
            raise CheckpointError(
                f"{path} was written {'in shards' if in_shards else 'as a whole'} and this run "
                f"keeps its state {'as a whole' if in_shards else 'in shards'}: resume it with the "
                f"TRAIN.PARALLEL it began with, or give it to a new run as "
                f"TRAIN.CHECKPOINT_FILE_PATH"
            )
        content = read_rest(path) if in_shards else read_checkpoint(path)
        if missing := REQUIRED - content.keys():
            raise CheckpointError(
                f"{path} cannot be resumed from: it has no {', '.join(sorted(missing))}"
            )
        averaged = has_averages(path) if in_shards else bool(content.get("ema_state"))
        if in_shards:
            self._restore_shards(path, content, averaged)
        else:
            self._restore_whole(path, content, averaged)
        if self.average is not None and not averaged:
            logger.info("%s holds no averaged weights: they start from its weights", path)
            self.average.load(self.model.state_dict())
        if self.scaler.is_enabled() and content.get("scaler_state"):
            self.scaler.load_state_dict(content["scaler_state"])
        self.position = Position(content["epoch"], content.get("batch", 0), content["step"])
        return content

    def _restore_whole(self, path: Path, content: Mapping, averaged: bool) -> None:
        try:
            self.model.load_state_dict(content["model_state"])
        except RuntimeError as error:
            raise CheckpointError(f"{path} belongs to another model {ANOTHER_RUN}") from error
        names = {id(parameter): name for name, parameter in self.model.named_parameters()}
        try:
            self.optimizer.load_state_dict(
                fitted_optimizer_state(content["optimizer_state"], self.optimizer, names)
            )
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{path} belongs to another optimiser ({error}) {ANOTHER_RUN}"
            ) from error
        if self.average is not None and averaged:
            self.average.load(content["ema_state"])

    def _restore_shards(self, path: Path, content: Mapping, averaged: bool) -> None:
        state = {
            "model_state": self.model.state_dict(),
            "ema_state": self.average.state if self.average is not None and averaged else {},
            "optimizer_state": optimizer_state(self.model, self.optimizer),
        }
        load_shards(path, split(state)[0])  # into the weights and averages themselves
        moments = {
            key: value
            for key, value in content["optimizer_state"].items()
            if not key.startswith("param_groups.")  # this configuration's settings hold
        }
        optimizer = state["optimizer_state"] | moments
        load_optimizer_state(self.model, self.optimizer, optimizer)
