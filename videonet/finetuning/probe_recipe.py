"""The recipe "probe" in the folder of a run: files of a test, a model, and what was compared."""

from __future__ import annotations

import hashlib
import json
import logging
import signal
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from fvcore.common.config import CfgNode

from videonet.data.texts import read_text
from videonet.engine.distributed import process
from videonet.engine.lock import only_run_in
from videonet.engine.probing import Probed
from videonet.engine.results import withdraw_results, write_results
from videonet.errors import ConfigError, Interrupted
from videonet.files import replacing_text, writing
from videonet.finetuning.features import FEATURES
from videonet.finetuning.probing import Fitted, fit_probes, save_model, write_tried
from videonet.tasks.class_scores import ClassScores
from videonet.terminal import start_logging

logger = logging.getLogger(__name__)

COMPARED = "probe.json"  # the classifiers, written last
UNSEEN = "unseen"  # folder of the results on training videos by classifiers that had not seen them


@dataclass(frozen=True)
class Compared:
    """A classifier among others.

    Attributes:
        method: attentive, statistics, linear or knn.
        setting: that was chosen for it.
        held_out: its accuracy in percent on training videos, by classifiers without them.
        right: held-out videos that it recognises.
        used: it is the model's.
    """

    method: str
    setting: dict[str, Any]
    held_out: float
    right: int
    used: bool


@dataclass(frozen=True)
class Comparison:
    """What ``probe.json`` holds.

    Attributes:
        classifiers: those that were compared.
        train, val: the number of videos.
        folds: parts of the training videos that were held out, one after the other.
    """

    classifiers: Sequence[Compared]
    train: int
    val: int
    folds: int

    @property
    def used(self) -> Compared:
        """The classifier of the model."""
        return next(one for one in self.classifiers if one.used)


def run_recipe(cfg: CfgNode, *, quiet: bool = False, model: bool = True) -> None:
    """Compute features, train classifiers, and write the results and the model of the best.

    What is there already is not computed again.

    Args:
        cfg: a complete configuration.
        quiet: show warnings alone; ``log.txt`` holds everything all the same.
        model: whether the model is saved.

    Raises:
        DataError: the videos cannot be used.
        ConfigError: no classifier is asked for that a model may have.
        Interrupted: by Ctrl-C; the features are kept.
    """
    folder, mark = Path(cfg.OUTPUT_DIR), _mark(cfg)
    if set(cfg.PROBE.METHODS) == {"knn"}:
        raise ConfigError(
            f"PROBE.METHODS is {list(cfg.PROBE.METHODS)}: a model needs attentive, statistics or "
            "linear"
        )
    with process(cfg.DEVICE, cfg.DIST_BACKEND, quiet=quiet) as this, only_run_in(folder, this):
        start_logging(folder, quiet=quiet)
        if _read(folder).get("mark") == mark:
            logger.info("%s: the classifiers have been trained", folder)
            return
        try:
            fitted = fit_probes(cfg, validated=cfg.TEST.ENABLE, progress=not quiet)
        except KeyboardInterrupt:
            place = cfg.PROBE.FEATURES or folder / FEATURES
            raise Interrupted(
                f"the features that were computed are in {place}; the same command goes on",
                signal.SIGINT,
            ) from None
        _write(fitted, mark, model=model)


def _mark(cfg: CfgNode) -> str:
    return hashlib.blake2b(cfg.dump().encode(), digest_size=8).hexdigest()


def _read(folder: Path) -> dict[str, Any]:
    path = folder / COMPARED
    return json.loads(read_text(path, "comparison of classifiers")) if path.is_file() else {}


def read_comparison(folder: Path) -> Comparison | None:
    """The classifiers that were compared in a folder; None where there were none."""
    found = _read(folder)
    if not found:
        return None
    classifiers = [Compared(**row) for row in found["classifiers"]]
    return Comparison(classifiers, found["train"], found["val"], found["folds"])


def _write(fitted: Fitted, mark: str, *, model: bool) -> None:
    """The files of a test, then the model, then what was compared."""
    cfg, best = fitted.task.cfg, fitted.best
    assert best is not None
    folder = Path(cfg.OUTPUT_DIR)
    with writing(folder / COMPARED):  # those of before are as they were until here
        (folder / COMPARED).unlink(missing_ok=True)
    withdraw_results(folder)
    if len(fitted.val):
        details = {"classifier": best.method, "views": _views(cfg)}
        write_results(
            folder, _held_out(fitted, best), fitted.task, paths=fitted.val_paths, details=details
        )
    places = torch.arange(len(fitted.train))
    unseen = ClassScores(places, fitted.train.labels, best.judged)
    (folder / UNSEEN).mkdir(exist_ok=True)
    fitted.task.write(folder / UNSEEN, unseen, fitted.train_paths)
    write_tried(folder, fitted.found)
    if model:
        save_model(fitted, best)
    labels = fitted.val.labels
    compared = [
        Compared(
            one.method,
            one.chosen,
            one.held_out,
            int((one.scores.argmax(dim=1) == labels).sum()),
            one is best,
        )
        for one in fitted.found
    ]
    content = Comparison(
        compared, len(fitted.train), len(fitted.val), int(fitted.folds.max()) + 1
    )  # fmt: skip
    with replacing_text(folder / COMPARED) as file:
        file.write(json.dumps({"mark": mark, **asdict(content)}, indent=1) + "\n")


def _views(cfg: CfgNode) -> str:
    return f"{cfg.TEST.NUM_ENSEMBLE_VIEWS} x {cfg.TEST.NUM_SPATIAL_CROPS}"


def _held_out(fitted: Fitted, best: Probed) -> ClassScores:
    places, failures = torch.tensor(list(fitted.seen)), fitted.extraction.failures
    return ClassScores(places, fitted.val.labels, best.scores, failures)
