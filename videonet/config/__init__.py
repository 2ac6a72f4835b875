"""The configuration: keys and defaults, loading, checking, and what a model is built with."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

# Where each name is, which is imported when it is first asked for, so that the help of commands,
# which needs the keys alone, need not wait for what loads a configuration.
_MODULES = {
    "default_config": "defaults",
    "find_config": "loading",
    "load_config": "loading",
    "load_config_text": "loading",
    "model_arguments": "arguments",
    "save_config": "loading",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'videonet.config' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"videonet.config.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
