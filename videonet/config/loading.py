"""Finding, loading and saving configs."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from fvcore.common.config import CfgNode

from videonet.config import foreign
from videonet.config.arguments import model_arguments
from videonet.config.checks import check
from videonet.config.defaults import DEFAULTS, default_config, flatten
from videonet.config.reading import Entry, read_overrides, read_text, read_yaml
from videonet.config.values import convert
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
    path = Path(name).expanduser()
    if path.is_file():
        return path
    folder = next((folder for folder in SHIPPED if folder.is_dir()), None)
    if folder is not None and not path.is_absolute():
        parts = path.parts[1:] if path.parts[:1] == ("configs",) else path.parts
        shipped = folder.joinpath(*parts)
        if parts and ".." not in parts and shipped.is_file():
            return shipped
    names = sorted(str(p.relative_to(folder)) for p in folder.rglob("*.yaml")) if folder else []
    raise ConfigError(f"config {name} does not exist; shipped are {', '.join(names) or 'none'}")


def load_config(path: str | Path | None, overrides: Sequence[str] = ()) -> CfgNode:
    """A complete config: defaults, then the file and its ``_BASE_``, then KEY VALUE overrides.

    Args:
        path: anything :func:`find_config` takes; None for the defaults alone.
        overrides: ``["SOLVER.BASE_LR", "0.01", …]``.

    Returns:
        A frozen config in which every value has its key's type and has been checked.

    Raises:
        ConfigError: a file, key or value that cannot be used, in one sentence.
    """
    entries = read_yaml(find_config(path)) if path is not None else {}
    return _build(entries | read_overrides(overrides))


def load_config_text(text: str, overrides: Sequence[str] = (), name: str = "config") -> CfgNode:
    """The same from the text of a saved config, such as the one inside a checkpoint.

    Args:
        text: YAML without ``_BASE_``.
        overrides: as for :func:`load_config`.
        name: stands for the text in messages.

    Raises:
        ConfigError: a key or value that cannot be used, in one sentence.
    """
    return _build(read_text(text, name) | read_overrides(overrides))


def save_config(cfg: CfgNode, path: str | Path) -> None:
    """Write every key of `cfg` to a YAML file that :func:`load_config` reads back."""
    with replacing_text(Path(path)) as file:
        file.write(cfg.dump())


def _build(entries: Mapping[str, Entry]) -> CfgNode:
    foreign.refuse_absent(entries)
    cfg = default_config()
    for key, entry in (foreign.implied(entries) | entries).items():
        _set(cfg, key, entry)
    if cfg.NUM_GPUS == 0 and cfg.DEVICE == "auto":
        cfg.DEVICE = "cpu"
    if cfg.DATA.ENSEMBLE_METHOD == "max" and "TEST.ENSEMBLE" not in entries:
        cfg.TEST.ENSEMBLE = "max"
    check(cfg, {key: entry.where for key, entry in entries.items()})
    model_arguments(cfg)  # a description of a model that contradicts itself is found here
    cfg.freeze()
    return cfg


def _set(cfg: CfgNode, key: str, entry: Entry) -> None:
    known = flatten(DEFAULTS)
    if key in known:
        *groups, name = key.split(".")
        node = cfg
        for group in groups:
            node = node[group]
        value = convert(key, entry, known[key])
        synonym = foreign.SYNONYMS.get((key, value)) if isinstance(value, str) else None
        if synonym:
            logger.info("%s in %s: %s is read as %s", key, entry.where, value, synonym)
        node[name] = synonym or value
    elif key in DEFAULTS or key in foreign.groups():
        if entry.value is not None and entry.value != {}:
            raise ConfigError(f"{key} in {entry.where} is a group of keys and takes no value")
    elif not foreign.accept(key, entry):
        raise ConfigError(f"unknown key {key} in {entry.where}: {_hint(key, known)}")


def _hint(key: str, known: dict) -> str:
    by_name = [candidate for candidate in known if candidate.split(".")[-1] == key.split(".")[-1]]
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.75) or by_name
    near = near or difflib.get_close_matches(key, known, n=1)
    return f"did you mean {near[0]}?" if near else "no key of videonet has a similar name"
