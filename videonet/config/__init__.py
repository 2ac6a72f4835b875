"""The configuration: keys and defaults, loading, checking, and what a model is built with."""

from videonet.config.arguments import model_arguments
from videonet.config.defaults import default_config
from videonet.config.loading import find_config, load_config, load_config_text, save_config

__all__ = [
    "default_config",
    "find_config",
    "load_config",
    "load_config_text",
    "model_arguments",
    "save_config",
]
