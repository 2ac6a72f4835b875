"""Inference on video files: a file in, labels out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fvcore.common.config import CfgNode
from torch import Tensor, nn

from videonet.checkpoint import load_trained, read_checkpoint
from videonet.config import load_config, load_config_text, model_arguments
from videonet.data.build import evaluation_views
from videonet.data.classes import class_names
from videonet.engine.distributed import select_device
from videonet.engine.ema import weights_to_test
from videonet.engine.evaluate import clip_logits, ensemble_views
from videonet.engine.state import newest_checkpoint
from videonet.errors import ConfigError
from videonet.models import create_model


@dataclass(frozen=True)
class Prediction:
    """What a model sees in a video.

    Attributes:
        top: (class name, score) of the highest scores, best first.
        scores: one score per class over all views, (K,).
        clip_scores: one row of probabilities per view, (V, K).
        clip: the frames of the middle view, uint8 (3, T, H, W).
    """

    top: list[tuple[str, float]]
    scores: Tensor
    clip_scores: Tensor
    clip: Tensor


class Predictor:
    """A model with all that is needed to run it on video files, with the views of testing."""

    def __init__(self, model: nn.Module, cfg: CfgNode, names: Sequence[str]):
        self.device = select_device(cfg.DEVICE)
        self.model = model.to(self.device).eval()
        self.cfg, self.class_names = cfg, list(names)

    @classmethod
    def from_config(
        cls,
        cfg: str | Path | None = None,
        *,
        checkpoint: str | Path,
        overrides: Sequence[str] = (),
    ) -> Predictor:
        """From a configuration and a checkpoint.

        Args:
            cfg: YAML file; None for the configuration stored in the checkpoint.
            checkpoint: a checkpoint, or the folder of a run (its newest checkpoint).
            overrides: ``KEY VALUE`` pairs on top of the configuration.

        Raises:
            ConfigError, CheckpointError: they cannot be used or do not fit each other.
        """
        path = newest_checkpoint(checkpoint)
        content = read_checkpoint(path)
        if cfg is not None:
            config = load_config(cfg, overrides)
        elif isinstance(content.get("cfg"), str):
            config = load_config_text(content["cfg"], overrides, name=f"{path} (cfg)")
        else:
            raise ConfigError(f"{path} holds no configuration: give one with --cfg")
        name, arguments = model_arguments(config)
        model = create_model(name, **arguments)
        weights = weights_to_test(content, averaged=config.TEST.EMA)
        load_trained(model, weights, origin=str(path))
        names = content.get("class_names")
        return cls(model, config, names if names is not None else class_names(config))

    def __call__(self, video: str | Path, top_k: int = 5) -> Prediction:
        """Score one video file with the temporal views and spatial crops of ``TEST``.

        Raises:
            DecodeError: the file cannot be read.
        """
        return self.score(self.views(video), top_k)

    def views(self, video: str | Path) -> Tensor:
        """The views of a video file, uint8 (V, 3, T, H, W).

        Raises:
            DecodeError: the file cannot be read.
        """
        return evaluation_views(self.cfg)(str(video), ())

    def score(self, clips: Tensor, top_k: int = 5) -> Prediction:
        """Score the views of one video, uint8 (V, 3, T, H, W)."""
        cfg = self.cfg
        logits = clip_logits(
            self.model,
            clips,
            mean=cfg.DATA.MEAN,
            std=cfg.DATA.STD,
            device=self.device,
            max_clips=cfg.TEST.BATCH_SIZE,
        )
        scores = ensemble_views(logits, cfg.TEST.ENSEMBLE)
        best = scores.topk(min(top_k, len(scores)))
        top = [
            (self.class_names[index], score)
            for score, index in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]
        return Prediction(top, scores, logits.softmax(dim=-1), clips[len(clips) // 2])
