"""Architectures, one file each, and the registry of their published sizes."""

from videonet.models.registry import create_model, list_models

__all__ = ["create_model", "list_models"]
