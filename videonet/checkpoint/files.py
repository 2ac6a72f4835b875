"""Single checkpoint files: no code is run, and a write is whole or not at all."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from videonet.checkpoint.archives import check_archive, is_archive
from videonet.checkpoint.array_pickles import read_arrays
from videonet.checkpoint.formats import explain_refusal, refuse_what_is_no_checkpoint
from videonet.checkpoint.sizes import check_sizes
from videonet.errors import CheckpointError

METADATA_KEY = "videonet"  # in safetensors files: everything but the tensors, as one JSON text
SHARDED = ".sharded"  # ends the name of a folder with a checkpoint in shards


def read_file(path: str | Path, local: Path) -> dict:
    """Read one local file; see :func:`videonet.checkpoint.read.read_checkpoint`.

    Args:
        path: what messages call it.
        local: the file.

    Returns:
        What it holds, tensors on the CPU.

    Raises:
        CheckpointError: it cannot be read, is no checkpoint, or becomes far more than its own size.
    """
    try:
        if not local.is_file() and local.exists():
            raise CheckpointError(f"{path} is not a regular file, expected a checkpoint")
        with local.open("rb") as file:
            start = file.read(64)
    except FileNotFoundError:
        raise CheckpointError(f"checkpoint {path} does not exist") from None
    except OSError as error:
        raise CheckpointError(f"cannot read checkpoint {path}: {error.strerror}") from error
    refuse_what_is_no_checkpoint(path, start)
    if local.suffix == ".safetensors" or start[8:9] == b"{":
        return _read_safetensors(path, local)
    content = _read_torch(path, local)
    check_sizes(content, path)
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{path} holds a {type(content).__name__}, expected a dictionary with the weights"
        )
    return dict(content)


def write_checkpoint(path: str | Path, content: Mapping) -> None:
    """Write a checkpoint; whatever interrupts this, `path` holds the old content or the new.

    Args:
        path: the file. Its folder is made where it is missing.
        content: tensors, numbers, text and containers of these. For a path that ends in
            ``.safetensors``: tensors (at the top or under ``model_state``), and beside them only
            what JSON can express.

    Raises:
        CheckpointError: the file cannot be written, or the content does not suit the format.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".safetensors":
            tensors, metadata = _split_for_safetensors(path, content)
            temporary.touch()
            mode = temporary.stat().st_mode
            save_file(tensors, temporary, metadata)
            temporary.chmod(mode)  # safetensors makes files that nobody else may read
        else:
            with temporary.open("wb") as file:
                torch.save(dict(content), file)
        flush_to_disk(temporary)
        os.replace(temporary, path)
        flush_to_disk(path.parent)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError | RuntimeError | SafetensorError):
            raise CheckpointError(f"cannot write checkpoint {path}: {_reason(error)}") from error
        raise


def _reason(error: BaseException) -> str:
    """What the operating system said; torch hides that behind an error of its own."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return str(error).partition("\n")[0]


def _read_safetensors(path: str | Path, local: Path) -> dict:
    try:
        with safe_open(local, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = dict(file.metadata() or {})
        own = json.loads(metadata.pop(METADATA_KEY, "{}"))
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is a truncated or damaged safetensors file") from error
    if not isinstance(own, dict):
        raise CheckpointError(f"{path}: its metadata {METADATA_KEY!r} is no JSON object")
    return {**metadata, **own, "model_state": tensors}


def _read_torch(path: str | Path, local: Path):
    if is_archive(local):
        check_archive(local, path)
    try:
        return torch.load(local, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        try:
            return read_arrays(local)
        except pickle.UnpicklingError:
            raise CheckpointError(explain_refusal(path, local, error)) from error
    except Exception as error:  # the unpickler fails in many ways on a file cut short
        raise CheckpointError(f"{path} is a truncated or damaged checkpoint") from error


def _split_for_safetensors(path: Path, content: Mapping) -> tuple[dict[str, Tensor], dict]:
    tensors = dict(content.get("model_state", {}))
    rest = {}
    for key, value in content.items():
        if isinstance(value, Tensor):
            tensors[key] = value
        elif key != "model_state":
            rest[key] = value
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    try:
        return tensors, {"format": "pt", METADATA_KEY: json.dumps(rest)}
    except TypeError as error:
        raise CheckpointError(
            f"{path} would be a safetensors file, which holds tensors and JSON: {error}; "
            "write a .pyth file for training state"
        ) from error


def flush_to_disk(path: Path) -> None:
    """Return when a file's content, or a folder's list of names, has reached the disk.

    Windows has no descriptor of a folder, and writes its names with the files themselves.
    """
    is_folder = path.is_dir()
    if is_folder and sys.platform == "win32":
        return
    # Windows flushes only what was opened for writing.
    descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_folder(folder: Path) -> None:
    """Delete a folder so that no half of it can be taken for a checkpoint."""
    if folder.is_dir():
        condemned = folder.with_name(f".{folder.name}.old.tmp")
        os.replace(folder, condemned)
        shutil.rmtree(condemned)
