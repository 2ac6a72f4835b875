"""Frozen features of a data set, classifiers on them, and the best of these as a model."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fvcore.common.config import CfgNode

from videonet.config import load_config, load_config_text, save_config
from videonet.data.datasets.lists import VideoList
from videonet.data.folds import divide, groups_of, read_groups
from videonet.data.loading.build import read_videos
from videonet.data.tables import write_table
from videonet.engine.probing import (
    PROBES,
    FrozenVideos,
    Probed,
    probe_attentive,
    probe_statistics,
)
from videonet.errors import ConfigError
from videonet.files import make_folder, replacing_text
from videonet.finetuning.features import Extraction, head_arguments, with_model
from videonet.inference.predictor import Predictor
from videonet.inference.pretrained import read_pretrained
from videonet.tasks import Task, build_task
from videonet.terminal import ShortRepr, start_logging

logger = logging.getLogger(__name__)

MODEL, RESULTS, TABLE, SCORES = "model", "results.json", "probe.csv", "scores.csv"


def load_probe_config(cfg: str | None, checkpoint: str | None, overrides: Sequence[str]) -> CfgNode:
    """The configuration of a probe.

    Args:
        cfg: a YAML file; None for that of the checkpoint.
        checkpoint: whose configuration and weights are taken; None with a file.
        overrides: ``KEY VALUE`` pairs on top.

    Raises:
        ConfigError, CheckpointError: they cannot be used.
    """
    if cfg is not None:
        return load_config(cfg, overrides)
    assert checkpoint is not None
    _, of_checkpoint, origin = read_pretrained(checkpoint, None, ())
    own = [
        *("MODEL.NUM_CLASSES", "0", "DATA.CLASS_NAMES", "", "TRAIN.CHECKPOINT_FILE_PATH"),
        *(str(checkpoint), "OUTPUT_DIR", "."),
        *("MODEL.HEAD", "linear", "MODEL.HEAD_ARGUMENTS", "{}", "MODEL.LORA.RANK", "0"),
    ]
    return load_config_text(of_checkpoint.dump(), [*own, *overrides], name=f"{origin} (cfg)")


@dataclass(frozen=True, repr=False)
class Fitted(ShortRepr):
    """Classifiers on the frozen features of a data set.

    Attributes:
        task: with the configuration and the names of the classes.
        extraction: the backbone.
        found: the classifiers, in the order of ``PROBE.METHODS``.
        train, val: the features; `val` is empty where no videos are held out.
        folds: the part that each training video was held out with.
        train_paths: of the videos of `train`.
        val_paths: of all videos of the validation list.
        seen: places in it of the videos of `val`.
    """

    task: Task
    extraction: Extraction
    found: Sequence[Probed]
    train: FrozenVideos
    val: FrozenVideos
    folds: np.ndarray
    train_paths: Sequence[str]
    val_paths: Sequence[str]
    seen: Sequence[int]

    @property
    def names(self) -> list[str]:
        """Of the classes."""
        return list(self.task.names or ())

    @property
    def best(self) -> Probed | None:
        """The classifier that can be a model's head and did best on held-out training videos."""
        heads = [one for one in self.found if one.state is not None]
        return max(heads, key=lambda one: one.held_out, default=None)


def fit_probes(cfg: CfgNode, *, validated: bool = True, progress: bool = True) -> Fitted:
    """Compute features, and train the classifiers on those of the training videos.

    Args:
        cfg: the configuration; ``config.yaml`` in ``OUTPUT_DIR`` keeps it.
        validated: False without a validation list.
        progress: show progress bars.

    Raises:
        DataError: the data cannot be used.
        ConfigError: the videos have no label each.
    """
    task = build_task(cfg)
    cfg, names = task.cfg, list(task.names or ())
    if cfg.MODEL.TASK != "classification" or cfg.TRAIN.DATASET == "multilabel":
        raise ConfigError("probes are for videos with one label each (MODEL.TASK classification)")
    make_folder(Path(cfg.OUTPUT_DIR))
    save_config(cfg, Path(cfg.OUTPUT_DIR) / "config.yaml")
    extraction = Extraction(cfg, names, progress=progress)
    videos = read_videos(cfg, "train")
    train, kept = extraction.training(videos)
    val, val_paths = _nothing_of(train), list[str]()
    seen: list[int] = []
    if validated:
        held_out = read_videos(cfg, "val")
        val, seen = extraction.validation(held_out)
        val_paths = list(held_out.paths)
    folds = _folds(cfg, videos, kept)
    heads = head_arguments(extraction.model, cfg) if train.tokens else {}
    found, videos_of = [], (train, val, folds, len(names))
    for method in cfg.PROBE.METHODS:
        if method == "attentive":
            found.append(probe_attentive(*videos_of, cfg, heads[method], progress=progress))
        elif method == "statistics":
            found.append(probe_statistics(*videos_of, cfg.PROBE, heads[method]))
        else:
            found.append(PROBES[method](*videos_of, cfg.PROBE))
        logger.info(
            "%s: %.1f %% of the held-out training videos with %s, %.1f %% of the validation videos",
            *(method, found[-1].held_out, found[-1].chosen, found[-1].accuracy),
        )
    paths = [videos.paths[index] for index in kept]
    return Fitted(
        task, extraction, found, train, val, folds, paths, val_paths, seen
    )  # fmt: skip


