"""Architectures, one file each, the registry of their published sizes, and published weights."""

from videonet.models.registry import create_model, list_models, list_weights
from videonet.models.weights import get_weights

__all__ = ["create_model", "get_weights", "list_models", "list_weights"]
