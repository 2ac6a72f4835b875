"""The pictures of a prediction that a command asks for, and their files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from videonet.data.decode import PyAVReader
from videonet.data.texts import short_stem
from videonet.errors import ConfigError
from videonet.files import make_folder
from videonet.inference.explain import grad_cam
from videonet.inference.predictions import Prediction
from videonet.inference.predictor import Predictor
from videonet.inference.rendering import (
    plot_heat,
    plot_prediction,
    plot_timeline,
    write_heat_video,
    write_overlay,
)
from videonet.inference.rollout import attention_rollout
from videonet.tasks.segments import Segment

EXPLAINED_FPS = 4.0  # pictures a second of an explained clip
OVERLAY_LINES = 3  # names with scores on a frame


@dataclass
class Pictures:
    """Draws what was asked for of each video.

    A path is a file, or with several videos a folder that gets a file named after each video.

    Attributes:
        predictor: scored the videos.
        several: whether there are several videos.
        picture: PNG of frames and scores; None for none, as for the others.
        timeline: PNG of scores over time.
        overlay: MP4 of the video with scores on it.
        explain: PNG or MP4 of where the model looks.
        method: "gradcam" or "rollout", for `explain`.
    """

    predictor: Predictor
    several: bool = False
    picture: Path | None = None
    timeline: Path | None = None
    overlay: Path | None = None
    explain: Path | None = None
    method: str = "gradcam"

    def __post_init__(self) -> None:
        suffixes = {
            "picture": (".png",),
            "timeline": (".png",),
            "overlay": (".mp4",),
            "explain": (".png", ".mp4"),
        }
        for name, allowed in suffixes.items():
            path: Path | None = getattr(self, name)
            if path is None or (self.several and not path.suffix):
                continue
            if self.several:
                raise ConfigError(f"--{name} of several videos is a folder, not a file: {path}")
            if path.suffix.lower() not in allowed:
                raise ConfigError(f"--{name} is {path}, expected a name in {' or '.join(allowed)}")

    @property
    def _limits(self) -> tuple[float, float] | None:
        return self.predictor.task.score_range

    def of_views(self, video: str, prediction: Prediction) -> None:
        """Draw frames and scores, and the explanation, of the middle view.

        Args:
            video: its file.
            prediction: of the video.
        """
        if self.picture is not None:
            target = self._target(self.picture, video, ".png")
            plot_prediction(prediction.clip, prediction.top, video, target, limits=self._limits)
        if self.explain is not None:
            self._explain(self.explain, video, prediction)

    def of_windows(
        self,
        video: str,
        times: Sequence[tuple[float, float]],
        scores: np.ndarray,
        segments: Sequence[Segment],
    ) -> None:
        """Draw the timeline and the overlay of a video.

        Args:
            video: its file.
            times: (start, end) of the windows in seconds.
            scores: (N, K) of the windows.
            segments: of the video.
        """
        names = self.predictor.class_names
        if self.timeline is not None:
            target = self._target(self.timeline, video, ".png")
            plot_timeline(times, scores, segments, names, video, target, limits=self._limits)
        if self.overlay is not None:
            tops = [self.predictor.top(row, OVERLAY_LINES) for row in torch.from_numpy(scores)]
            target = self._target(self.overlay, video, ".mp4")
            reader = PyAVReader(video)
            with reader:
                frames = ((time, picture()) for time, picture in reader.forwards())
                write_overlay(frames, times, tops, reader.info.fps, target, limits=self._limits)
        if self.picture is not None or self.explain is not None:
            self.of_views(video, self.predictor(video))

    def _explain(self, path: Path, video: str, prediction: Prediction) -> None:
        label = int(prediction.scores.argmax())
        clip = prediction.clip.unsqueeze(0)
        with self.predictor.lock:  # both record what the model computes
            if self.method == "rollout":
                heat = attention_rollout(self.predictor, clip)
            else:
                heat = grad_cam(self.predictor, clip, label)
        values = heat[0].numpy()
        frames = prediction.clip.permute(1, 2, 3, 0).numpy()  # (T, H, W, 3)
        target = self._target(path, video, ".png")
        if target.suffix.lower() == ".mp4":
            top = prediction.top[:OVERLAY_LINES]
            write_heat_video(frames, values, top, EXPLAINED_FPS, target, limits=self._limits)
        else:
            name, score = prediction.top[0]
            plot_heat(frames, values, f"{Path(video).name}: {name} {score:.2f}", target)

    def _target(self, path: Path, video: str, suffix: str) -> Path:
        if self.several:
            path = path / (short_stem("_".join(Path(video).parts).lstrip("/_.")) + suffix)
        make_folder(path.parent)
        return path
