"""Prediction on video files and on streams of frames."""

from __future__ import annotations

import copy
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, overload

import torch
from fvcore.common.config import CfgNode
from torch import Tensor

from videonet.data.loading.build import clip_sampler, evaluation_views
from videonet.devices import apply_to_clips, autocast_dtype, replays_for, select_device
from videonet.errors import ConfigError, ScoreError
from videonet.heads.aggregation import VideoAttentionHead
from videonet.inference.clips import file_windows, picture_crops
from videonet.inference.inputs import File, Video, is_several, open_input
from videonet.inference.model_card import Described
from videonet.inference.predictions import Prediction, WindowScores
from videonet.inference.pretrained import push, read_pretrained, save
from videonet.inference.windows import (
    SlidingPlan,
    Window,
    WindowBuffer,
    sliding_windows,
    timed_pictures,
)
from videonet.models.base import VideoModel
from videonet.tasks import Task, Trained, build_task
from videonet.tasks.task import Top
from videonet.tasks.trained_model import TrainedModel, load_trained_model
from videonet.tasks.views import join_scores


class Predictor:
    """A model with all that is needed to run it on video files, with the views of testing.

    Several threads may use one predictor: files are read and decoded side by side, and the model
    runs for one call at a time. Two predictors need two models.

    Args:
        model: maps clips (N, 3, T, S, S) to outputs (N, K), and has the surface of
            :class:`videonet.models.base.VideoModel`; what its ``head`` reads is the embedding of
            a clip.
        cfg: how clips are made (``DATA``, ``TEST``) and where the model runs.
        task: what the model was trained for; or names of its K outputs, for the task that
            ``MODEL.TASK`` names.

    Attributes:
        task: says what is made of the model's outputs.
        class_names: the names of the outputs; of a classification, those of the classes.
        origin: the file that the weights come from, for messages; empty where none is known.
        lock: held while the model runs; hold it to change the model or to record what it computes.
        replays: CUDA graphs of the model for clips whose shape repeats (``TEST.CUDA_GRAPHS``);
            None for none.
        video_head: a learned head over clip embeddings, for ``aggregate="attention"``.
    """

    def __init__(self, model: VideoModel, cfg: CfgNode, task: Task | Sequence[str]):
        if not isinstance(task, Task):
            task = build_task(cfg, None, Trained(names=list(task)))
        self.device = select_device(cfg.DEVICE)
        self.model = model.to(self.device).eval()
        self.cfg, self.task, self.class_names = cfg, task, task.output_names
        self.origin = ""
        self.lock = threading.RLock()
        self.replays = replays_for(cfg, self.device)
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
            checkpoint: a checkpoint, the folder of a run (its newest checkpoint), or whatever
                :meth:`from_pretrained` takes.
            cfg: YAML file; None for the configuration stored in the checkpoint.
            overrides: ``KEY VALUE`` pairs on top of the configuration.

        Raises:
            ConfigError, CheckpointError: they cannot be used or do not fit each other.
        """
        content, config, origin = read_pretrained(checkpoint, cfg, overrides)
        return cls.of(load_trained_model(content, config, origin=origin), origin)

    @classmethod
    def of(cls, trained: TrainedModel, origin: str) -> Predictor:
        """A predictor of a model that is loaded.

        Args:
            trained: the model and its task.
            origin: see :attr:`origin`.

        Raises:
            ConfigError: the model is of another task.
        """
        if not isinstance(trained.model, VideoModel):
            raise ConfigError(
                f"{origin} is a model of {trained.task.cfg.MODEL.TASK}: use "
                "videonet.DensePredictor, or videonet predict with --task"
            )
        predictor = cls(trained.model, trained.task.cfg, trained.task)
        predictor.origin = origin
        return predictor

    @classmethod
    def from_pretrained(cls, source: str | Path, *, overrides: Sequence[str] = ()) -> Predictor:
        """A predictor from whatever comes with its own configuration.

        Args:
            source: a name of :func:`videonet.list_weights`, the folder of a run, a folder that
                :meth:`save_pretrained` wrote, ``hf-hub:OWNER/NAME``, or a checkpoint.
            overrides: ``KEY VALUE`` pairs on top of the configuration.

        Raises:
            ConfigError, CheckpointError: it cannot be fetched, read or used.
        """
        return cls.from_checkpoint(source, overrides=overrides)

    def save_pretrained(self, folder: str | Path, *, licence: str = "") -> Path:
        """Write the model to a folder that :meth:`from_pretrained` reads.

        It holds ``model.safetensors``, ``config.json`` (the model and its arguments, the
        preprocessing, the views, the classes) and a model card, ``README.md``, with what the
        folder of the model's run says of data, recipe and accuracy.

        Args:
            folder: is made where it is missing.
            licence: of the weights, for the card; published ones have theirs.

        Returns:
            The folder.

        Raises:
            CheckpointError, WriteError: a file cannot be written.
        """
        return save(self._described(), folder, licence=licence)

    def push_to_hub(
        self,
        repository: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        licence: str = "",
    ) -> str:
        """Send what :meth:`save_pretrained` writes to the Hugging Face hub.

        Args:
            repository: ``OWNER/NAME``; is made where it is missing.
            private: whether a new repository can be seen by its owner alone.
            token: of the hub; None for the one that ``hf auth login`` has stored.
            licence: see :meth:`save_pretrained`.

        Returns:
            Where it is.

        Raises:
            CheckpointError: huggingface_hub is not installed, or the hub refuses.
        """
        model = self._described()
        with tempfile.TemporaryDirectory() as folder:
            return push(model, repository, folder, private=private, token=token, licence=licence)

    def _described(self) -> Described:
        return Described(self.model, self.cfg, self.class_names, self.origin)

    @overload
    def __call__(
        self, video: Video, top_k: int = ..., aggregate: str = ..., *, fps: float | None = ...
    ) -> Prediction: ...

    @overload
    def __call__(
        self, video: list[File], top_k: int = ..., aggregate: str = ..., *, fps: float | None = ...
    ) -> list[Prediction]: ...

    def __call__(
        self, video: Any, top_k: int = 5, aggregate: str = "", *, fps: float | None = None
    ) -> Any:
        """Score a video, or several, with the temporal views and spatial crops of ``TEST``.

        Args:
            video: a path, an address (http, https), the bytes of a file, an open binary file, or
                frames: an array or tensor uint8 (T, H, W, 3), (3, T, H, W) or (T, 3, H, W), or a
                list of pictures. A list of videos gives a list of predictions, in its order.
            top_k: the most outputs that are named.
            aggregate: see :meth:`aggregate`; by default the views are joined as ``TEST.ENSEMBLE``
                says.
            fps: frames per second of frames in memory, which have none of their own.

        Raises:
            DecodeError: the video cannot be read, or frames are not what they should be.
            ConfigError: it is nothing of these, or frames come without `fps`.
        """
        if is_several(video):
            return [self(one, top_k, aggregate, fps=fps) for one in video]
        return self.score(self.views(video, fps=fps), top_k, aggregate)

    def views(self, video: Video, *, fps: float | None = None) -> Tensor:
        """The views of a video, uint8 (V, 3, T, H, W); see :meth:`__call__`.

        Raises:
            DecodeError: the video cannot be read, or frames are not what they should be.
            ConfigError: it is no video, or frames come without `fps`.
        """
        views = evaluation_views(self.cfg)
        with open_input(video, views, fps) as reader:
            return views.of(reader).clips

    def score(self, clips: Tensor, top_k: int = 5, aggregate: str = "") -> Prediction:
        """Score the views of one video, uint8 (V, 3, T, H, W); see :meth:`__call__`."""
        return self.predict(*self.run(clips), clips, top_k, aggregate)

    def predict(
        self,
        outputs: Tensor,
        embeddings: Tensor,
        clips: Tensor,
        top_k: int = 5,
        aggregate: str = "",
    ) -> Prediction:
        """What the outputs of a video's views say of it.

        Args:
            outputs: (V, K), see :meth:`run`.
            embeddings: (V, …), likewise.
            clips: the views, uint8 (V, 3, T, H, W).
            top_k: the most outputs that are named.
            aggregate: see :meth:`__call__`.
        """
        clip_scores = self.task.scores(outputs)
        if aggregate:
            scores = self.aggregate(clip_scores, embeddings, aggregate)
        else:
            scores = self.task.join_views(outputs)
        crops = self.cfg.TEST.NUM_SPATIAL_CROPS  # clips are in the order of time, then of crops
        middle = len(clips) // crops // 2 * crops + crops // 2
        return Prediction(self.top(scores, top_k), scores, clip_scores, clips[middle])

    @torch.inference_mode()
    def aggregate(self, scores: Tensor, embeddings: Tensor | None, method: str) -> Tensor:
        """One score per output (K,) of a video from those of its N clips.

        Args:
            scores: one row per clip, (N, K).
            embeddings: as :meth:`run` gives them; only "attention" reads them.
            method: "mean", "max", or "attention" for the scores of :attr:`video_head`.

        Raises:
            ConfigError: unknown method, no head, or a task that such a head is not for.
        """
        if method != "attention":
            return join_scores(scores, method)
        if self.video_head is None or embeddings is None:
            raise ConfigError("aggregation by attention needs a trained head over the clips")
        if not self.task.joins_clips:
            raise ConfigError(
                "aggregation by attention is for one label per video, and not for this model's task"
            )
        total = self.task.join_views(self.video_head(embeddings.unsqueeze(0)))
        self.refuse_infinite(total)
        return total

    def top(self, scores: Tensor, top_k: int = 5) -> Top:
        """The names and values that are shown of scores (K,), see :meth:`Task.show`."""
        return self.task.show(scores, top_k)

    def run(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """The model's outputs and embeddings of clips, in the precision of testing.

        The embedding of a clip is the vector (C,) that the model's head reads; with a
        :attr:`video_head` of two levels it is a vector per frame of the last stage's grid,
        (T', C). At most ``TEST.BATCH_SIZE`` clips are on the device at a time.

        Args:
            clips: uint8 (N, 3, T, S, S).

        Returns:
            Outputs (N, K) and embeddings (N, C) or (N, T', C), float32 on the CPU.

        Raises:
            ScoreError: an output or an embedding is not finite.
        """
        outputs, embeddings = self.compute(clips)
        self.refuse_infinite(outputs, embeddings)
        return outputs, embeddings

    def compute(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """The same as :meth:`run`, whatever numbers come out."""
        outputs, vectors = self.apply(self._outputs_and_vectors, clips)
        if self.video_head is not None and self.video_head.levels == 2:
            return outputs, self.compute_frames(clips)
        return outputs, vectors

    def refuse_infinite(self, *results: Tensor) -> None:
        """Raise ScoreError where a number of the model's is not finite."""
        if not all(result.isfinite().all() for result in results):
            dtype = autocast_dtype(self.cfg, self.device) or torch.float32
            raise ScoreError(
                f"the model{f' of {self.origin}' if self.origin else ''} gives scores that are not "
                f"finite numbers: its weights are not, or its numbers are too large for {dtype}"
            )

    def frame_embeddings(self, clips: Tensor) -> Tensor:
        """A vector per frame of the last stage's grid, the mean over space.

        Args:
            clips: uint8 (N, 3, T, S, S).

        Returns:
            (N, T', C), float32 on the CPU.

        Raises:
            ScoreError: a number of them is not finite.
        """
        vectors = self.compute_frames(clips)
        self.refuse_infinite(vectors)
        return vectors

    def compute_frames(self, clips: Tensor) -> Tensor:
        """The same as :meth:`frame_embeddings`, whatever numbers come out."""
        (vectors,) = self.apply(self._frame_means, clips)
        return vectors

    def token_embeddings(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """The embeddings of clips (N, C), as :meth:`run` gives them, and all tokens (N, n, C')."""
        vectors, tokens = self.apply(self._vectors_and_tokens, clips)
        self.refuse_infinite(vectors, tokens)
        return vectors, tokens

    def _outputs_and_vectors(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        vectors = self.model.forward_head(self.model.forward_features(batch), pre_logits=True)
        return self.model.head(vectors), vectors

    def _vectors_and_tokens(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        features = self.model.forward_features(batch)
        return self.model.forward_head(features, pre_logits=True), self.model.tokens_of(features)

    def _frame_means(self, batch: Tensor) -> Tensor:
        (last,) = self.model.forward_intermediates(batch, indices=1)
        return last.mean(dim=(3, 4)).transpose(1, 2)

    def apply(
        self, function: Callable[[Tensor], Tensor | tuple[Tensor, ...]], clips: Tensor
    ) -> tuple[Tensor, ...]:
        """The outputs of a part of the model, see :func:`videonet.devices.apply_to_clips`."""
        with self.lock:
            return apply_to_clips(
                function,
                clips,
                mean=self.cfg.DATA.MEAN,
                std=self.cfg.DATA.STD,
                device=self.device,
                max_clips=self.cfg.TEST.BATCH_SIZE,
                dtype=autocast_dtype(self.cfg, self.device),
                replays=self.replays,
                model=self.model,
            )

    def plan(
        self, fps: float, window: float | None = None, stride: float | None = None
    ) -> SlidingPlan:
        """Where the windows of a video lie.

        Args:
            fps: nominal frames per second of the video.
            window: seconds; None for what ``NUM_FRAMES * SAMPLING_RATE`` frames span at the target
                rate.
            stride: seconds; None for half a window.
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
            video: the file.
            window: seconds, see :meth:`plan`.
            stride: seconds, see :meth:`plan`.
            crops: 1 (the centre) or 3 of each window, joined as ``TEST.ENSEMBLE`` says.
            first: number of the window to begin with.

        Yields:
            The scores of each window.

        Raises:
            DecodeError: the file cannot be read, or not to its end.
        """
        views = evaluation_views(self.cfg)
        found = file_windows(str(video), views, window, stride, crops, first)
        yield from self.score_windows(found, max(1, self.cfg.TEST.BATCH_SIZE // crops))

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

        A window is scored when its last frame arrives, so the middle of the window lies
        ``plan(fps, window, stride).lag`` seconds (half a window) back; with a `batch` above 1, up
        to ``(batch - 1) * stride`` seconds more. The same frames from a file give the same results.

        Args:
            frames: RGB pictures (H, W, 3), uint8, numpy or torch; or pairs of a time in rising
                seconds and a picture, where the rate is not even.
            fps: nominal frames per second.
            window: as in :meth:`windows`.
            stride: as in :meth:`windows`.
            crops: as in :meth:`windows`.
            batch: the number of windows that are scored together.

        Returns:
            The scores of each window.
        """
        plan = self.plan(fps, window, stride)
        buffer = WindowBuffer(plan, picture_crops(evaluation_views(self.cfg), crops))
        return self.score_windows(sliding_windows(timed_pictures(frames, fps), buffer), batch)

    def on(self, device: str) -> Predictor:
        """The same predictor with a copy of its model, on another device or on the same.

        On the same device both have the same weights in memory.
        """
        cfg = self.cfg.clone()
        cfg.defrost()
        cfg.DEVICE = device
        cfg.freeze()
        shared: dict[int, Tensor] = {}
        if torch.device(device) == self.device:
            tensors = chain(self.model.parameters(), self.model.buffers())
            shared = {id(tensor): tensor for tensor in tensors}
        with self.lock:
            other = Predictor(copy.deepcopy(self.model, shared), cfg, self.task)
        other.origin, other.video_head = self.origin, self.video_head
        return other

    def score_windows(self, windows: Iterator[Window], batch: int) -> Iterator[WindowScores]:
        """The scores of windows in their order.

        Args:
            windows: with as many crops each.
            batch: the number of windows that are scored together.
        """
        while group := list(islice(windows, batch)):
            outputs, embeddings = self.run(torch.cat([window.clips for window in group]))
            each = len(outputs) // len(group)
            for window, rows, vectors in zip(
                group, outputs.split(each), embeddings.split(each), strict=True
            ):
                scores = self.task.join_views(rows)
                yield WindowScores(
                    window.index, window.start, window.end, scores, vectors.mean(dim=0)
                )
