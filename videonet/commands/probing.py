"""Frozen features of a data set, classifiers on them, and the best of these as a model."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fvcore.common.config import CfgNode

from videonet.checkpoint.checkpoint_dir import newest_checkpoint
from videonet.config import load_config, load_config_text, save_config
from videonet.config.arguments import without_nodes
from videonet.data.datasets.lists import VideoList
from videonet.data.feature_store import FeatureWriter, VideoFeatures, read_features
from videonet.data.folds import divide, groups_of, read_groups
from videonet.data.loading.build import read_videos, training_clips
from videonet.data.tables import write_table
from videonet.engine.probing import PROBES, FrozenVideos, Probed, probe_attentive
from videonet.errors import ConfigError, DataError
from videonet.files import make_folder, replacing_text
from videonet.inference.extraction import ClipsOf, describe_features, extract_features
from videonet.inference.predictor import Predictor
from videonet.inference.pretrained import read_pretrained
from videonet.inference.run import Options
from videonet.inference.sources import Source
from videonet.models.base import VideoModel
from videonet.models.weights import load_weights
from videonet.ops.grid import volume
from videonet.tasks import build_task
from videonet.terminal import start_logging

logger = logging.getLogger(__name__)

MODEL, RESULTS, TABLE, SCORES = "model", "results.json", "probe.csv", "scores.csv"
# What augmented clips depend on beside what the views of testing do.
AUGMENTATION = (
    *("TRAIN_CROP_SIZE", "TRAIN_JITTER_SCALES", "TRAIN_JITTER_SCALES_RELATIVE"),
    *("TRAIN_JITTER_ASPECT_RELATIVE", "INV_UNIFORM_SAMPLE", "RANDOM_FLIP"),
)


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
    task = build_task(cfg)
    cfg, names = task.cfg, list(task.names or ())
    if cfg.MODEL.TASK != "classification" or cfg.TRAIN.DATASET == "multilabel":
        raise ConfigError("probes are for videos with one label each (MODEL.TASK classification)")
    make_folder(folder)
    save_config(cfg, folder / "config.yaml")
    extraction = _Extraction(cfg, names)
    lists = {split: read_videos(cfg, split) for split in ("train", "val")}
    train, kept = extraction.training(lists["train"])
    val, seen = extraction.validation(lists["val"])
    folds = _folds(cfg, lists["train"], kept)
    head = extraction.head() if train.tokens else {}
    found = []
    for method in cfg.PROBE.METHODS:
        if method == "attentive":
            found.append(probe_attentive(train, val, folds, len(names), cfg, head))
        else:
            found.append(PROBES[method](train, val, folds, len(names), cfg.PROBE))
        logger.info(
            "%s: %.1f %% of the held-out training videos with %s, %.1f %% of the validation videos",
            *(method, found[-1].held_out, found[-1].chosen, found[-1].accuracy),
        )
    results = _results(found, train, val, len(np.unique(folds)))
    best = _best_head(found)
    if best is not None:
        results["model"] = str(_save(cfg, extraction, best, head, names))
    paths = [lists["val"].paths[index] for index in seen]
    _write(folder, found, paths, names, val.labels.tolist(), results)
    return results


class _Extraction:
    """The backbone of a configuration, and the features of lists of videos by it."""

    def __init__(self, cfg: CfgNode, names: Sequence[str]):
        self.cfg, self.folder = cfg, Path(cfg.PROBE.FEATURES or Path(cfg.OUTPUT_DIR) / "features")
        self.model = _backbone(cfg)
        self.predictor = Predictor(self.model, cfg, names)
        self.predictor.origin = cfg.TRAIN.CHECKPOINT_FILE_PATH
        self._tokens = "attentive" in cfg.PROBE.METHODS

    def training(self, videos: VideoList) -> tuple[FrozenVideos, list[int]]:
        """Features by the views of testing, then those of every augmented pass.

        Returns:
            The features, and the places in the list of the videos that could be read.
        """
        passes = [self._features(videos, "train")]
        clips, aug = training_clips(self.cfg), self.cfg.AUG
        settings = {
            "augmentation": {key: list(aug[key]) if isinstance(aug[key], tuple) else aug[key]
                             for key in sorted(aug)},
            "crops": {key: without_nodes(self.cfg.DATA[key]) for key in AUGMENTATION},
            "seed": self.cfg.RNG_SEED,
        }  # fmt: skip
        places = {path: index for index, path in enumerate(videos.paths)}
        for number in range(1, self.cfg.PROBE.AUGMENTED + 1):

            def clips_of(source: Source, number: int = number) -> torch.Tensor:
                key = (self.cfg.RNG_SEED, number, places[source.path])
                return clips(source.path, key).clips

            passes.append(self._features(videos, "train", settings | {"pass": number}, clips_of))
        return _joined(videos, passes, self._tokens)

    def validation(self, videos: VideoList) -> tuple[FrozenVideos, list[int]]:
        """Features by the views of testing; see :meth:`training`."""
        return _joined(videos, [self._features(videos, "val")], self._tokens)

    def _features(
        self,
        videos: VideoList,
        split: str,
        settings: dict[str, Any] | None = None,
        clips_of: ClipsOf | None = None,
    ) -> dict[str, VideoFeatures]:
        """Features by path; those that the folder holds are not computed again."""
        options = Options()
        about = describe_features(self.predictor, options, frames=False, tokens=self._tokens)
        about["random_clips"] = settings
        digest = hashlib.blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=5)
        place = self.folder / f"{split}-{digest.hexdigest()}"
        sources = [
            Source(path, int(label))
            for path, label in zip(videos.paths, videos.labels, strict=True)
        ]
        with FeatureWriter(place, about) as writer:
            failed = extract_features(
                self.predictor, sources, writer, options, tokens=self._tokens, clips_of=clips_of
            )
        if failed > self.cfg.DATA.MAX_BAD_SHARE * len(sources):
            raise DataError(
                f"{failed} of the {len(sources)} videos of {videos.name} cannot be read, more than "
                f"DATA.MAX_BAD_SHARE ({self.cfg.DATA.MAX_BAD_SHARE}) allows"
            )
        return {video.video: video for video in read_features(place)}

    def head(self) -> dict[str, Any]:
        """Arguments of an attentive head on this backbone, with what the configuration gives."""
        given = without_nodes(self.cfg.MODEL.HEAD_ARGUMENTS)
        width = self.model.token_width
        heads = max(n for n in range(1, 17) if width % n == 0)
        frames, prefix = _grid(self.model, self.cfg)
        usual = {"num_blocks": 0, "num_heads": heads, "frames": frames if frames > 1 else 0}
        return usual | {"num_prefix_tokens": prefix} | given


def _backbone(cfg: CfgNode) -> VideoModel:
    """The configuration's model without a head, with the weights to start from."""
    torch.manual_seed(cfg.RNG_SEED)
    model = build_task(_with(cfg, HEAD="linear", HEAD_ARGUMENTS=CfgNode())).build_model()
    if not isinstance(model, VideoModel):
        raise ConfigError(f"MODEL.TASK is {cfg.MODEL.TASK}, but probes are of classifications")
    if cfg.TRAIN.CHECKPOINT_FILE_PATH:
        source = newest_checkpoint(cfg.TRAIN.CHECKPOINT_FILE_PATH)
        report = load_weights(model, source, new_head=True, inflation=cfg.TRAIN.INFLATION)
        logger.info("weights\n%s", report)
    else:
        logger.warning("TRAIN.CHECKPOINT_FILE_PATH is empty: the features are of random weights")
    model.reset_classifier(0)
    return model.eval()


