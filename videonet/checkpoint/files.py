"""Reading and writing checkpoint files: no code is run, and a write is whole or not at all."""

from __future__ import annotations

import json
import os
import pickle
import pickletools
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from iopath.common.file_io import HTTPURLHandler, PathManager
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from videonet.errors import CheckpointError

METADATA_KEY = "videonet"  # in safetensors files: everything but the tensors, as one JSON text
SHARDED = ".sharded"  # ends the name of a folder with a checkpoint in shards
GIT_LFS_POINTER = b"version https://git-lfs"


def read_checkpoint(path: str | Path) -> dict:
    """Read a checkpoint file.

    Args:
        path: a file or a URL (downloaded once into iopath's cache), as written by
            :func:`write_checkpoint`, ``torch.save`` or safetensors; or a folder of shards.

    Returns:
        What the file holds, tensors on the CPU. For a safetensors file: its tensors under
        ``model_state`` beside its metadata.

    Raises:
        CheckpointError: there is no such file, it is no checkpoint, or it is damaged or asks to
            run code.
    """
    local = _local_path(str(path))
    if local.is_dir() and local.suffix == SHARDED:
        from videonet.checkpoint.sharded import read_sharded  # it builds on this file

        return read_sharded(local)
    try:
        with local.open("rb") as file:
            start = file.read(64)
    except FileNotFoundError:
        raise CheckpointError(f"checkpoint {path} does not exist") from None
    except IsADirectoryError:
        raise CheckpointError(f"{path} is a folder, expected a checkpoint file") from None
    except OSError as error:
        raise CheckpointError(f"cannot read checkpoint {path}: {error.strerror}") from error
    _refuse_what_is_no_checkpoint(path, start)
    if local.suffix == ".safetensors" or start[8:9] == b"{":
        return _read_safetensors(path, local)
    content = _read_torch(path, local)
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{path} holds a {type(content).__name__}, expected a dictionary with the weights"
        )
    return dict(content)


def verify_checkpoint(path: str | Path) -> None:
    """Compare a file of ``torch.save`` with the CRC-32 of each tensor in it, or the shards of a
    folder with theirs; reading does not.

    Raises:
        CheckpointError: the file is damaged.
    """
    if Path(path).is_dir():
        from videonet.checkpoint.sharded import verify_sharded  # it builds on this file

        return verify_sharded(Path(path))
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception as error:  # zipfile fails in many ways on a damaged archive
        raise CheckpointError(f"{path} is a truncated or damaged checkpoint") from error
    if damaged is not None:
        raise CheckpointError(f"{path} is damaged: the checksum of its {damaged} does not match")


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
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".safetensors":
            tensors, metadata = _split_for_safetensors(path, content)
            save_file(tensors, temporary, metadata)
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
    cause = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return str(error).partition("\n")[0]


def _local_path(path: str) -> Path:
    manager = PathManager()
    manager.register_handler(HTTPURLHandler())
    try:
        return Path(manager.get_local_path(path))
    except Exception as error:  # urllib, sockets, iopath's own: all mean "not downloaded"
        raise CheckpointError(f"cannot fetch checkpoint {path}: {error}") from error


def _refuse_what_is_no_checkpoint(path: str | Path, start: bytes) -> None:
    if not start:
        raise CheckpointError(f"{path} is an empty file, expected a checkpoint")
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        raise CheckpointError(
            f"{path} is an HTML or XML page, not a checkpoint (an error page of a download?)"
        )
    if start.startswith(GIT_LFS_POINTER):
        raise CheckpointError(f"{path} is a Git LFS pointer, not the checkpoint itself")


def _read_safetensors(path: str | Path, local: Path) -> dict:
    try:
        with safe_open(local, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = dict(file.metadata() or {})
        own = json.loads(metadata.pop(METADATA_KEY, "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is a truncated or damaged safetensors file") from error
    return {**metadata, **own, "model_state": tensors}


def _read_torch(path: str | Path, local: Path):
    try:
        return torch.load(local, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        match = re.search(r"GLOBAL (\S+)", str(error))
        wanted = match[1] if match else _first_object_in_pickle(local)
        if wanted is None:
            raise CheckpointError(f"{path} is not a checkpoint, or it is damaged") from error
        raise CheckpointError(
            f"{path} asks for the Python object {wanted} when it is opened, which is refused: "
            "a checkpoint may hold only tensors, numbers, text and containers of these"
        ) from error
    except Exception as error:  # the unpickler fails in many ways on a file cut short
        raise CheckpointError(f"{path} is a truncated or damaged checkpoint") from error


def _first_object_in_pickle(local: Path) -> str | None:
    """The first thing that a bare pickle would import, found without running it."""
    texts = []
    try:
        with local.open("rb") as file:
            for opcode, argument, _ in pickletools.genops(file):
                if opcode.name == "GLOBAL":
                    return argument.replace(" ", ".")
                if opcode.name == "STACK_GLOBAL":
                    return ".".join(texts[-2:])
                if isinstance(argument, str):
                    texts.append(argument)
    except ValueError:  # no pickle, or cut short
        return None
    return None


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
    """Return when a file's content, or a folder's list of names, has reached the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
