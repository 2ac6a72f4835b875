"""Video understanding, spatiotemporal-first: an image is a one-frame clip."""

from videonet.checkpoint import load_checkpoint
from videonet.models import create_model, list_models
from videonet.predict import Predictor

__version__ = "0.1.0"
__all__ = ["Predictor", "create_model", "list_models", "load_checkpoint"]
