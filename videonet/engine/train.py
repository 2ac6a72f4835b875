"""Training: epochs of steps, with validation, checkpoints and a record of everything."""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml
from fvcore.common.config import CfgNode
from torch import Tensor

from videonet.checkpoint import write_checkpoint
from videonet.checkpoint.adapters import SCALE
from videonet.checkpoint.checkpoint_dir import checkpoint_path, remove_old, saved_checkpoints
from videonet.checkpoint.sharded import write_sharded
from videonet.config import save_config
from videonet.data import Batch, VideoLoader, build_loader
from videonet.data.loading.loader import positions
from videonet.data.targets import Targets
from videonet.data.transforms.batch import normalize
from videonet.devices import autocast_dtype
from videonet.engine.adapters import adapter_scale
from videonet.engine.batch_norm import (
    average_statistics,
    batch_norms,
    precise_statistics,
    synchronize,
)
from videonet.engine.compiling import training_forward
from videonet.engine.data_check import check_data
from videonet.engine.distributed import Process
from videonet.engine.draws import ClipDraws, StepShare, step_seed
from videonet.engine.evaluate import evaluate
from videonet.engine.finetune import train_mode
from videonet.engine.lock import only_run_in
from videonet.engine.metric_logger import MetricLogger, read_log
from videonet.engine.optim import learning_rate, lr_factor, set_learning_rate
from videonet.engine.parallel import averaging_gradients, gathered, is_sharded
from videonet.engine.plots import plot_learning_curve
from videonet.engine.results import list_fingerprint
from videonet.engine.setup import build_model, start_state
from videonet.engine.signals import StopSignals
from videonet.engine.state import Position
from videonet.engine.step import TrainingStep
from videonet.engine.step_numbers import StepNote, StepNumbers, StepResult
from videonet.engine.timing import StepTimer, peak_memory
from videonet.errors import DataError, Interrupted, TrainingError, WriteError
from videonet.tasks import build_task
from videonet.terminal import logs_above_bars, progress_bar

if TYPE_CHECKING:
    from tqdm import tqdm

logger = logging.getLogger(__name__)


class _StopRequested(Exception):
    """A process received a signal while statistics were measured."""


