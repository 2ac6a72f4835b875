"""The file of a learned head over the clips of a video, and reading it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from videonet.checkpoint import read_checkpoint
from videonet.checkpoint.head import Classes
from videonet.checkpoint.load import refuse_larger_model
from videonet.errors import CheckpointError, ConfigError
from videonet.heads.aggregation import VideoAttentionHead

FILE = "video_head.safetensors"
KEY = "video_head"  # in the file: the arguments of VideoAttentionHead


def load_video_head(
    path: str | Path, dim: int, class_names: Sequence[str] | None = None
) -> VideoAttentionHead:
    """A head that :func:`videonet.engine.video_head.train_video_head` wrote, in evaluation mode.

    Args:
        path: the file, or its folder.
        dim: width of the embeddings that it will read.
        class_names: the classes in the order that its scores shall have.

    Raises:
        CheckpointError: it is no such file, or was made for other embeddings or classes.
    """
    path = Path(path) / FILE if Path(path).is_dir() else Path(path)
    content = read_checkpoint(path)
    arguments = content.get(KEY)
    if not isinstance(arguments, dict):
        raise CheckpointError(f"{path} holds no head of tools/train_head.py")
    try:
        refuse_larger_model(lambda: VideoAttentionHead(**arguments), content, str(path))
        head = VideoAttentionHead(**arguments)
        head.load_state_dict(content["model_state"])
    except (ConfigError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{path} is no head of this version: {reason}") from error
    classes = Classes.of(content, class_names, str(path))
    if classes.differ:
        raise CheckpointError(f"{path} was trained for other classes: {classes.difference()}")
    if classes.order is not None:
        with torch.no_grad():
            for parameter in head.head.parameters():
                parameter.copy_(parameter[classes.order])
    if arguments["dim"] != dim:
        raise CheckpointError(
            f"{path} reads embeddings of width {arguments['dim']}, those of the model have {dim}"
        )
    return head.eval()
