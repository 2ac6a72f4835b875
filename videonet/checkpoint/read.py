"""Reading and verifying a checkpoint of any form: a file, files with an index, or a folder."""

from __future__ import annotations

from pathlib import Path

from videonet.checkpoint.archives import check_archive
from videonet.checkpoint.files import read_file
from videonet.checkpoint.parts import read_folder, read_index, refuse_single_part
from videonet.checkpoint.remote import local_path
from videonet.errors import CheckpointError


def read_checkpoint(path: str | Path) -> dict:
    """Read a checkpoint; no code in it is run.

    Args:
        path: a file or a URL (downloaded once, see :func:`~videonet.checkpoint.remote.local_path`),
            as written by :func:`~videonet.checkpoint.files.write_checkpoint`, ``torch.save`` or
            safetensors; ``hf-hub:OWNER/NAME``; an
            index of safetensors or ``torch.save`` files (``….index.json``); or a folder: of shards,
            of a model hub (``model.safetensors``, or parts with their index), of DeepSpeed.

    Returns:
        What it holds, tensors on the CPU. For safetensors: the tensors under ``model_state``
        beside the metadata.

    Raises:
        CheckpointError: there is no such file, it is no checkpoint, or it is damaged, asks to
            run code, or unpacks into far more than its own size.
    """
    local = local_path(str(path))
    try:
        is_folder = local.is_dir()
    except (OSError, ValueError):
        raise CheckpointError(
            f"there is no checkpoint of the name {str(path)[:80]!r}…, which no file can have"
        ) from None
    if is_folder:
        return read_folder(path, local)
    refuse_single_part(path, local)
    if local.suffix == ".json" and local.is_file():
        return read_index(path, local)
    return read_file(path, local)


def verify_checkpoint(path: str | Path) -> None:
    """Compare what was written with its checksums.

    Args:
        path: a file of ``torch.save``, whose records have checksums and whose directory has to
            agree with them; or a folder of shards.

    Raises:
        CheckpointError: the file is damaged.
    """
    if Path(path).is_dir():
        from videonet.checkpoint.sharded import verify_sharded  # on use: it takes long to import

        verify_sharded(Path(path))
        return
    check_archive(Path(path), path)
