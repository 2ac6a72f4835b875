"""Resuming a run: from which state, with which changed settings, and when it is refused."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from fvcore.common.config import CfgNode

from videonet.checkpoint.checkpoint_dir import latest_valid, remove_unfinished
from videonet.config.keys import MAPPINGS
from videonet.config.layers import read_settings
from videonet.engine.distributed import Process
from videonet.engine.state import TrainingState
from videonet.errors import CheckpointError, ConfigError

logger = logging.getLogger(__name__)

# The settings that decide the order of the videos within an epoch.
ORDER = ("TRAIN.BATCH_SIZE", "RNG_SEED", "DATA.TRAIN_LIST")
OTHER_WAYS = (
    "choose another OUTPUT_DIR (with this checkpoint as TRAIN.CHECKPOINT_FILE_PATH to start from "
    "its weights) or set TRAIN.AUTO_RESUME False"
)


def newest_of_this_run(cfg: CfgNode, process: Process) -> Path | None:
    """The newest valid checkpoint in ``OUTPUT_DIR``, the same on all processes; None without."""
    saved = None
    if cfg.TRAIN.AUTO_RESUME and process.is_main:
        remove_unfinished(cfg.OUTPUT_DIR)
        saved = latest_valid(cfg.OUTPUT_DIR)
    return process.gather(saved)[0]  # one process looks, so that all take the same file


def resume(
    cfg: CfgNode, state: TrainingState, path: Path, facts: Mapping, process: Process
) -> None:
    """Restore a run's state; called by all processes together.

    The settings of `cfg` hold from here on, and every one that differs is logged.

    Args:
        cfg: the configuration.
        state: is filled from the checkpoint.
        path: the checkpoint.
        facts: ``class_names`` (names of the outputs, if they have any), ``data`` (fingerprints of
            the lists) and ``steps_per_epoch`` of this run; a checkpoint keeps its own under the
            same names.
        process: this process.

    Raises:
        CheckpointError: the checkpoint cannot be read or belongs to another run.
    """
    content = state.restore(path)
    changes = changed_settings(content, cfg, path)
    _compare_names(content.get("class_names"), facts.get("class_names"), path)
    if state.position.batch:
        _compare_order(content, changes, facts, path, state.position.batch)
    for split, fingerprint in facts["data"].items():
        before = content.get("data", {}).get(split, fingerprint)
        if before != fingerprint:
            logger.warning("the %s data are not those that %s was trained with", split, path)
    for key, (before, now) in changes.items():
        logger.warning("%s is %s from here on; until %s it was %s", key, now, path.name, before)
    if content.get("processes", process.world_size) != process.world_size:
        logger.info("%d processes go on where %d were", process.world_size, content["processes"])
    position = state.position
    logger.info(
        "resumed from %s after %d epochs and %d steps (%d in all)",
        *(path, position.epoch, position.batch, position.step),
    )
    if position.epoch >= cfg.SOLVER.MAX_EPOCH:
        logger.info("nothing is left to train: SOLVER.MAX_EPOCH is %d", cfg.SOLVER.MAX_EPOCH)


def changed_settings(
    content: Mapping, cfg: CfgNode, path: Path
) -> dict[str, tuple[object, object]]:
    """The settings that differ from those in a checkpoint.

    Args:
        content: what the checkpoint holds.
        cfg: the configuration.
        path: the checkpoint, for messages.

    Returns:
        (value in the checkpoint, value in `cfg`) by key.
    """
    if not isinstance(content.get("cfg"), str):
        return {}
    try:
        before = read_settings(content["cfg"], f"the configuration in {path}")
    except ConfigError as error:
        raise CheckpointError(str(error)) from error
    now = read_settings(cfg.dump(), "this configuration")
    arguments = {key for key in {*before, *now} if key.rpartition(".")[0] in MAPPINGS}
    return {
        key: (before.get(key), now.get(key))
        for key in sorted((before.keys() & now.keys()) | arguments)
        if before.get(key) != now.get(key) and key != "OUTPUT_DIR"
    }


def _compare_names(before: object, now: list[str] | None, path: Path) -> None:
    if not isinstance(before, list | tuple) or now is None or list(before) == now:
        return
    for number, (old, new) in enumerate(zip(before, now, strict=False)):
        if old != new:
            raise CheckpointError(
                f"{path} was trained on other classes: class {number} is {old!r} there and "
                f"{new!r} here; {OTHER_WAYS}"
            )
    raise CheckpointError(
        f"{path} was trained on {len(before)} classes, this run has {len(now)}; {OTHER_WAYS}"
    )


def _compare_order(
    content: Mapping, changes: Mapping, facts: Mapping, path: Path, batch: int
) -> None:
    """Refuse to go on within an epoch whose videos come in another order here."""
    steps = content.get("steps_per_epoch", facts["steps_per_epoch"])
    if steps != facts["steps_per_epoch"]:
        raise CheckpointError(
            f"{path} was saved after {batch} of the {steps} steps of an epoch, but with this list "
            f"and TRAIN.BATCH_SIZE an epoch has {facts['steps_per_epoch']} steps"
        )
    if batch > steps:
        raise CheckpointError(f"{path} was saved after {batch} of the {steps} steps of an epoch")
    different = [
        f"{key} was {changes[key][0]} and is {changes[key][1]}" for key in ORDER if key in changes
    ]
    train = facts["data"].get("train")
    if content.get("data", {}).get("train", train) != train:
        different.append("the training list has changed")
    if different:
        raise CheckpointError(
            f"{path} was saved after {batch} of the {steps} steps of an epoch, whose order of "
            f"videos is another one here: {', '.join(different)}; end the epoch as it began, or "
            f"{OTHER_WAYS}"
        )
