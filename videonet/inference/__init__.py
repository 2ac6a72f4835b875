"""Video files and streams in, labels over time out."""

from videonet.inference.predictor import Prediction, Predictor, WindowScores

__all__ = ["Prediction", "Predictor", "WindowScores"]
