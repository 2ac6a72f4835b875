"""Multi-view testing of a checkpoint, and the files that it leaves."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from fvcore.common.config import CfgNode

from videonet.checkpoint.checkpoint_dir import latest_valid, newest_checkpoint
from videonet.config import model_arguments
from videonet.data import build_loader
from videonet.devices import autocast_dtype, replays_for
from videonet.engine.distributed import Process
from videonet.engine.evaluate import evaluate
from videonet.engine.results import (
    dataset_fingerprint,
    withdraw_results,
    write_failures,
    write_results,
)
from videonet.errors import ConfigError, DataError
from videonet.models.weights import read_weights
from videonet.tasks import Results
from videonet.tasks.trained_model import load_trained_model

logger = logging.getLogger(__name__)


def checkpoint_to_test(cfg: CfgNode) -> str:
    """The checkpoint that a test is to use.

    It is ``TEST.CHECKPOINT_FILE_PATH``, else the newest one of the run, else
    ``TRAIN.CHECKPOINT_FILE_PATH``.

    Raises:
        ConfigError: there is none.
    """
    if cfg.TEST.CHECKPOINT_FILE_PATH:
        return str(newest_checkpoint(cfg.TEST.CHECKPOINT_FILE_PATH))
    if saved := latest_valid(cfg.OUTPUT_DIR):
        return str(saved)
    if cfg.TRAIN.CHECKPOINT_FILE_PATH:
        return str(newest_checkpoint(cfg.TRAIN.CHECKPOINT_FILE_PATH))
    raise ConfigError(
        f"there is nothing to test: set TEST.CHECKPOINT_FILE_PATH, or an OUTPUT_DIR with "
        f"checkpoints ({cfg.OUTPUT_DIR} has none)"
    )


def run_multiview_test(cfg: CfgNode, process: Process) -> dict:
    """Evaluate a checkpoint with all views, and write the files of a test; called by all processes.

    Args:
        cfg: the configuration.
        process: this process.

    Returns:
        What ``results.json`` holds.

    Raises:
        DataError: too few of the videos could be read, see ``TEST.MAX_BAD_SHARE``.
        TrainingError: the model's scores are not finite.
    """
    # One process looks, so that all take the same file.
    checkpoint = process.gather(checkpoint_to_test(cfg) if process.is_main else "")[0]
    content = read_weights(checkpoint)
    trained = load_trained_model(content, cfg, origin=checkpoint, split="test")
    task, cfg = trained.task, trained.task.cfg
    loader = build_loader(
        cfg, "test", annotate=task.annotate, rank=process.rank, world_size=process.world_size
    )
    model = trained.model.to(process.device)
    if cfg.MODEL.COMPILE:
        model.compile()
    logger.info("testing %s\n%s", checkpoint, trained.report)
    start = time.perf_counter()
    evaluation = evaluate(
        model,
        loader,
        process,
        task,
        mean=cfg.DATA.MEAN,
        std=cfg.DATA.STD,
        max_clips=cfg.TEST.BATCH_SIZE,
        dtype=autocast_dtype(cfg, process.device),
        title="test",
        replays=replays_for(cfg, process.device),
    )
    assert evaluation is not None  # no signal ends a test early
    folder, results = Path(cfg.OUTPUT_DIR), {}
    refuse_few_videos(cfg, evaluation, str(loader.dataset.name), process)
    if process.is_main:
        results = write_results(
            folder,
            evaluation,
            task,
            paths=loader.dataset.paths,
            details={
                "views": f"{cfg.TEST.NUM_ENSEMBLE_VIEWS} x {cfg.TEST.NUM_SPATIAL_CROPS}",
                "ensemble": cfg.TEST.ENSEMBLE,
                "list": str(loader.dataset.name),
                "fingerprint": dataset_fingerprint(loader.dataset),
                "checkpoint": checkpoint,
                "model": model_arguments(cfg)[0],
                "seconds": round(time.perf_counter() - start, 3),
            },
        )
        logger.info(
            "%s over %d videos with %s views (%d failed)",
            ", ".join(f"{key} {value:.2f}" for key, value in evaluation.measures().items()),
            results["videos"],
            results["views"],
            len(results["failed"]),
        )
    return results


def refuse_few_videos(cfg: CfgNode, evaluation: Results, name: str, process: Process) -> None:
    """Refuse a result that is based on too few videos; ``failed.csv`` then lists the others.

    Args:
        cfg: the configuration.
        evaluation: of the test set.
        name: of the test set, for the message.
        process: this process; the first one writes.

    Raises:
        DataError: more than ``TEST.MAX_BAD_SHARE`` of the videos could not be read.
    """
    failed = len(evaluation.failures)
    total = failed + len(evaluation.videos)
    if failed <= cfg.TEST.MAX_BAD_SHARE * total:
        return
    folder = Path(cfg.OUTPUT_DIR)
    if process.is_main:
        withdraw_results(folder)
        write_failures(folder, evaluation.failures)
    raise DataError(
        f"{name}: {failed} of {total} videos cannot be read, more than TEST.MAX_BAD_SHARE = "
        f"{cfg.TEST.MAX_BAD_SHARE:g} allows, so the test has no result; {folder / 'failed.csv'} "
        f"lists them; the first: {evaluation.failures[0].reason}"
    )
