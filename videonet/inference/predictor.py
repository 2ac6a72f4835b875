"""A model with all that it takes to run it on video files and on streams of frames."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from videonet.checkpoint import load_trained, read_checkpoint
from videonet.checkpoint.checkpoint_dir import newest_checkpoint
from videonet.checkpoint.contents import class_names_of
from videonet.checkpoint.load import refuse_larger_model
from videonet.config import load_config, load_config_text, model_arguments
from videonet.config.reading import read_text
from videonet.data.build import clip_sampler, evaluation_views
from videonet.data.classes import class_names, known_classes, with_classes
from videonet.data.decode import PyAVReader
from videonet.data.sampling import Clock
from videonet.data.transforms import spatial_crops
from videonet.engine.distributed import select_device
from videonet.engine.ema import weights_to_test
from videonet.engine.evaluate import clip_logits
from videonet.engine.precision import autocast_dtype
from videonet.errors import CheckpointError, ConfigError, ScoreError
from videonet.heads.aggregation import VideoAttentionHead, aggregate_scores
from videonet.inference.windows import Picture, SlidingPlan, Window, WindowBuffer, sliding_windows
from videonet.models import create_model
from videonet.tasks.classification import MULTI_LABEL_LOSS, ensemble_views

Top = list[tuple[str, float]]  # (class name, score), best first


@dataclass(frozen=True)
class Prediction:
    """What a model sees in a video.

    Attributes:
        top: (class name, score) of the highest scores, best first.
        scores: one score per class over all views, (K,).
        clip_scores: one row of probabilities per view, (V, K); as `scores`, they sum to 1 over the
            classes unless the model gives several labels.
        clip: the frames of the view in the middle of time and space, uint8 (3, T, H, W).
    """

    top: Top
    scores: Tensor
    clip_scores: Tensor
    clip: Tensor


@dataclass(frozen=True)
class WindowScores:
    """What a model sees in one window of a video.

    Attributes:
        index: number of the window, from 0.
        start, end: seconds from the first frame.
        scores: one score per class, (K,), over the window's crops.
        embedding: see :meth:`Predictor.run`; the mean over the crops.
    """

    index: int
    start: float
    end: float
    scores: Tensor
    embedding: Tensor


class Predictor:
    """A model with all that is needed to run it on video files, with the views of testing.

    Several threads may use one predictor: files are read and decoded side by side, and the model
    runs for one call at a time. Two predictors need two models.

    Args:
        model: maps clips (N, 3, T, S, S) to logits (N, K), and has the surface of
            :class:`videonet.models.base.VideoModel`; what its ``head`` reads is the embedding of
            a clip.
        cfg: how clips are made (``DATA``, ``TEST``) and where the model runs.
        names: of the K classes.
        multi_label: a video may have several labels: scores are one sigmoid per class instead of
            a softmax over the classes. None for what `cfg` was trained with.

    Attributes:
        origin: the file that the weights come from, for messages; empty where none is known.
        lock: held while the model runs; hold it for what changes or watches the model.
        video_head: a learned head over clip embeddings, for ``aggregate="attention"``.
    """

    def __init__(
        self,
        model: nn.Module,
        cfg: CfgNode,
        names: Sequence[str],
        *,
        multi_label: bool | None = None,
    ):
        self.device = select_device(cfg.DEVICE)
        self.model = model.to(self.device).eval()
        self.cfg, self.class_names = cfg, list(names)
        own = cfg.MODEL.LOSS_FUNC == MULTI_LABEL_LOSS
        self.multi_label = own if multi_label is None else multi_label
        self.origin = ""
        self.lock = threading.RLock()
        self.video_head: VideoAttentionHead | None = None

    @classmethod
    def from_config(
        cls,
        cfg: str | Path | None = None,
        *,
        checkpoint: str | Path,
        overrides: Sequence[str] = (),
    ) -> Predictor:
        """The old name of :meth:`from_checkpoint`; it warns and will go."""
        warnings.warn(
            "Predictor.from_config(cfg, checkpoint=…) is deprecated: call "
            "Predictor.from_checkpoint(checkpoint, cfg=…)",
            FutureWarning,
            stacklevel=2,
        )
        return cls.from_checkpoint(checkpoint, cfg=cfg, overrides=overrides)

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: str | Path,
        *,
        cfg: str | Path | None = None,
        overrides: Sequence[str] = (),
    ) -> Predictor:
        """A predictor with the weights and the configuration of a checkpoint.

        Args:
            checkpoint: a checkpoint, or the folder of a run (its newest checkpoint).
            cfg: YAML file; None for the configuration stored in the checkpoint.
            overrides: ``KEY VALUE`` pairs on top of the configuration.

        Raises:
            ConfigError, CheckpointError: they cannot be used or do not fit each other.
        """
        path = newest_checkpoint(checkpoint)
        content = read_checkpoint(path)
        own = content["cfg"] if isinstance(content.get("cfg"), str) else None
        if cfg is not None:
            config = load_config(cfg, overrides)
        elif own is not None:
            config = load_config_text(own, overrides, name=f"{path} (cfg)")
        else:
            raise ConfigError(f"{path} holds no configuration: give one with --cfg")
        names = class_names_of(content, str(path))
        if not config.MODEL.NUM_CLASSES and names is not None:
            config = with_classes(config, len(names))
        config = known_classes(config)
        names = names if names is not None else class_names(config)
        if len(names) != config.MODEL.NUM_CLASSES:
            raise CheckpointError(
                f"{path} names {len(names)} classes, but its model has {config.MODEL.NUM_CLASSES}"
            )
        weights = weights_to_test(content, averaged=config.TEST.EMA)
        name, arguments = model_arguments(config)
        refuse_larger_model(lambda: create_model(name, **arguments), weights, str(path))
        model = create_model(name, **arguments)
        load_trained(model, weights, origin=str(path), class_names=names)
        _refuse_infinite_weights(model, str(path))
        trained = own if own is not None else config.dump()
        task = read_text(trained, f"{path} (cfg)").get("MODEL.LOSS_FUNC")
        multi_label = task is not None and task.value == MULTI_LABEL_LOSS
        predictor = cls(model, config, names, multi_label=multi_label)
        predictor.origin = str(path)
        return predictor

    def __call__(self, video: str | Path, top_k: int = 5, aggregate: str = "") -> Prediction:
        """Score one video file with the temporal views and spatial crops of ``TEST``.

        Args:
            top_k: how many classes to name.
            aggregate: see :meth:`aggregate`; by default the views are joined as ``TEST.ENSEMBLE``
                says.

        Raises:
            DecodeError: the file cannot be read.
        """
        return self.score(self.views(video), top_k, aggregate)

    def views(self, video: str | Path) -> Tensor:
        """The views of a video file, uint8 (V, 3, T, H, W).

        Raises:
            DecodeError: the file cannot be read.
        """
        return evaluation_views(self.cfg)(str(video)).clips

    def score(self, clips: Tensor, top_k: int = 5, aggregate: str = "") -> Prediction:
        """Score the views of one video, uint8 (V, 3, T, H, W), see :meth:`__call__`."""
        logits, embeddings = self.run(clips)
        probabilities = logits.sigmoid() if self.multi_label else logits.softmax(dim=-1)
        if aggregate:
            scores = self.aggregate(probabilities, embeddings, aggregate)
        else:
            scores = self._ensemble(logits)
        crops = self.cfg.TEST.NUM_SPATIAL_CROPS  # clips are in the order of time, then of crops
        middle = len(clips) // crops // 2 * crops + crops // 2
        return Prediction(self.top(scores, top_k), scores, probabilities, clips[middle])

    def _ensemble(self, logits: Tensor) -> Tensor:
        """One score per class (K,) from the logits of all views (V, K), as the test joins them."""
        return ensemble_views(logits, self.cfg.TEST.ENSEMBLE, multi_label=self.multi_label)

    @torch.inference_mode()
    def aggregate(self, scores: Tensor, embeddings: Tensor | None, method: str) -> Tensor:
        """One score per class (K,) of a video from those of its N clips.

        Args:
            scores: probabilities (N, K).
            embeddings: as :meth:`run` gives them; only "attention" reads them.
            method: "mean", "max", or "attention": what :attr:`video_head` says, which is trained
                for one label per video.

        Raises:
            ConfigError: unknown method, no head, or a head for a model with several labels.
        """
        if method != "attention":
            return aggregate_scores(scores, method)
        if self.video_head is None:
            raise ConfigError("aggregation by attention needs a trained head over the clips")
        if self.multi_label:
            raise ConfigError(
                "aggregation by attention is for one label per video, this model gives several"
            )
        total = self.video_head(embeddings.unsqueeze(0))[0].softmax(dim=-1)
        self._refuse_infinite(total)
        return total

    def top(self, scores: Tensor, top_k: int = 5) -> Top:
        """The names and values of the highest scores (K,)."""
        best = scores.topk(min(top_k, len(scores)))
        pairs = zip(best.values.tolist(), best.indices.tolist(), strict=True)
        return [(self.class_names[index], score) for score, index in pairs]

    def run(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, K) and embeddings, float32 on the CPU, of uint8 clips (N, 3, T, S, S).

        The embedding of a clip is the vector (C,) that the classifier reads; with a
        :attr:`video_head` of two levels it is a vector per frame of the last stage's grid, (T', C).
        At most ``TEST.BATCH_SIZE`` clips are on the device at a time; in the precision that
        testing computes in.

        Raises:
            ScoreError: a number of them is not finite.
        """
        embeddings: list[Tensor] = []

        def logits_of(batch: Tensor) -> Tensor:
            vectors = self.model.forward_head(self.model.forward_features(batch), pre_logits=True)
            embeddings.append(vectors.float().cpu())
            return self.model.head(vectors)

        logits = self._apply(logits_of, clips)
        vectors = torch.cat(embeddings)
        self._refuse_infinite(logits, vectors)
        if self.video_head is not None and self.video_head.levels == 2:
            return logits, self.frame_embeddings(clips)
        return logits, vectors

    def _refuse_infinite(self, *results: Tensor) -> None:
        if not all(result.isfinite().all() for result in results):
            dtype = autocast_dtype(self.cfg, self.device) or torch.float32
            raise ScoreError(
                f"the model{f' of {self.origin}' if self.origin else ''} gives scores that are not "
                f"finite numbers: its weights are not, or its numbers are too large for {dtype}"
            )

    def frame_embeddings(self, clips: Tensor) -> Tensor:
        """Means over space of the last stage's grid, (N, T', C), of uint8 clips.

        Raises:
            ScoreError: a number of them is not finite.
        """

        def means(batch: Tensor) -> Tensor:
            (last,) = self.model.forward_intermediates(batch, indices=1)
            return last.mean(dim=(3, 4)).transpose(1, 2)

        vectors = self._apply(means, clips)
        self._refuse_infinite(vectors)
        return vectors

    def _apply(self, function: Callable[[Tensor], Tensor], clips: Tensor) -> Tensor:
        with self.lock:
            return clip_logits(
                function,
                clips,
                mean=self.cfg.DATA.MEAN,
                std=self.cfg.DATA.STD,
                device=self.device,
                max_clips=self.cfg.TEST.BATCH_SIZE,
                dtype=autocast_dtype(self.cfg, self.device),
            )

    def plan(
        self, fps: float, window: float | None = None, stride: float | None = None
    ) -> SlidingPlan:
        """Where the windows of a video of so many frames per second lie; all times in seconds.

        Args:
            window: None for ``NUM_FRAMES * SAMPLING_RATE`` frames at the target rate.
            stride: None for half a window.
        """
        return SlidingPlan.make(clip_sampler(self.cfg, "test"), fps, window, stride)

    def windows(
        self,
        video: str | Path,
        *,
        window: float | None = None,
        stride: float | None = None,
        crops: int = 1,
        first: int = 0,
    ) -> Iterator[WindowScores]:
        """Scores over time of a video file of any length.

        The file is decoded once, forwards; memory holds the frames of ``TEST.BATCH_SIZE`` windows
        and 16 bytes per frame of the file.

        Args:
            window, stride: seconds, see :meth:`plan`.
            crops: 1 (the centre) or 3 of each window, joined as ``TEST.ENSEMBLE`` says.
            first: number of the window to begin with.

        Raises:
            DecodeError: the file cannot be read, or not to its end.
        """
        reader = PyAVReader(str(video))
        with reader:
            clock = Clock.of(reader.info.frames, reader.info.fps, reader.times)
            plan = self.plan(clock.rate, window, stride)
            start = np.searchsorted(reader.times, first * plan.stride / plan.fps) - 1
            frames = reader.forwards(int(np.clip(start, 0, reader.info.frames - 1)))
            buffer = WindowBuffer(plan, self._prepare(crops), first=first)
            batch = max(1, self.cfg.TEST.BATCH_SIZE // crops)
            yield from self._score_windows(sliding_windows(frames, buffer), batch)

    def stream(
        self,
        frames: Iterable,
        *,
        fps: float,
        window: float | None = None,
        stride: float | None = None,
        crops: int = 1,
        batch: int = 1,
    ) -> Iterator[WindowScores]:
        """Scores over time of any iterator of frames, such as a camera.

        A result comes with the frame that completes its window, so it speaks of a moment that is
        ``plan(fps, window, stride).lag`` seconds (half a window) ago; with a `batch` above 1, of
        up to ``(batch - 1) * stride`` seconds more. The same frames from a file give the same
        results.

        Args:
            frames: RGB pictures (H, W, 3), uint8, numpy or torch; or pairs of a time in rising
                seconds and a picture, where the rate is not even.
            fps: nominal frames per second.
            window, stride, crops: as in :meth:`windows`.
        """
        plan = self.plan(fps, window, stride)
        buffer = WindowBuffer(plan, self._prepare(crops))
        return self._score_windows(sliding_windows(_timed(frames, fps), buffer), batch)

    def _prepare(self, crops: int):
        size = self.cfg.DATA.TEST_CROP_SIZE
        short_side = evaluation_views(self.cfg).short_side

        def prepare(picture: np.ndarray) -> Tensor:
            """(H, W, 3) -> (crops, 3, S, S)."""
            frame = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)
            return torch.cat(spatial_crops(frame.unsqueeze(0), size, crops, short_side))

        return prepare

    def _score_windows(self, windows: Iterator[Window], batch: int) -> Iterator[WindowScores]:
        while group := list(islice(windows, batch)):
            logits, embeddings = self.run(torch.cat([window.clips for window in group]))
            each = len(logits) // len(group)
            for window, rows, vectors in zip(
                group, logits.split(each), embeddings.split(each), strict=True
            ):
                scores = self._ensemble(rows)
                yield WindowScores(
                    window.index, window.start, window.end, scores, vectors.mean(dim=0)
                )


def _refuse_infinite_weights(model: nn.Module, origin: str) -> None:
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            raise CheckpointError(f"{origin}: {name} holds numbers that are not finite (NaN)")


def _timed(frames: Iterable, fps: float) -> Iterator[tuple[float, Picture]]:
    """(time, picture) of frames that may come with their times or without."""
    for index, item in enumerate(frames):
        time, frame = item if isinstance(item, tuple) else (index / fps, item)
        picture = np.asarray(frame)
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise ConfigError(
                f"frame {index} of the stream is {picture.dtype} {picture.shape}, expected an RGB "
                "picture uint8 (height, width, 3)"
            )
        yield float(time), lambda picture=picture: picture
