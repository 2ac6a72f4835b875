"""Training of a head over frozen features, all of which fit into memory."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from fvcore.common.config import CfgNode

from videonet.checkpoint import write_checkpoint
from videonet.config import save_config
from videonet.engine.metric_logger import MetricLogger, read_log
from videonet.engine.optim import build_optimizer, learning_rate, set_learning_rate
from videonet.engine.plots import plot_learning_curve
from videonet.tasks.clip_head import FILE, ClipHeadTraining
from videonet.terminal import progress_bar

logger = logging.getLogger(__name__)


def train_video_head(cfg: CfgNode, training: ClipHeadTraining) -> dict[str, float]:
    """Train a head as ``SOLVER`` and ``TRAIN.BATCH_SIZE`` say.

    Writes the head, the configuration, the log and a learning curve to ``OUTPUT_DIR``.

    Returns:
        What the last epoch's evaluation gave.
    """
    folder, head = Path(cfg.OUTPUT_DIR), training.head
    optimizer = build_optimizer(cfg, head)
    batches = max(1, len(training) // cfg.TRAIN.BATCH_SIZE)
    folder.mkdir(parents=True, exist_ok=True)
    save_config(cfg, folder / "config.yaml")
    log, step, values = MetricLogger(folder), 0, training.evaluate()
    bar = progress_bar(total=cfg.SOLVER.MAX_EPOCH * batches, desc="head", unit="steps")
    for epoch in range(cfg.SOLVER.MAX_EPOCH):
        head.train()
        for index, chosen in enumerate(torch.randperm(len(training)).tensor_split(batches)):
            rate = learning_rate(cfg.SOLVER, epoch + index / batches)
            set_learning_rate(optimizer, rate)
            loss = training.loss(chosen)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            step += 1
            bar.update()
            if step % cfg.LOG_PERIOD == 0:
                log.write("train", step, epoch=epoch, loss=loss.item(), lr=rate)
        values = training.evaluate()
        log.write("val", step, epoch=epoch + 1, **values)
    bar.close()
    log.close()
    plot_learning_curve(read_log(folder / "log.jsonl"), folder / "learning_curve.png")
    write_checkpoint(folder / FILE, training.content())
    logger.info("head over %d videos: %s", len(training), values)
    return values
