"""Video understanding, spatiotemporal-first: an image is a one-frame clip."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from videonet.checkpoint import LoadReport, load_checkpoint
    from videonet.errors import (
        CheckpointError,
        ConfigError,
        DataError,
        DecodeError,
        Interrupted,
        ScoreError,
        TrainingError,
        VideonetError,
        WriteError,
    )
    from videonet.inference import Prediction, Predictor, WindowScores
    from videonet.inference.dense import DensePredictor
    from videonet.models import create_model, get_weights, list_models, list_weights

__version__ = "0.1.0"

# Where each name is, which is imported when it is first asked for: torch takes seconds to import.
_PLACES = {
    "videonet.checkpoint": ("LoadReport", "load_checkpoint"),
    "videonet.errors": (
        "CheckpointError",
        "ConfigError",
        "DataError",
        "DecodeError",
        "Interrupted",
        "ScoreError",
        "TrainingError",
        "VideonetError",
        "WriteError",
    ),
    "videonet.models": ("create_model", "get_weights", "list_models", "list_weights"),
    "videonet.inference": ("Prediction", "Predictor", "WindowScores"),
    "videonet.inference.dense": ("DensePredictor",),
}
_MODULES = {name: module for module, names in _PLACES.items() for name in names}

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "DecodeError",
    "DensePredictor",
    "Interrupted",
    "LoadReport",
    "Prediction",
    "Predictor",
    "ScoreError",
    "TrainingError",
    "VideonetError",
    "WindowScores",
    "WriteError",
    "create_model",
    "get_weights",
    "list_models",
    "list_weights",
    "load_checkpoint",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'videonet' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
