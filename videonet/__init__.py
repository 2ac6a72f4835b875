"""Video understanding, spatiotemporal-first: an image is a one-frame clip."""

from videonet.models import create_model, list_models

__version__ = "0.1.0"
__all__ = ["create_model", "list_models"]
