"""Training: epochs of steps, with validation, checkpoints and a record of everything."""

from __future__ import annotations

import logging
import math
import time
from pathlib import Path

import torch
from fvcore.common.config import CfgNode
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from videonet.checkpoint import load_checkpoint
from videonet.config import model_arguments, save_config
from videonet.data import Batch, build_loader
from videonet.data.classes import class_names
from videonet.data.device import Mixup, normalize
from videonet.engine.distributed import Process
from videonet.engine.ema import WeightAverage
from videonet.engine.evaluate import evaluate
from videonet.engine.optim import build_optimizer, learning_rate, lr_factor, set_learning_rate
from videonet.engine.plots import plot_learning_curve
from videonet.engine.precision import autocast_dtype, gradient_scaler
from videonet.engine.runlog import RunLog, read_log
from videonet.engine.state import (
    newest_checkpoint,
    restore_training_state,
    save_training_state,
    saved_checkpoints,
)
from videonet.engine.step import TrainingStep
from videonet.errors import TrainingError
from videonet.models import create_model

logger = logging.getLogger(__name__)


class Trainer:
    """One training run as a configuration describes it, on this process's share of the data."""

    def __init__(self, cfg: CfgNode, process: Process):
        self.cfg, self.process = cfg, process
        self.folder = Path(cfg.OUTPUT_DIR)
        torch.manual_seed(cfg.RNG_SEED)

        self.loader = self._loader("train")
        self.val_loader = self._loader("val") if cfg.TRAIN.EVAL_PERIOD > 0 else None
        self.class_names = class_names(cfg)
        self.steps_per_epoch = len(self.loader)

        name, arguments = model_arguments(cfg)
        self.model = create_model(name, **arguments).to(process.device)
        self.model.set_grad_checkpointing(cfg.MODEL.ACT_CHECKPOINT)
        if cfg.LOG_MODEL_INFO:
            parameters = sum(p.numel() for p in self.model.parameters())
            logger.info("%s: %.2f M parameters on %s", name, parameters / 1e6, process.device)
        self.dtype = autocast_dtype(cfg, process.device)
        if cfg.TRAIN.MIXED_PRECISION and self.dtype is None:
            logger.info("mixed precision is not used on %s", process.device)
        self.scaler = gradient_scaler(self.dtype, process.device)
        self.optimizer = build_optimizer(cfg, self.model)
        torch.manual_seed(cfg.RNG_SEED + process.rank)  # the weights are the same everywhere
        self.average: WeightAverage | None = None
        self.epoch = self.step = 0
        self._start_from_checkpoint()
        videos = min(cfg.TRAIN.BATCH_SIZE, len(self.loader.dataset))
        clips = videos * cfg.AUG.NUM_SAMPLE
        self.train_step = TrainingStep(
            process.wrap(self.model),
            self.optimizer,
            self.scaler,
            process,
            clips_per_step=clips,
            parts=cfg.TRAIN.ACCUMULATE,
            dtype=self.dtype,
            clip_norm=cfg.SOLVER.CLIP_GRAD_L2NORM,
            clip_value=cfg.SOLVER.CLIP_GRAD_VAL,
        )
        self.lr_factor = lr_factor(cfg, clips)
        logger.info(
            "%d videos a step, %d clips; learning rate %.3g x %.3g",
            videos,
            clips,
            cfg.SOLVER.BASE_LR,
            self.lr_factor,
        )
        mix = cfg.MIXUP
        self.mixup = (
            Mixup(
                alpha=mix.ALPHA,
                cutmix_alpha=mix.CUTMIX_ALPHA,
                prob=mix.PROB,
                switch_prob=mix.SWITCH_PROB,
                num_classes=cfg.MODEL.NUM_CLASSES,
                label_smoothing=mix.LABEL_SMOOTH_VALUE,
            )
            if mix.ENABLE
            else None
        )

    def _loader(self, split: str):
        process = self.process
        return build_loader(self.cfg, split, rank=process.rank, world_size=process.world_size)

    def _start_from_checkpoint(self) -> None:
        """Resume the newest state of this run, else start from ``CHECKPOINT_FILE_PATH``."""
        cfg = self.cfg
        saved = saved_checkpoints(cfg.OUTPUT_DIR) if cfg.TRAIN.AUTO_RESUME else []
        if not saved and cfg.TRAIN.CHECKPOINT_FILE_PATH:
            path = newest_checkpoint(cfg.TRAIN.CHECKPOINT_FILE_PATH)
            logger.info("initial weights\n%s", load_checkpoint(self.model, path))
        if cfg.SOLVER.EMA_DECAY > 0:
            self.average = WeightAverage(self.model, cfg.SOLVER.EMA_DECAY)
        if saved:
            self.epoch, self.step = restore_training_state(
                saved[-1],
                model=self.model,
                optimizer=self.optimizer,
                scaler=self.scaler,
                average=self.average,
            )

    def run(self) -> Path | None:
        """Train to the last epoch; returns the last checkpoint (None if nothing was left to do)."""
        cfg, main = self.cfg, self.process.is_main
        path = None
        board = cfg.TENSORBOARD.LOG_DIR or str(self.folder / "tensorboard")
        if main:
            self.folder.mkdir(parents=True, exist_ok=True)
            save_config(cfg, self.folder / "config.yaml")
        log = RunLog(
            self.folder, tensorboard=board if cfg.TENSORBOARD.ENABLE else None, enabled=main
        )
        bar = tqdm(
            total=cfg.SOLVER.MAX_EPOCH * self.steps_per_epoch,
            initial=self.step,
            desc="train",
            unit="step",
            disable=not main,
            smoothing=0.1,
        )
        try:
            with logging_redirect_tqdm(), bar:
                while self.epoch < cfg.SOLVER.MAX_EPOCH:
                    self._train_epoch(bar, log)
                    self.epoch += 1
                    last = self.epoch == cfg.SOLVER.MAX_EPOCH
                    if self.val_loader is not None and (
                        last or self.epoch % cfg.TRAIN.EVAL_PERIOD == 0
                    ):
                        self._validate(log)
                    if last or self.epoch % cfg.TRAIN.CHECKPOINT_PERIOD == 0:
                        path = self._save()
        finally:
            log.close()
        if main and path is not None:
            plot_learning_curve(
                read_log(self.folder / "log.jsonl"), self.folder / "learning_curve.png"
            )
        return path

    def _train_epoch(self, bar: tqdm, log: RunLog) -> None:
        self.model.train()
        self.loader.set_position(self.epoch)
        mark = time.perf_counter()
        for index, batch in enumerate(self.loader):
            data_time = time.perf_counter() - mark
            rate = self.lr_factor * learning_rate(
                self.cfg.SOLVER, self.epoch + index / self.steps_per_epoch
            )
            loss, gradient = self._train_step(batch, rate)
            step_time = time.perf_counter() - mark
            bar.update()
            bar.set_postfix(loss=f"{loss:.3f}", lr=f"{rate:.1e}", data=f"{data_time:.2f}s")
            if self.step % self.cfg.LOG_PERIOD == 0:
                log.write(
                    "train",
                    self.step,
                    epoch=round(self.epoch + (index + 1) / self.steps_per_epoch, 4),
                    loss=loss,
                    lr=rate,
                    grad_norm=gradient,
                    data_time=round(data_time, 4),
                    step_time=round(step_time, 4),
                    clips_per_second=round(len(batch.clips) / step_time, 2),
                )
            mark = time.perf_counter()

    def _train_step(self, batch: Batch, rate: float) -> tuple[float, float]:
        """Forward, backward and update on one batch; returns the loss and the gradient's norm."""
        cfg, device = self.cfg, self.process.device
        clips = normalize(batch.clips.to(device, non_blocking=True), cfg.DATA.MEAN, cfg.DATA.STD)
        labels = batch.labels.to(device)
        if self.mixup is not None:
            clips, labels = self.mixup(clips, labels)
        set_learning_rate(self.optimizer, rate)
        share = self.train_step.backward(clips, labels)
        loss = self.process.total(share).item()
        if not math.isfinite(loss):
            self._refuse("loss", loss, batch)
        norm = self.train_step.clip_gradients()
        if not math.isfinite(norm) and not self.scaler.is_enabled():
            self._refuse("gradient", norm, batch)
        self.train_step.update()
        self.step += 1
        if self.average is not None:
            self.average.update(self.model, self.step)
        return loss, norm

    def _refuse(self, what: str, value: float, batch: Batch) -> None:
        """Stop on all processes before the weights change."""
        videos = sorted(set().union(*self.process.gather(batch.videos.tolist())))
        paths = self.loader.dataset.paths
        raise TrainingError(
            f"the {what} is {value} in step {self.step + 1} (epoch {self.epoch + 1}); the last "
            f"checkpoint is untouched; the videos were {', '.join(paths[v] for v in videos)}"
        )

    def _validate(self, log: RunLog) -> None:
        """Record the accuracy of the weights ("val") and of their averages ("val_ema")."""
        self._validate_weights(log, "val")
        if self.average is not None:
            with self.average.applied_to(self.model):
                self._validate_weights(log, "val_ema")

    def _validate_weights(self, log: RunLog, kind: str) -> None:
        cfg = self.cfg
        result = evaluate(
            self.model,
            self.val_loader,
            self.process,
            mean=cfg.DATA.MEAN,
            std=cfg.DATA.STD,
            max_clips=cfg.TEST.BATCH_SIZE,
            dtype=self.dtype,
            title="validate",
        )
        values = {
            "epoch": self.epoch,
            "loss": result.loss(),
            "top1": 100 * result.accuracy(1),
            "top5": 100 * result.accuracy(5),
        }
        log.write(kind, self.step, **values)
        logger.info(
            "epoch %d: validation%s top-1 %.2f, top-5 %.2f, loss %.3f over %d videos (%d failed)",
            self.epoch,
            " of the averaged weights" if kind == "val_ema" else "",
            values["top1"],
            values["top5"],
            values["loss"],
            len(result.videos),
            len(result.failures),
        )

    def _save(self) -> Path | None:
        path = None
        if self.process.is_main:
            path = save_training_state(
                self.cfg.OUTPUT_DIR,
                self.epoch,
                step=self.step,
                model=self.model,
                optimizer=self.optimizer,
                scaler=self.scaler,
                average=self.average,
                config=self.cfg.dump(),
                class_names=self.class_names,
                keep=self.cfg.TRAIN.KEEP_CHECKPOINTS,
            )
        self.process.barrier()
        return path
