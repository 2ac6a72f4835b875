"""What is chosen for a training, and why, in words; see :mod:`videonet.finetuning.plan`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Choice:
    """One thing that was chosen.

    Attributes:
        what: the thing ("size of a frame").
        value: what was chosen, in words.
        why: the reason, a phrase.
        keys: which keys of the configuration say so, and their values; with their groups.
    """

    what: str
    value: str
    why: str
    keys: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.what}: {self.value}; {self.why}"


@dataclass(frozen=True)
class Machine:
    """Where a model is trained.

    Attributes:
        device: "cpu", "cuda", "mps".
        name: of the device, for people.
        memory: of the GPU in GiB; 0 on the CPU.
        cores: of the CPU.
    """

    device: str
    name: str = ""
    memory: float = 0.0
    cores: int = 1

    @property
    def fast(self) -> bool:
        """Whether it trains models of the usual size in hours."""
        return self.device == "cuda"


@dataclass(frozen=True)
class StartingWeights:
    """Weights that a training may start from.

    Attributes:
        source: a name, a file or a folder; empty for random weights.
        model: name of the architecture.
        frames: per clip; 1 for weights of images, 0 for any number.
        size: side of the crop in pixels; 0 for any.
        stride: of dense clips, in frames at `fps`.
        fps: rate that `stride` counts in; 0 for the video's own.
        sampling: "dense" or "segments".
        trained_on: data sets, for people.
        config: groups of keys that belong to the weights (``MODEL``, ``DATA``, …).
        given: somebody asked for them.
        made: this machine makes them before the training.
    """

    source: str
    model: str
    frames: int
    size: int
    stride: int = 1
    fps: float = 0.0
    sampling: str = "dense"
    trained_on: str = ""
    config: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    given: bool = False
    made: bool = False


def time_in_words(seconds: float) -> str:
    """A length of time as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    if seconds < 5400:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours"


def configuration(base: Mapping[str, Any], choices: Sequence[Choice]) -> dict[str, Any]:
    """Groups of keys with their values: those of `base`, changed by choices in their order."""
    config: dict[str, Any] = {
        group: dict(keys) if isinstance(keys, Mapping) else keys for group, keys in base.items()
    }
    for choice in choices:
        for key, value in choice.keys.items():
            group, _, name = key.rpartition(".")
            if group:
                config.setdefault(group, {})[name] = value
            else:
                config[name] = value
    return config
