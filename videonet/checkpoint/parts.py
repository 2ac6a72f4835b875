"""Checkpoints that are more than one file: parts with an index, and folders."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml
from torch import Tensor

from videonet.checkpoint.files import SHARDED, read_file
from videonet.errors import CheckpointError

INDEX = ".index.json"  # ends the name of the table: tensor -> file
PART = re.compile(r"(.+)-(\d+)-of-(\d+)(\.\w+)")
# Files of a model hub's folder, the first one that is there.
HUB_FILES = (
    "model.safetensors",
    f"model.safetensors{INDEX}",
    "pytorch_model.bin",
    f"pytorch_model.bin{INDEX}",
)
CONFIG = "config.json"  # beside them
FORMAT = "videonet"  # in the config of a model of this project
ADAPTERS = ("adapter_model.safetensors", "adapter_model.bin")
LATEST = "latest"  # DeepSpeed's file with the name of the newest folder
MODEL_STATES = "*mp_rank_*_model_states.pt"
LARGEST_INDEX = 64 << 20  # bytes
LARGEST_CONFIG = 16 << 20


def read_folder(path: str | Path, local: Path) -> dict:
    """The checkpoint in a folder; see :func:`~videonet.checkpoint.read.read_checkpoint`.

    Raises:
        CheckpointError: there is none, or it is of a kind that cannot be read.
    """
    if local.suffix == SHARDED:
        from videonet.checkpoint.sharded import read_sharded  # on use: it takes long to import

        return read_sharded(local)
    if (local / ".metadata").exists() or any(local.glob("*.distcp")):
        raise CheckpointError(
            f"{path} is a folder of torch.distributed.checkpoint, whose index is a pickle, which "
            "may run code and is not opened; if you trust it, convert it by `python -m "
            f"torch.distributed.checkpoint.format_utils dcp_to_torch {path} FILE`"
        )
    if (local / LATEST).is_file() or any(local.glob(MODEL_STATES)):
        return _read_deepspeed(path, local)
    for name in HUB_FILES:
        if (local / name).is_file():
            content = (
                read_index(path, local / name)
                if name.endswith(INDEX)
                else read_file(local / name, local / name)
            )
            return {**content, **_own_config(local / CONFIG)}
    indices = sorted(local.glob(f"*{INDEX}"))
    if len(indices) == 1:
        return read_index(path, indices[0])
    if any((local / name).is_file() for name in ADAPTERS):
        raise CheckpointError(
            f"{path} is a folder of adapters (peft), which hold no model: merge them into it "
            "(merge_and_unload) and save that"
        )
    if (local / "checkpoints").is_dir():
        raise CheckpointError(
            f"{path} is a folder of a run, expected a checkpoint: give a file in its checkpoints"
        )
    raise CheckpointError(
        f"{path} is a folder, expected a checkpoint file, or a folder with one of "
        f"{', '.join(HUB_FILES)}, shards of this project or a checkpoint of DeepSpeed"
    )


def _own_config(path: Path) -> dict:
    """The configuration and class names beside the weights of a model of this project.

    Those of other projects are left alone.
    """
    if not path.is_file():
        return {}
    try:
        if path.stat().st_size > LARGEST_CONFIG:
            raise CheckpointError(f"{path} is too large for the config of a model")
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise CheckpointError(f"{path} is not the config of a model: it is no JSON") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        return {}
    if not isinstance(found.get("config"), dict):
        raise CheckpointError(f"{path} has no groups of keys under config")
    # As text: a configuration from elsewhere is read by the rules of all of them.
    text = yaml.safe_dump(found["config"], allow_unicode=True)
    return {"cfg": text, "class_names": found.get("class_names"), "format": FORMAT}


def read_index(path: str | Path, index: Path) -> dict:
    """All tensors of an index, ``{"weight_map": {tensor: file beside it}}``.

    Raises:
        CheckpointError: the index or a file of it is missing, damaged, or somewhere else.
    """
    try:
        if index.stat().st_size > LARGEST_INDEX:
            raise CheckpointError(f"{index} is too large for an index of weights")
        table = json.loads(index.read_text(encoding="utf-8"))
        table = table["weight_map"] if isinstance(table, dict) else None
    except (ValueError, RecursionError, KeyError, OSError):
        table = None
    if (
        not isinstance(table, dict)
        or not table
        or not all(isinstance(v, str) for v in table.values())
    ):
        raise CheckpointError(
            f"{index} is JSON, but not an index of weights, which has a weight_map of tensors and "
            "files"
        )
    tensors: dict[str, Tensor] = {}
    for name in sorted(set(table.values())):
        if Path(name).name != name or name in ("", ".", ".."):
            raise CheckpointError(f"{index} names the file {name!r}, which is not beside it")
        if not (index.parent / name).is_file():
            raise CheckpointError(
                f"{path} is an index of weights in several files, and {name} is not beside it"
            )
        found = read_file(index.parent / name, index.parent / name)
        found = found["model_state"] if name.endswith(".safetensors") else found
        wanted = [tensor for tensor, place in table.items() if place == name]
        if lost := [tensor for tensor in wanted if tensor not in found]:
            raise CheckpointError(
                f"{index.parent / name} lacks {lost[0]}, which {index.name} places there"
            )
        tensors |= {tensor: found[tensor] for tensor in wanted}
    return {"model_state": tensors}


def refuse_single_part(path: str | Path, local: Path) -> None:
    """Refuse one of the several files of a model.

    Raises:
        CheckpointError: the name says ``-00001-of-00002``.
    """
    match = PART.fullmatch(local.name)
    if match and int(match[3]) > 1:
        raise CheckpointError(
            f"{path} is one of {int(match[3])} parts: give their index, "
            f"{match[1]}{match[4]}{INDEX}, or the folder"
        )


def _read_deepspeed(path: str | Path, local: Path) -> dict:
    """The weights of a checkpoint of DeepSpeed: those of its only model-parallel rank."""
    folder = local
    if (local / LATEST).is_file():
        name = (local / LATEST).read_text(encoding="utf-8", errors="replace")[:200].strip()
        if Path(name).name != name or not (local / name).is_dir():
            raise CheckpointError(f"{local / LATEST} names the folder {name!r}, which is not there")
        folder = local / name
    states = sorted(folder.glob(MODEL_STATES))
    if not states:
        raise CheckpointError(
            f"{path} is a folder of DeepSpeed without mp_rank_00_model_states.pt in {folder}"
        )
    if len(states) > 1:
        raise CheckpointError(
            f"{path} is a checkpoint of DeepSpeed in {len(states)} parts ({states[0].name}, …): "
            "join them by its own zero_to_fp32.py and give the file that it writes"
        )
    return read_file(states[0], states[0])
