"""Video files and streams in, labels over time out."""

from videonet.inference.predictions import Prediction, WindowScores
from videonet.inference.predictor import Predictor

__all__ = ["Prediction", "Predictor", "WindowScores"]