class Trainer:
    """One training run as a configuration describes it, on this process's share of the data.

    Args:
        cfg: the configuration.
        process: this process.
    """

    def __init__(self, cfg: CfgNode, process: Process):
        self.task = build_task(cfg)
        cfg = self.task.cfg
        self.cfg, self.process = cfg, process
        self.folder = Path(cfg.OUTPUT_DIR)
        check_data(cfg, process)
        self.loader = self._loader("train")
        self.val_loader = self._loader("val") if cfg.TRAIN.EVAL_PERIOD > 0 else None
        self.steps_per_epoch = len(self.loader)
        self.facts = self._facts()

        self.model = build_model(cfg, process, self.task)
        self.dtype = autocast_dtype(cfg, process.device)
        if cfg.TRAIN.MIXED_PRECISION and self.dtype is None:
            logger.info("mixed precision is not used on %s", process.device)
        self.stop, self.timer = StopSignals(), StepTimer()
        self.numbers: StepNumbers[StepNote] = StepNumbers(process.device)
        self.known = StepResult()  # of the newest step whose numbers have arrived
        with only_run_in(self.folder, process):
            self.state = start_state(cfg, process, self.model, self.task, self.dtype, self.facts)
        self._prepare_steps()

    def _facts(self) -> dict[str, Any]:
        """What is kept in checkpoints, and compared when the run is resumed."""
        loaders = {"train": self.loader, "val": self.val_loader}
        return {
            **({} if self.task.names is None else {"class_names": list(self.task.names)}),
            "data": {
                split: list_fingerprint(loader.dataset)
                for split, loader in loaders.items()
                if loader is not None
            },
            "steps_per_epoch": self.steps_per_epoch,
            "processes": self.process.world_size,
            **({SCALE: adapter_scale(self.cfg.MODEL.LORA)} if self.cfg.MODEL.LORA.RANK else {}),
        }

    def _prepare_steps(self) -> None:
        """Share the clips of a step out over processes and parts, and build the step."""
        cfg, process = self.cfg, self.process
        videos = min(cfg.TRAIN.BATCH_SIZE, len(self.loader.dataset))
        clips = videos * cfg.AUG.NUM_SAMPLE
        places = positions(videos, process.world_size)
        self.share = StepShare(process, places, cfg.AUG.NUM_SAMPLE)
        self.draws = ClipDraws(clips)
        self.draws.attach(self.model)
        # Layers that exchange data between processes need the same number of parts on all of them.
        parts = min(cfg.TRAIN.GRAD_ACCUM_STEPS, cfg.AUG.NUM_SAMPLE * min(map(len, places)))
        self._prepare_batch_norms(clips, parts)
        module = averaging_gradients(self.model, process)
        self.train_step = TrainingStep(
            module,
            self.state.optimizer,
            self.state.scaler,
            process,
            clips_per_step=clips,
            loss=self.task.loss,
            parts=parts,
            dtype=self.dtype,
            clip_norm=cfg.SOLVER.CLIP_GRAD_L2NORM,
            clip_value=cfg.SOLVER.CLIP_GRAD_VAL,
            draws=self.draws,
            forward=training_forward(self.model, module, cfg, process),
            run=self.task.run_in_training,
        )
        self.lr_factor = lr_factor(cfg, clips)
        logger.info(
            "%d videos a step, %d clips; learning rate %.3g x %.3g",
            videos,
            clips,
            cfg.SOLVER.BASE_LR,
            self.lr_factor,
        )

    def _prepare_batch_norms(self, clips: int, parts: int) -> None:
        """Synchronise the batch norms if so configured, and log which clips they see."""
        count, processes = len(batch_norms(self.model)), self.process.world_size
        if not count:
            return
        together = self.cfg.BN.SYNC or processes == 1
        if processes > 1 and together:
            synchronize(self.model)
        seen = clips / parts / (1 if together else processes)
        if seen < clips:
            logger.warning(
                "the %d batch norms see %.4g of the %d clips of a step at a time "
                "(TRAIN.GRAD_ACCUM_STEPS %d, BN.SYNC %s, %d processes), so the losses are not "
                "those of the whole step",
                *(count, seen, clips, parts, self.cfg.BN.SYNC, processes),
            )
        elif processes > 1:
            logger.info("%d batch norms see the clips of all %d processes", count, processes)

    def _loader(self, split: str) -> VideoLoader:
        process = self.process
        return build_loader(
            self.cfg,
            split,
            annotate=self.task.annotate,
            rank=process.rank,
            world_size=process.world_size,
        )

    @property
    def position(self) -> Position:
        """How far the run is."""
        return self.state.position

    def run(self) -> Path | None:
        """Train to the last epoch.

        Returns:
            The last checkpoint; None if nothing was left to train.

        Raises:
            Interrupted: a signal asked to stop; the state is saved.
            TrainingError: the loss is not finite, or there is no room on the disk.
            ConfigError: another process is at work in ``OUTPUT_DIR``.
        """
        cfg, main = self.cfg, self.process.is_main
        bar = progress_bar(
            show=self.process.shows_progress,
            total=cfg.SOLVER.MAX_EPOCH * self.steps_per_epoch,
            initial=self.position.step,
            desc="train",
            unit="steps",
            smoothing=0.1,
        )
        with only_run_in(self.folder, self.process):
            try:
                with self._log() as log, self.stop, logs_above_bars(), bar:
                    path = self._run_epochs(bar, log)
                    self._stop_after_the_end()
            except (OSError, WriteError) as error:
                raise TrainingError(
                    f"the run cannot go on: {error}; the checkpoints in {self.folder} are untouched"
                ) from error
            if main and path is not None:
                plot_learning_curve(
                    read_log(self.folder / "log.jsonl"), self.folder / "learning_curve.png"
                )
        return path

    def _log(self) -> contextlib.closing[MetricLogger]:
        cfg, main = self.cfg, self.process.is_main
        board = cfg.TENSORBOARD.LOG_DIR or str(self.folder / "tensorboard")
        if main:
            save_config(cfg, self.folder / "config.yaml")
        log = MetricLogger(
            self.folder,
            tensorboard=board if cfg.TENSORBOARD.ENABLE else None,
            wandb=cfg.WANDB.PROJECT if cfg.WANDB.ENABLE else None,
            config=yaml.safe_load(cfg.dump()),
            enabled=main,
        )
        return contextlib.closing(log)

    def _run_epochs(self, bar: tqdm, log: MetricLogger) -> Path | None:
        cfg, path = self.cfg.TRAIN, None
        last_epoch = self.cfg.SOLVER.MAX_EPOCH
        while self.position.epoch < last_epoch:
            self._train_epoch(bar, log)
            finished = self.position.epoch + 1
            last = finished == last_epoch
            validate = self.val_loader is not None and (last or finished % cfg.EVAL_PERIOD == 0)
            save = last or finished % cfg.CHECKPOINT_PERIOD == 0
            if (validate or save) and not self._make_statistics_precise(finished):
                self._save_and_stop()
            try:
                if validate and not self._validate(log, finished):
                    self._save_and_stop()
            except (DataError, TrainingError):
                self._end_epoch(finished, save=True)  # the epoch is trained, though not validated
                raise
            path = self._end_epoch(finished, save=save) or path
        return path

    def _end_epoch(self, finished: int, *, save: bool) -> Path | None:
        self.position.epoch, self.position.batch = finished, 0
        return self._save() if save else None

    def _train_epoch(self, bar: tqdm, log: MetricLogger) -> None:
        """The rest of an epoch, from the position on."""
        position, period = self.position, self.cfg.TRAIN.CHECKPOINT_STEPS
        train_mode(self.model)
        self.loader.set_position(position.epoch, position.batch)
        self.timer.start()
        for batch in self.loader:
            waited = self.timer.data_ready()
            rate = self.lr_factor * learning_rate(
                self.cfg.SOLVER, position.epoch + position.batch / self.steps_per_epoch
            )
            log_now = (position.step + 1) % self.cfg.LOG_PERIOD == 0
            self._train_step(batch, rate, log_now)
            self.timer.step_done()
            bar.update()
            loss = self.known.loss  # NaN before the first one has arrived
            shown = f"{loss:.3f}" if math.isfinite(loss) else "…"
            bar.set_postfix(loss=shown, lr=f"{rate:.1e}", data=f"{waited:.2f}s")
            if log_now:
                log.write(
                    "train",
                    position.step,
                    epoch=round(position.epoch + position.batch / self.steps_per_epoch, 4),
                    loss=loss,
                    lr=rate,
                    grad_norm=self.known.norm,
                    memory_gib=round(peak_memory(self.process.device), 3),
                    **self.known.losses,
                    **self.timer.record(self.train_step.clips_per_step),
                )
            if self.known.stop:
                self._save_and_stop()
            if period and position.step % period == 0 and position.batch < self.steps_per_epoch:
                self._save()
                self.timer.start()
        self._read_numbers(everything=True)
        if self.known.stop:
            self._save_and_stop()

    def _train_step(self, batch: Batch, rate: float, wait: bool) -> None:
        """Forward, backward and update on one batch.

        Args:
            batch: of this process.
            rate: the learning rate.
            wait: for the numbers of this step; else those of the step before may do.
        """
        cfg, device, position = self.cfg, self.process.device, self.position
        clips = normalize(batch.clips.to(device, non_blocking=True), cfg.DATA.MEAN, cfg.DATA.STD)
        targets = batch.targets.to(device)
        seed = step_seed(cfg.RNG_SEED, position.step)
        if self.task.mixing is not None:
            torch.manual_seed(seed)  # the same draw on all processes
            clips, targets = self.task.mixing(clips, targets, self.share.partners)
        set_learning_rate(self.state.optimizer, rate)
        share = self.train_step.backward(clips, targets, self.share.rows, seed)
        asked = torch.full_like(share, float(self.stop.received > 0))
        named = self.train_step.losses
        parts = [value.to(share) for value in named.values()]
        loss, stop, *parts = self.process.total(torch.stack((share, asked, *parts)))
        norm = self.train_step.clip_gradients()
        place = position.step + 1, position.epoch + 1
        note = StepNote(*place, rate, batch.videos, tuple(named))
        self.numbers.put(torch.stack((loss, stop, norm.to(loss), *parts)), note)
        self._read_numbers(everything=wait)
        self.train_step.update()
        position.step += 1
        position.batch += 1
        if self.state.average is not None:
            self.state.average.update(self.model, position.step)

    def _read_numbers(self, *, everything: bool) -> None:
        """Note the numbers of steps that have arrived.

        Raises:
            TrainingError: a loss or a gradient is not finite; the same on all processes.
        """
        for (loss, stop, norm, *parts), note in self.numbers.arrived(everything=everything):
            if not math.isfinite(loss):
                self._refuse("loss", loss, note)
            if not math.isfinite(norm) and not self.state.scaler.is_enabled():
                self._refuse("norm of the gradient", norm, note)
            self.known = StepResult(
                loss, norm, stop > 0, dict(zip(note.losses, parts, strict=True))
            )

    def _refuse(self, what: str, value: float, step: StepNote) -> None:
        """Raise the same error on all processes, before anything is saved."""
        videos = sorted(set().union(*self.process.gather(step.videos.tolist())))
        paths = self.loader.dataset.paths
        saved = saved_checkpoints(self.cfg.OUTPUT_DIR)
        raise TrainingError(
            f"the {what} is {value} in step {step.number} (epoch {step.epoch}, learning rate "
            f"{step.rate:.3g}); the last good checkpoint is {saved[-1] if saved else 'none'}; the "
            f"videos were {', '.join(paths[v] for v in videos)}"
        )

    def _save_and_stop(self) -> None:
        """Called by all processes together once any of them was asked to stop."""
        number = max(self.process.gather(self.stop.received))
        path = self._save()
        raise Interrupted(
            f"{signal.Signals(number).name} after {self.position.step} steps; the same command "
            f"goes on from {path}",
            number,
        )

    def _make_statistics_precise(self, epoch: int) -> bool:
        """Make the running statistics the same on all processes, and precise if so configured.

        Returns:
            False if a signal asked to stop.
        """
        average = self.state.average
        average_statistics(self.model, average.state if average else None, self.process)
        if not self.cfg.BN.USE_PRECISE_STATS or not batch_norms(self.model):
            return True
        try:
            self._measure_statistics(epoch)
            if average is not None:
                with average.applied_to(self.model):
                    self._measure_statistics(epoch)
                    average.load(self.model.state_dict())
        except _StopRequested:
            return False
        finally:
            self.draws.end()
        return True

    def _measure_statistics(self, epoch: int) -> None:
        train_mode(self.model)
        with torch.autocast(
            self.process.device.type, dtype=self.dtype, enabled=self.dtype is not None
        ):
            precise_statistics(
                self.model,
                self._batches_to_measure(epoch),
                lambda batch: self.task.run_in_training(self.model, *batch),
                self.process,
            )

    def _batches_to_measure(self, epoch: int) -> Iterator[tuple[Tensor, Targets]]:
        """The first clips of the next epoch, as they are trained on but unmixed."""
        cfg = self.cfg
        number = min(cfg.BN.NUM_BATCHES_PRECISE, self.steps_per_epoch)
        self.loader.set_position(epoch)
        with contextlib.closing(iter(self.loader)) as batches:
            for k, batch in enumerate(itertools.islice(batches, number)):
                asked = torch.tensor(float(self.stop.received > 0), device=self.process.device)
                if self.process.total(asked):
                    raise _StopRequested
                self.draws.begin(self.share.rows, step_seed(cfg.RNG_SEED, epoch, k))
                clips = batch.clips.to(self.process.device, non_blocking=True)
                targets = batch.targets.to(self.process.device)
                yield normalize(clips, cfg.DATA.MEAN, cfg.DATA.STD), targets

    def _validate(self, log: MetricLogger, epoch: int) -> bool:
        """Record the measures of the weights ("val") and of their averages ("val_ema").

        Returns:
            False if a signal asked to stop.
        """
        done = self._validate_weights(log, epoch, "val")
        if done and self.state.average is not None:
            with self.state.average.applied_to(self.model):
                done = self._validate_weights(log, epoch, "val_ema")
        return done

    def _validate_weights(self, log: MetricLogger, epoch: int, kind: str) -> bool:
        cfg = self.cfg
        assert self.val_loader is not None
        with gathered(self.model):
            result = evaluate(
                self.model,
                self.val_loader,
                self.process,
                self.task,
                mean=cfg.DATA.MEAN,
                std=cfg.DATA.STD,
                max_clips=cfg.TEST.BATCH_SIZE,
                dtype=self.dtype,
                title="validate",
                stop=self.stop,
            )
        if result is None:
            return False
        values = result.measures()
        counts = {"videos": len(result.videos), "failed": len(result.failures)}
        log.write(kind, self.position.step, epoch=epoch, **values, **counts)
        share = len(result.failures) / sum(counts.values())
        if share > cfg.TEST.MAX_BAD_SHARE:
            logger.warning(
                "%d of %d validation videos cannot be read, more than TEST.MAX_BAD_SHARE = %g: the "
                "validation says little; the first: %s",
                *(counts["failed"], sum(counts.values()), cfg.TEST.MAX_BAD_SHARE),
                result.failures[0].reason,
            )
        logger.info(
            "epoch %d: validation%s %s over %d videos (%d failed)",
            epoch,
            " of the averaged weights" if kind == "val_ema" else "",
            ", ".join(f"{key} {value:.3f}" for key, value in values.items()),
            len(result.videos),
            len(result.failures),
        )
        return True

    def _stop_after_the_end(self) -> None:
        """Raise Interrupted for a signal that came after the last step was saved."""
        number = max(self.process.gather(self.stop.received))
        if number:
            raise Interrupted(
                f"{signal.Signals(number).name} after the last step; the training is complete, and "
                f"the same command goes on with the test",
                number,
            )

    def _save(self) -> Path:
        """Write the state; called by all processes together. Returns the file."""
        self._read_numbers(everything=True)
        cfg, position, average = self.cfg, self.position, self.state.average
        average_statistics(self.model, average.state if average else None, self.process)
        sharded = is_sharded(self.model)
        within = position.step if position.batch else None
        path = checkpoint_path(cfg.OUTPUT_DIR, position.epoch, within, sharded=sharded)
        content = self.state.content() | self.facts | {"cfg": cfg.dump()}
        if sharded:
            write_sharded(path, content)
        elif self.process.is_main:
            write_checkpoint(path, content)
        if self.process.is_main:
            remove_old(cfg.OUTPUT_DIR, cfg.TRAIN.KEEP_CHECKPOINTS)
        self.process.barrier()
        return path