def _with(cfg: CfgNode, **model: Any) -> CfgNode:
    """The configuration with other keys of ``MODEL``."""
    changed = cfg.clone()
    changed.defrost()
    for key, value in model.items():
        changed.MODEL[key] = value
    changed.freeze()
    return changed


@torch.inference_mode()
def _grid(model: VideoModel, cfg: CfgNode) -> tuple[int, int]:
    """Frames of the last grid, and the number of tokens before those of the grid."""
    size, device = cfg.DATA.TEST_CROP_SIZE, next(model.parameters()).device
    last = model.last_stage(torch.zeros(1, 3, cfg.DATA.NUM_FRAMES, size, size, device=device))
    if last.grid is not None:
        return last.grid[0], last.tensor().shape[1] - volume(last.grid)
    return last.maps()[0].shape[2], 0


def _joined(
    videos: VideoList, passes: Sequence[dict[str, VideoFeatures]], tokens: bool
) -> tuple[FrozenVideos, list[int]]:
    """Features of the videos that every pass has, in the order of the list, and their places."""
    kept = [i for i, path in enumerate(videos.paths) if all(path in found for found in passes)]
    rows = [[found[videos.paths[i]] for i in kept] for found in passes]
    labels = torch.tensor([int(videos.labels[i]) for i in kept])
    vectors = [torch.from_numpy(np.stack([v.features for v in row])) for row in rows]
    every = [[v.tokens for v in row if v.tokens is not None] for row in rows] if tokens else []
    return FrozenVideos(labels, vectors, [torch.from_numpy(np.stack(row)) for row in every]), kept


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


