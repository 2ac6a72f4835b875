"""Messages about files that are no checkpoints or cannot be read without running code."""

from __future__ import annotations

import pickletools
import re
from pathlib import Path

from videonet.errors import CheckpointError

# (how the file begins, what it is)
SIGNS = (
    (b"version https://git-lfs", "a Git LFS pointer, not the checkpoint itself"),
    (b"\x89HDF", "an HDF5 file (Keras?), not a checkpoint of PyTorch"),
    (b"GGUF", "a GGUF file, not a checkpoint of PyTorch"),
    (b"\x93NUMPY", "a NumPy array, not a checkpoint"),
    (b"\x1f\x8b", "compressed by gzip: unpack it first"),
    (b"BZh", "compressed by bzip2: unpack it first"),
    (b"\xfd7zXZ", "compressed by xz: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd: unpack it first"),
)
# (what a pickle asks for begins so, what such a file holds and what helps)
REFUSED = (
    (
        ("torch.distributed.tensor.", "torch.distributed._tensor.", "torch.distributed._shard."),
        "its tensors are one process's shards; save the full tensors (get_model_state_dict with "
        "full_state_dict=True) or convert the folder of torch.distributed.checkpoint by "
        "`python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER FILE`",
    ),
    (
        ("torch.nn.modules.", "torch.nn.parallel.", "torchvision.models.", "timm.models."),
        "it is a whole pickled module; where you trust it, save the module's state_dict() instead",
    ),
)


def refuse_what_is_no_checkpoint(path: str | Path, start: bytes) -> None:
    """Refuse a file by how it begins.

    Raises:
        CheckpointError: it is something else.
    """
    if not start:
        raise CheckpointError(f"{path} is an empty file, expected a checkpoint")
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        raise CheckpointError(
            f"{path} is an HTML or XML page, not a checkpoint (an error page of a download?)"
        )
    if str(path).endswith(".distcp"):
        raise CheckpointError(
            f"{path} holds the shards of one process: give the whole folder of "
            "torch.distributed.checkpoint to its dcp_to_torch and then the file that it writes"
        )
    if str(path).endswith(".onnx"):
        raise CheckpointError(f"{path} is an ONNX file, which is a program, not a checkpoint")
    for sign, what in SIGNS:
        if start.startswith(sign):
            raise CheckpointError(f"{path} is {what}")


def explain_refusal(path: str | Path, local: Path, error: Exception) -> str:
    """One sentence for what torch's reader of weights refuses.

    Args:
        path: what the message calls the file.
        error: as ``torch.load(…, weights_only=True)`` raised it.
    """
    match = re.search(r"(?:GLOBAL|class|function|but got) (?:<class )?'?([\w.]+)", str(error))
    wanted = match[1] if match else _first_object_in_pickle(local)
    if wanted is None:
        return f"{path} is not a checkpoint, or it is damaged"
    wanted = wanted.rstrip(".")
    about = next((what for names, what in REFUSED if wanted.startswith(names)), None)
    return (
        f"{path} asks for the Python object {wanted} when it is opened, which is refused: "
        + (about or "a checkpoint may hold only tensors, numbers, text and containers of these")
        + f"; a file that you trust is read inside `with torch.serialization.safe_globals([{wanted}"
        "]):`"
    )


def _first_object_in_pickle(local: Path) -> str | None:
    """The first thing that a bare pickle would import, found without running it."""
    texts: list[str] = []
    try:
        with local.open("rb") as file:
            for opcode, argument, _ in pickletools.genops(file):
                if opcode.name == "GLOBAL" and isinstance(argument, str):
                    return argument.replace(" ", ".")
                if opcode.name == "STACK_GLOBAL":
                    return ".".join(texts[-2:])
                if isinstance(argument, str):
                    texts.append(argument)
    except (ValueError, OverflowError, MemoryError):  # no pickle, or cut short
        return None
    return None
