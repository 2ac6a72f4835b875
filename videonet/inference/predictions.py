"""What a predictor says of a video, and of a window of one."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from videonet.inference.display import as_html, as_text
from videonet.tasks.task import Top
from videonet.terminal import ShortRepr


@dataclass(frozen=True, repr=False)
class Prediction(ShortRepr):
    """What a model says of a video.

    Attributes:
        top: (name, score) of what :meth:`videonet.tasks.Task.show` shows; of a classification the
            classes with the highest scores, best first.
        scores: one score per output over all views, (K,).
        clip_scores: the same of each view on its own, (V, K); of a classification with one label
            per video each row sums to 1.
        clip: the frames of the view in the middle of time and space, uint8 (3, T, H, W).
    """

    top: Top
    scores: Tensor
    clip_scores: Tensor
    clip: Tensor

    def __str__(self) -> str:
        return as_text(self.top)

    def _repr_html_(self) -> str:
        """What a notebook shows: names, scores and frames."""
        return as_html(self.top, self.clip)


@dataclass(frozen=True, repr=False)
class WindowScores(ShortRepr):
    """What a model says of one window of a video.

    Attributes:
        index: number of the window, from 0.
        start: seconds from the first frame.
        end: seconds from the first frame.
        scores: one score per output, (K,), over the window's crops.
        embedding: see :meth:`Predictor.run`; the mean over the crops.
    """

    index: int
    start: float
    end: float
    scores: Tensor
    embedding: Tensor
