"""Features of lists of videos by a backbone that stays as it is, kept in a folder."""

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
from videonet.config.arguments import without_nodes
from videonet.data.datasets.lists import VideoList
from videonet.data.feature_store import (
    DESCRIPTION,
    FeatureWriter,
    VideoFeatures,
    read_failures,
    read_features,
)
from videonet.data.loading.build import training_clips
from videonet.data.loading.dataset import Failure
from videonet.engine.probing import FrozenVideos
from videonet.errors import ConfigError, DataError
from videonet.heads.token_heads import TOKEN_HEADS
from videonet.inference.extraction import ClipsOf, describe_features, extract_features
from videonet.inference.predictor import Predictor
from videonet.inference.run import Options
from videonet.inference.sources import Source
from videonet.models.base import VideoModel
from videonet.models.weights import load_weights
from videonet.ops.grid import volume
from videonet.tasks import build_task

logger = logging.getLogger(__name__)

FEATURES = "features"  # folder in OUTPUT_DIR
# What augmented clips depend on beside what the views of testing do.
AUGMENTATION = (
    *("TRAIN_CROP_SIZE", "TRAIN_JITTER_SCALES", "TRAIN_JITTER_SCALES_RELATIVE"),
    *("TRAIN_JITTER_ASPECT_RELATIVE", "INV_UNIFORM_SAMPLE", "RANDOM_FLIP"),
)


class Extraction:
    """The backbone of a configuration, and the features of lists of videos by it.

    Args:
        cfg: a complete configuration; ``PROBE`` says which features, and where they are kept.
        names: of the classes.
        progress: show progress bars.

    Attributes:
        model: without a classifier.
        failures: videos of the validation list that cannot be used.
    """

    def __init__(self, cfg: CfgNode, names: Sequence[str], *, progress: bool = True):
        self.cfg, self.folder = cfg, Path(cfg.PROBE.FEATURES or Path(cfg.OUTPUT_DIR) / FEATURES)
        self.model = backbone(cfg)
        self.failures: list[Failure] = []
        self._predictor = Predictor(self.model, cfg, names)
        self._predictor.origin = cfg.TRAIN.CHECKPOINT_FILE_PATH
        self._tokens, self._progress = bool(set(TOKEN_HEADS) & set(cfg.PROBE.METHODS)), progress

    def training(self, videos: VideoList) -> tuple[FrozenVideos, list[int]]:
        """Features by the views of testing, then those of every augmented pass.

        Returns:
            The features, and the places in the list of the videos that could be read.

        Raises:
            DataError: too many videos cannot be read.
        """
        count = 1 + self.cfg.PROBE.AUGMENTED
        logger.info("features of %d training videos, pass 1 of %d", len(videos.paths), count)
        passes = [self._features(videos, "train")[0]]
        clips, aug = training_clips(self.cfg), self.cfg.AUG
        settings = {
            "augmentation": {key: list(aug[key]) if isinstance(aug[key], tuple) else aug[key]
                             for key in sorted(aug)},
            "crops": {key: without_nodes(self.cfg.DATA[key]) for key in AUGMENTATION},
            "seed": self.cfg.RNG_SEED,
        }  # fmt: skip
        places = {path: index for index, path in enumerate(videos.paths)}
        for number in range(1, count):

            def clips_of(source: Source, number: int = number) -> torch.Tensor:
                key = (self.cfg.RNG_SEED, number, places[source.path])
                return clips(source.path, key).clips

            logger.info("random clips of the training videos, pass %d of %d", number + 1, count)
            found, _ = self._features(videos, "train", settings | {"pass": number}, clips_of)
            passes.append(found)
        return _joined(videos, passes, self._tokens)

    def validation(self, videos: VideoList) -> tuple[FrozenVideos, list[int]]:
        """Features by the views of testing; see :meth:`training`."""
        logger.info("features of %d validation videos", len(videos.paths))
        found, failed = self._features(videos, "val")
        frozen, kept = _joined(videos, [found], self._tokens)
        self.failures = [
            Failure(place, path, failed.get(path, "its features are missing"))
            for place, path in enumerate(videos.paths)
            if path not in found
        ]
        return frozen, kept

    def _features(
        self,
        videos: VideoList,
        split: str,
        settings: dict[str, Any] | None = None,
        clips_of: ClipsOf | None = None,
    ) -> tuple[dict[str, VideoFeatures], dict[str, str]]:
        """Features by path, and why others have none; what the folder holds is not computed."""
        options, tokens = Options(), self._tokens
        place, about = self._place(split, settings, tokens=tokens)
        if not tokens:  # a folder that holds all tokens has what is wanted too
            full = self._place(split, settings, tokens=True)
            if (full[0] / DESCRIPTION).is_file():
                (place, about), tokens = full, True
        sources = [
            Source(path, int(label))
            for path, label in zip(videos.paths, videos.labels, strict=True)
        ]
        with FeatureWriter(place, about) as writer:
            failed = extract_features(
                self._predictor,
                sources,
                writer,
                options,
                tokens=tokens,
                clips_of=clips_of,
                progress=self._progress,
            )
        if failed > self.cfg.DATA.MAX_BAD_SHARE * len(sources):
            raise DataError(
                f"{failed} of the {len(sources)} videos of {videos.name} cannot be read, more than "
                f"DATA.MAX_BAD_SHARE ({self.cfg.DATA.MAX_BAD_SHARE}) allows"
            )
        return {video.video: video for video in read_features(place)}, read_failures(place)

    def _place(
        self, split: str, settings: dict[str, Any] | None, *, tokens: bool
    ) -> tuple[Path, dict[str, Any]]:
        """The folder of some features, and what they depend on."""
        about = describe_features(self._predictor, Options(), frames=False, tokens=tokens)
        about["random_clips"] = settings
        digest = hashlib.blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=5)
        return self.folder / f"{split}-{digest.hexdigest()}", about


def head_arguments(model: VideoModel, cfg: CfgNode) -> dict[str, dict[str, Any]]:
    """Arguments of each kind of head that reads all tokens of a backbone, by its name.

    Args:
        model: the backbone.
        cfg: a complete configuration; ``MODEL.HEAD_ARGUMENTS`` are of the kind that it names.
    """
    width = model.token_width
    heads = max(n for n in range(1, 17) if width % n == 0)
    frames, prefix = _grid(model, cfg)
    usual = {"num_blocks": 0, "num_heads": heads, "frames": frames if frames > 1 else 0}
    found = {
        "attentive": usual | {"num_prefix_tokens": prefix},
        "statistics": {"frames": frames, "num_prefix_tokens": prefix},
    }
    if cfg.MODEL.HEAD in found:
        found[cfg.MODEL.HEAD] |= without_nodes(cfg.MODEL.HEAD_ARGUMENTS)
    return found


def backbone(cfg: CfgNode) -> VideoModel:
    """A configuration's model without a head, with the weights to start from.

    Args:
        cfg: a complete configuration.

    Raises:
        ConfigError, CheckpointError: there is no such model, or the weights do not fit.
    """
    torch.manual_seed(cfg.RNG_SEED)
    model = build_task(with_model(cfg, HEAD="linear", HEAD_ARGUMENTS=CfgNode())).build_model()
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


def with_model(cfg: CfgNode, **model: Any) -> CfgNode:
    """A configuration with other keys of ``MODEL``."""
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
