"""The checkpoints of a run on disk: their names, the newest that can be read, the old ones."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from videonet.checkpoint.files import SHARDED, remove_folder
from videonet.checkpoint.read import verify_checkpoint
from videonet.errors import CheckpointError

logger = logging.getLogger(__name__)

PATTERN = "checkpoint_epoch_*"


def checkpoint_folder(output_dir: str | Path) -> Path:
    """Where a run keeps its checkpoints."""
    return Path(output_dir) / "checkpoints"


def checkpoint_path(
    output_dir: str | Path, epoch: int, step: int | None = None, *, sharded: bool = False
) -> Path:
    """The file for the state after `epoch` epochs, or `step` steps of the run into the next one.

    Names sort by time.

    Args:
        sharded: name a folder, for a checkpoint in shards.
    """
    within = "" if step is None else f"_step_{step:08d}"
    suffix = SHARDED if sharded else ".pyth"
    return checkpoint_folder(output_dir) / f"checkpoint_epoch_{epoch:05d}{within}{suffix}"


def saved_checkpoints(output_dir: str | Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    found = checkpoint_folder(output_dir).glob(PATTERN)
    return sorted(
        (path for path in found if path.suffix in (".pyth", SHARDED)), key=lambda path: path.stem
    )


def remove_old(output_dir: str | Path, keep: int) -> None:
    """Delete all but the newest `keep` checkpoints; 0 keeps all."""
    saved = saved_checkpoints(output_dir)
    for old in saved[:-keep] if keep else ():
        if old.is_dir():
            remove_folder(old)
        else:
            old.unlink()


def remove_unfinished(output_dir: str | Path) -> None:
    """Delete what a process that was killed left half written."""
    for part in checkpoint_folder(output_dir).glob(f".{PATTERN}.tmp"):
        if part.is_dir():
            shutil.rmtree(part)
        else:
            part.unlink()


def latest_valid(output_dir: str | Path) -> Path | None:
    """The newest checkpoint of a run whose checksums match; None where it has no checkpoint.

    A damaged one gives way to the one before, with a warning.

    Raises:
        CheckpointError: there are checkpoints, and every one is damaged.
    """
    saved = saved_checkpoints(output_dir)
    for path in reversed(saved):
        try:
            verify_checkpoint(path)
        except CheckpointError as error:
            logger.warning("%s; the checkpoint before it is taken", error)
        else:
            return path
    if saved:
        raise CheckpointError(
            f"all {len(saved)} checkpoints in {saved[0].parent} are damaged; to start anew, remove "
            f"them or choose another OUTPUT_DIR"
        )
    return None


def newest_checkpoint(path: str | Path) -> str | Path:
    """The checkpoint itself, or the newest whole one where `path` is the folder of a run.

    Raises:
        CheckpointError: the folder holds no checkpoint that can be read.
    """
    is_run = Path(path).is_dir() and Path(path).suffix != SHARDED
    if not is_run or (not checkpoint_folder(path).is_dir() and any(Path(path).iterdir())):
        return path  # other folders are read as a whole
    found = latest_valid(path)
    if found is None:
        raise CheckpointError(f"{path} holds no checkpoints/{PATTERN}")
    return found
