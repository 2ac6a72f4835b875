"""Video files and streams in, labels over time out."""

from videonet.predict.predictor import Prediction, Predictor

__all__ = ["Prediction", "Predictor"]
