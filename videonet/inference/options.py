"""How videos are scored: which clips of them, and what is made of the clips' scores."""

from __future__ import annotations

from dataclasses import dataclass, field

from videonet.errors import ConfigError
from videonet.tasks.segments import Hysteresis


@dataclass(frozen=True)
class Options:
    """How videos are scored.

    Attributes:
        top_k: the most outputs that are named.
        sliding: windows over the whole video instead of the views of testing.
        window: seconds, see :meth:`Predictor.plan`.
        stride: seconds, see :meth:`Predictor.plan`.
        crops: 1 or 3 of each window.
        aggregate: how the scores of clips become those of the video: "mean", "max", "attention"
            (needs the predictor's ``video_head``), or "" for ``TEST.ENSEMBLE`` of the views and the
            mean of windows.
        segments: when a segment begins and ends.
    """

    top_k: int = 5
    sliding: bool = False
    window: float | None = None
    stride: float | None = None
    crops: int = 1
    aggregate: str = ""
    segments: Hysteresis = field(default_factory=Hysteresis)

    def __post_init__(self) -> None:
        if self.top_k < 1:
            raise ConfigError(f"--top-k is {self.top_k}, expected 1 or more")
