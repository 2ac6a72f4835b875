"""Checkpoints in shards: a folder with one safetensors file per process, through torch's DCP.

DCP's own format keeps its index in a pickle, which may run code when it is read; its safetensors
format does not. Everything but the tensors, and the checksums of the shards, lies in ``rest.pyth``.
"""

from __future__ import annotations

import os
import shutil
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor

from videonet.checkpoint.files import flush_to_disk, read_file, remove_folder, write_checkpoint
from videonet.errors import CheckpointError

REST = "rest.pyth"
GROUPS = ("model_state", "ema_state", "optimizer_state")  # the tables whose tensors are sharded


def write_sharded(folder: Path, content: Mapping) -> None:
    """Write a checkpoint, every process its shards; called by all processes together.

    The folder appears when everything in it is on the disk.

    Args:
        content: as for :func:`~videonet.checkpoint.files.write_checkpoint`; of the ``GROUPS``, the
            DTensors are written in shards. The first process's other entries are written.

    Raises:
        CheckpointError: the files cannot be written.
    """
    _, storage = _require_safetensors()
    rank, processes = dist.get_rank(), dist.get_world_size()
    temporary = folder.with_name(f".{folder.name}.tmp")
    if rank == 0:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    dist.barrier()
    tensors, rest = split(content)
    try:
        dcp.save(tensors, storage_writer=storage(str(temporary), save_distributed=True))
        mine = sorted(temporary.glob("*.safetensors"))[rank::processes]
        for path in mine:
            flush_to_disk(path)
        checksums = [{path.name: _checksum(path) for path in mine}] * processes
    except (dcp.api.CheckpointException, OSError) as error:
        raise CheckpointError(f"cannot write checkpoint {folder}: {error}") from error
    dist.all_gather_object(checksums, checksums[0])
    if rank == 0:
        merged = {name: value for part in checksums for name, value in part.items()}
        write_checkpoint(temporary / REST, {**rest, "checksums": merged})
        remove_folder(folder)  # a damaged one of the same name
        os.replace(temporary, folder)
        flush_to_disk(folder.parent)
    dist.barrier()


def read_rest(folder: Path) -> dict:
    """Everything but the tensors."""
    return read_file(folder / REST, folder / REST)


def load_shards(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Fill `tensors` (those of :func:`split`) in place; called by all processes together.

    The number of processes need not be that of the writers.

    Raises:
        CheckpointError: the folder lacks a tensor or has it in another shape.
    """
    reader, _ = _require_safetensors()
    try:
        dcp.load(tensors, storage_reader=reader(str(folder)))
    except (dcp.api.CheckpointException, RuntimeError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{folder} belongs to another model or optimiser than this configuration, so the run "
            f"cannot go on from it; choose another OUTPUT_DIR or set TRAIN.AUTO_RESUME False"
        ) from error


def has_averages(folder: Path) -> bool:
    """Whether the shards hold averaged weights."""
    reader, _ = _require_safetensors()
    names = reader(str(folder)).read_metadata().state_dict_metadata
    return any(name.startswith("ema_state.") for name in names)


def read_sharded(folder: Path) -> dict:
    """The whole content on the CPU of this process, as ``read_checkpoint`` gives of one file."""
    reader, _ = _require_safetensors()
    rest = read_rest(folder)
    source = reader(str(folder))
    sizes = source.read_metadata().state_dict_metadata
    tensors = {
        name: torch.empty(entry.size, dtype=entry.properties.dtype) for name, entry in sizes.items()
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there are no other processes: as wanted
        dcp.load(tensors, storage_reader=source, no_dist=True)
    for group in GROUPS:
        found = {
            name.removeprefix(f"{group}."): tensor
            for name, tensor in tensors.items()
            if name.startswith(f"{group}.")
        }
        rest[group] = {**rest.get(group, {}), **found}
    return rest


def verify_sharded(folder: Path) -> None:
    """Compare every shard with its checksum.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    for name, checksum in read_rest(folder)["checksums"].items():
        try:
            same = _checksum(folder / name) == checksum
        except OSError as error:
            raise CheckpointError(f"{folder} is damaged: {error}") from error
        if not same:
            raise CheckpointError(f"{folder} is damaged: the checksum of its {name} does not match")


def split(content: Mapping) -> tuple[dict[str, Tensor], dict]:
    """The tensors of ``GROUPS`` as one table ``group.name``, and everything else."""
    tensors, rest = {}, {}
    for key, value in content.items():
        if key not in GROUPS:
            rest[key] = value
            continue
        rest[key] = {n: item for n, item in value.items() if not isinstance(item, Tensor)}
        for name, item in value.items():
            if isinstance(item, Tensor):
                tensors[f"{key}.{name}"] = item
    return tensors, rest


def _checksum(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            value = zlib.crc32(block, value)
    return value


def _require_safetensors() -> tuple[type, type]:
    """DCP's reader and writer of safetensors."""
    try:
        from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter
    except ImportError as error:
        raise CheckpointError(
            f"checkpoints in shards need torch 2.8 or newer, this is {torch.__version__}"
        ) from error
    return HuggingFaceStorageReader, HuggingFaceStorageWriter
