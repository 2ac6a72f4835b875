"""The old name of :mod:`videonet.inference`; importing it warns."""

import warnings

from videonet.inference import Prediction, Predictor, WindowScores

__all__ = ["Prediction", "Predictor", "WindowScores"]

warnings.warn(
    "videonet.predict is deprecated: import videonet.inference instead", FutureWarning, stacklevel=2
)