def _results(
    found: Sequence[Probed], train: FrozenVideos, val: FrozenVideos, folds: int
) -> dict[str, Any]:
    return {
        "train_videos": len(train),
        "val_videos": len(val),
        "folds": folds,
        **{
            one.method: {"top1": one.accuracy, "held_out": one.held_out, "chosen": one.chosen}
            for one in found
        },
    }


def _best_head(found: Sequence[Probed]) -> Probed | None:
    """The classifier that can be a model's head and did best on held-out training videos."""
    heads = [one for one in found if one.state is not None]
    return max(heads, key=lambda one: one.held_out, default=None)


def _save(
    cfg: CfgNode, extraction: _Extraction, best: Probed, head: dict[str, Any], names: Sequence[str]
) -> Path:
    """The backbone with a classifier, as a folder that ``Predictor.from_pretrained`` takes."""
    attentive = best.method == "attentive"
    arguments = CfgNode(head if attentive else {})
    kind = "attentive" if attentive else "linear"
    cfg = _with(cfg, HEAD=kind, HEAD_ARGUMENTS=arguments, NUM_CLASSES=len(names))
    model = extraction.model
    model.reset_classifier(len(names))
    if attentive:
        model.use_attentive_head(**head)
    assert best.state is not None
    model.head.load_state_dict(best.state)
    predictor = Predictor(model, cfg, names)
    predictor.origin = str(Path(cfg.OUTPUT_DIR))
    return predictor.save_pretrained(Path(cfg.OUTPUT_DIR) / MODEL)


def _write(
    folder: Path,
    found: Sequence[Probed],
    paths: Sequence[str],
    names: Sequence[str],
    labels: Sequence[int],
    results: dict[str, Any],
) -> None:
    """``results.json``, every setting that was tried, and the scores of the validation videos."""
    rows = [
        [one.method, *(json.dumps({k: v for k, v in row.items() if k not in ("held_out", "loss")}),
                       row["held_out"], row["loss"])]
        for one in found for row in one.tried
    ]  # fmt: skip
    write_table(folder / TABLE, ("method", "setting", "held_out", "loss"), rows)
    scores = [
        [one.method, path, names[label], names[int(row.argmax())], f"{float(row.max()):.4f}"]
        for one in found
        for path, label, row in zip(paths, labels, one.scores, strict=True)
    ]
    write_table(folder / SCORES, ("method", "video", "class", "predicted", "score"), scores)
    with replacing_text(folder / RESULTS) as file:
        file.write(json.dumps(results, indent=2) + "\n")
