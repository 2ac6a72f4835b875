"""Finding, loading and saving configs."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fvcore.common.config import CfgNode

import videonet.config.pyslowfast as pyslowfast
from videonet.config.arguments import drop_path_rate, model_arguments
from videonet.config.checks import check, get
from videonet.config.defaults import default_config
from videonet.config.keys import GROUPS, KEYS, MAPPINGS, nearest_key
from videonet.config.layers import merge_layers
from videonet.config.reading import (
    Entry,
    read_overrides,
    read_text,
    read_yaml,
    with_home,
)
from videonet.config.values import convert, plain
from videonet.errors import ConfigError
from videonet.files import replacing_text

logger = logging.getLogger(__name__)

# In a wheel the shipped configs lie inside the package, in a checkout beside it.
SHIPPED = tuple(Path(__file__).resolve().parents[i] / "configs" for i in (1, 2))


def find_config(name: str | Path) -> Path:
    """A path that exists, else the shipped config of that name.

    Args:
        name: a file, or a shipped config as ``K400/MVITv2_B.yaml`` or
            ``configs/K400/MVITv2_B.yaml``.

    Raises:
        ConfigError: neither exists.
    """
    path = with_home(name)
    if os.path.isfile(path):
        return path
    folder = next((folder for folder in SHIPPED if folder.is_dir()), None)
    if folder is not None and not path.is_absolute():
        parts = path.parts[1:] if path.parts[:1] == ("configs",) else path.parts
        shipped = folder.joinpath(*parts)
        if parts and ".." not in parts and os.path.isfile(shipped):
            return shipped
    names = sorted(str(p.relative_to(folder)) for p in folder.rglob("*.yaml")) if folder else []
    raise ConfigError(f"config {name} does not exist; shipped are {', '.join(names) or 'none'}")


def load_config(path: str | Path | None, overrides: Sequence[str] = ()) -> CfgNode:
    """A complete config: the defaults, changed by a file's ``_BASE_``, the file, the overrides.

    Args:
        path: anything :func:`find_config` takes; None for the defaults alone.
        overrides: ``["SOLVER.BASE_LR", "0.01", …]`` or ``["SOLVER.BASE_LR=0.01", …]``.

    Returns:
        A frozen config in which every value has its key's type and has been checked.

    Raises:
        ConfigError: a file, key or value that cannot be used, in one sentence.
    """
    layers = read_yaml(find_config(path)) if path is not None else []
    return _build([*layers, read_overrides(overrides)])


def load_config_text(text: str, overrides: Sequence[str] = (), name: str = "config") -> CfgNode:
    """A complete config from the text of a saved one, such as that inside a checkpoint.

    Args:
        text: YAML without ``_BASE_``.
        overrides: as for :func:`load_config`.
        name: stands for the text in messages.

    Returns:
        What :func:`load_config` returns.

    Raises:
        ConfigError: a key or value that cannot be used, in one sentence.
    """
    return _build([read_text(text, name), read_overrides(overrides)])


def save_config(cfg: CfgNode, path: str | Path) -> None:
    """Write every key to a YAML file that :func:`load_config` reads back.

    Args:
        cfg: a complete config.
        path: the file; its folder is made.

    Raises:
        WriteError: the file cannot be written.
    """
    with replacing_text(Path(path)) as file:
        file.write(cfg.dump())


def _build(layers: Sequence[Mapping[str, Entry]]) -> CfgNode:
    entries = merge_layers(layers)
    pyslowfast.refuse_absent(entries)
    cfg = default_config()
    for key, entry in (pyslowfast.implied(entries) | entries).items():
        _set(cfg, key, entry)
    if cfg.NUM_GPUS == 0 and cfg.DEVICE == "auto":
        cfg.DEVICE = "cpu"
    cfg.MODEL.DROPPATH_RATE = drop_path_rate(cfg)
    check(cfg, {key: entry.where for key, entry in entries.items()})
    model_arguments(cfg)  # raises where the description of a model contradicts itself
    cfg.freeze()
    return cfg


def _set(cfg: CfgNode, key: str, entry: Entry) -> None:
    group, _, name = key.rpartition(".")
    if key in KEYS:
        value = convert(key, entry)
        synonym = pyslowfast.SYNONYMS.get((key, value)) if isinstance(value, str) else None
        if synonym:
            logger.info("%s in %s: %s is read as %s", key, entry.where, value, synonym)
        get(cfg, group)[name] = synonym or value
    elif group in MAPPINGS:
        get(cfg, group)[name] = _node(plain(entry.value))
    elif key in GROUPS or key in pyslowfast.groups():
        if entry.value is not None and entry.value != {}:
            raise ConfigError(f"{key} in {entry.where} is a group of keys and takes no value")
    elif not pyslowfast.accept(key, entry):
        raise ConfigError(f"unknown key {key} in {entry.where}: {nearest_key(key)}")


def _node(value: Any) -> Any:
    """A value as a config holds it: mappings become nodes, whose keys are text."""
    if isinstance(value, dict):
        return CfgNode({str(key): _node(item) for key, item in value.items()})
    return value
