"""The state of a training run on disk: what a checkpoint holds, where it lies, how to go on."""

from __future__ import annotations

import logging
import random
from pathlib import Path

import torch
from torch import nn

from videonet.checkpoint.files import read_checkpoint, write_checkpoint
from videonet.engine.ema import WeightAverage
from videonet.errors import CheckpointError

logger = logging.getLogger(__name__)


def checkpoint_folder(output_dir: str | Path) -> Path:
    return Path(output_dir) / "checkpoints"


def saved_checkpoints(output_dir: str | Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted(checkpoint_folder(output_dir).glob("checkpoint_epoch_*.pyth"))


def newest_checkpoint(path: str | Path) -> str | Path:
    """The checkpoint itself, or the newest one where `path` is the folder of a run.

    Raises:
        CheckpointError: the folder holds no checkpoint.
    """
    if not Path(path).is_dir():
        return path
    saved = saved_checkpoints(path)
    if not saved:
        raise CheckpointError(f"{path} holds no checkpoints/checkpoint_epoch_*.pyth")
    return saved[-1]


def save_training_state(
    output_dir: str | Path,
    epoch: int,
    *,
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    average: WeightAverage | None,
    config: str,
    class_names: list[str],
    keep: int,
) -> Path:
    """Write the state after `epoch` epochs; then delete all but the newest `keep` checkpoints.

    The keys ``model_state``, ``optimizer_state``, ``epoch`` and ``cfg`` are those of PySlowFast.
    """
    path = checkpoint_folder(output_dir) / f"checkpoint_epoch_{epoch:05d}.pyth"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_checkpoint(
        path,
        {
            "model_state": model.state_dict(),
            "optimizer_state": optimizer.state_dict(),
            "scaler_state": scaler.state_dict(),
            "ema_state": average.state if average is not None else {},
            "epoch": epoch,
            "step": step,
            "rng_state": random_state(),
            "cfg": config,
            "class_names": class_names,
        },
    )
    for old in saved_checkpoints(output_dir)[:-keep]:
        old.unlink()
    return path


def restore_training_state(
    path: Path,
    *,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    average: WeightAverage | None,
) -> tuple[int, int]:
    """Put a saved state back; returns the finished epochs and steps.

    Raises:
        CheckpointError: the file is no training state of this model.
    """
    state = read_checkpoint(path)
    missing = {"model_state", "optimizer_state", "epoch", "step"} - state.keys()
    if missing:
        raise CheckpointError(
            f"{path} cannot be resumed from: it has no {', '.join(sorted(missing))}"
        )
    try:
        model.load_state_dict(state["model_state"])
        optimizer.load_state_dict(state["optimizer_state"])
    except (RuntimeError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{path} belongs to another model or optimiser than this configuration, so the run "
            f"cannot go on from it; choose another OUTPUT_DIR or set TRAIN.AUTO_RESUME False"
        ) from error
    if scaler.is_enabled() and state["scaler_state"]:
        scaler.load_state_dict(state["scaler_state"])
    if average is not None:
        if not state.get("ema_state"):
            logger.info("%s holds no averaged weights: the average starts from its weights", path)
        average.load(state.get("ema_state") or model.state_dict())
    restore_random_state(state["rng_state"])
    logger.info("resumed from %s after %d epochs, %d steps", path, state["epoch"], state["step"])
    return state["epoch"], state["step"]


def random_state() -> dict:
    """States of Python's and torch's generators, as plain types and tensors."""
    version, words, gauss = random.getstate()
    return {
        "python": [version, list(words), gauss],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_state(state: dict) -> None:
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