def _nothing_of(train: FrozenVideos) -> FrozenVideos:
    """Features of the same shapes of no video."""
    vectors, tokens = train.vectors[0][:0], [each[:0] for each in train.tokens[:1]]
    return FrozenVideos(train.labels[:0], [vectors], tokens)


def run_probe(cfg: CfgNode) -> dict[str, Any]:
    """Compute features, train the classifiers, and write model and results to ``OUTPUT_DIR``.

    Args:
        cfg: the configuration.

    Returns:
        What ``results.json`` holds.

    Raises:
        DataError: the data cannot be used.
    """
    folder = Path(cfg.OUTPUT_DIR)
    start_logging(folder)
    fitted = fit_probes(cfg)
    results: dict[str, Any] = {
        "train_videos": len(fitted.train),
        "val_videos": len(fitted.val),
        "folds": len(np.unique(fitted.folds)),
        **{
            one.method: {"top1": one.accuracy, "held_out": one.held_out, "chosen": one.chosen}
            for one in fitted.found
        },
    }
    if fitted.best is not None:
        results["model"] = str(save_model(fitted, fitted.best))
    write_tried(folder, fitted.found)
    _write(folder, fitted, results)
    return results


def _folds(cfg: CfgNode, videos: VideoList, kept: Sequence[int]) -> np.ndarray:
    """The part that each training video is held out with."""
    paths = [videos.paths[index] for index in kept]
    options = cfg.PROBE
    if options.GROUPS:
        table = Path(options.GROUPS)
        table = table if table.exists() else Path(cfg.DATA.PATH_TO_DATA_DIR) / options.GROUPS
        groups = groups_of(paths, read_groups(table, options.GROUP_COLUMN), str(table))
        logger.info("%d videos in %d groups of %s", len(paths), len(set(groups)), table)
    else:
        logger.info("every video is held out on its own: PROBE.GROUPS says which belong together")
        groups = list(paths)
    labels = [int(videos.labels[index]) for index in kept]
    return divide(labels, groups, options.FOLDS, cfg.RNG_SEED)


def save_model(fitted: Fitted, best: Probed) -> Path:
    """The backbone with a classifier, as a folder that ``Predictor.from_pretrained`` takes.

    Args:
        fitted: the backbone; its classifier is replaced.
        best: a classifier that can be a model's head.

    Returns:
        The folder, ``model`` in ``OUTPUT_DIR``.
    """
    names, options = fitted.names, dict(best.head)
    cfg = with_model(
        fitted.task.cfg,
        HEAD=best.method,
        HEAD_ARGUMENTS=CfgNode(options),
        NUM_CLASSES=len(names),
    )
    model = fitted.extraction.model
    model.reset_classifier(len(names))
    if best.method != "linear":
        model.use_head(best.method, **options)
    assert best.state is not None
    model.head.load_state_dict(best.state)
    predictor = Predictor(model, cfg, names)
    predictor.origin = str(Path(cfg.OUTPUT_DIR))
    return predictor.save_pretrained(Path(cfg.OUTPUT_DIR) / MODEL)


def write_tried(folder: Path, found: Sequence[Probed]) -> None:
    """Write ``probe.csv``: every setting that was tried."""
    rows = [
        [one.method, *(json.dumps({k: v for k, v in row.items() if k not in ("held_out", "loss")}),
                       row["held_out"], row["loss"])]
        for one in found for row in one.tried
    ]  # fmt: skip
    write_table(folder / TABLE, ("method", "setting", "held_out", "loss"), rows)


def _write(folder: Path, fitted: Fitted, results: dict[str, Any]) -> None:
    """``results.json``, and the scores of the validation videos."""
    names, labels = fitted.names, fitted.val.labels.tolist()
    paths = [fitted.val_paths[index] for index in fitted.seen]
    scores = [
        [one.method, path, names[label], names[int(row.argmax())], f"{float(row.max()):.4f}"]
        for one in fitted.found
        for path, label, row in zip(paths, labels, one.scores, strict=True)
    ]
    write_table(folder / SCORES, ("method", "video", "class", "predicted", "score"), scores)
    with replacing_text(folder / RESULTS) as file:
        file.write(json.dumps(results, indent=2) + "\n")
