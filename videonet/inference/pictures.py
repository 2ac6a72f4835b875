"""Which pictures of a prediction are wanted, and where they go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from videonet.data.decode import PyAVReader
from videonet.data.texts import short_stem
from videonet.engine.plots import plot_prediction
from videonet.errors import ConfigError
from videonet.files import make_folder
from videonet.inference.explain import grad_cam
from videonet.inference.predictor import Prediction, Predictor
from videonet.inference.rendering import plot_heat, plot_timeline, write_heat_video, write_overlay
from videonet.inference.rollout import attention_rollout
from videonet.inference.segments import Segment

EXPLAINED_FPS = 4.0  # pictures a second of an explained clip
OVERLAY_CLASSES = 3


@dataclass
class Pictures:
    """Draws what was asked for of each video.

    A path is a file, or with `several` videos a folder that gets a file named after each video.
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

    def of_views(self, video: str, prediction: Prediction) -> None:
        """Frames and scores, and the explanation, of the middle view."""
        if self.picture is not None:
            names, scores = zip(*prediction.top, strict=True)
            target = self._target(self.picture, video, ".png")
            plot_prediction(prediction.clip, names, scores, video, target)
        if self.explain is not None:
            self._explain(video, prediction)

    def of_windows(
        self,
        video: str,
        times: Sequence[tuple[float, float]],
        scores: np.ndarray,
        segments: Sequence[Segment],
    ) -> None:
        """Timeline and overlay of a video, from the scores (N, K) of its windows."""
        names = self.predictor.class_names
        if self.timeline is not None:
            target = self._target(self.timeline, video, ".png")
            plot_timeline(times, scores, segments, names, video, target)
        if self.overlay is not None:
            best = np.argsort(-scores, axis=1)[:, :OVERLAY_CLASSES]
            tops = [
                [(names[k], float(row[k])) for k in order]
                for row, order in zip(scores, best, strict=True)
            ]
            target = self._target(self.overlay, video, ".mp4")
            with PyAVReader(video) as reader:
                frames = ((time, picture()) for time, picture in reader.forwards())
                write_overlay(frames, times, tops, reader.info.fps, target)
        if self.picture is not None or self.explain is not None:
            self.of_views(video, self.predictor(video))

    def _explain(self, video: str, prediction: Prediction) -> None:
        label = int(prediction.scores.argmax())
        clip = prediction.clip.unsqueeze(0)
        with self.predictor.lock:  # both watch the model while it runs
            if self.method == "rollout":
                heat = attention_rollout(self.predictor, clip)
            else:
                heat = grad_cam(self.predictor, clip, label)
        heat = heat[0].numpy()
        frames = prediction.clip.permute(1, 2, 3, 0).numpy()  # (T, H, W, 3)
        target = self._target(self.explain, video, ".png")
        if target.suffix.lower() == ".mp4":
            write_heat_video(frames, heat, prediction.top[:OVERLAY_CLASSES], EXPLAINED_FPS, target)
        else:
            name, score = prediction.top[0]
            plot_heat(frames, heat, f"{Path(video).name}: {name} {score:.2f}", target)

    def _target(self, path: Path, video: str, suffix: str) -> Path:
        if self.several:
            path = path / (short_stem("_".join(Path(video).parts).lstrip("/_.")) + suffix)
        make_folder(path.parent)
        return path
