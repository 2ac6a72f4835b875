"""A head that learns how to weigh the clips of a video: what it is trained on, and its file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from fvcore.common.config import CfgNode
from torch import Tensor

from videonet.checkpoint import read_checkpoint
from videonet.checkpoint.head import Classes
from videonet.checkpoint.load import refuse_larger_model
from videonet.data.feature_store import VideoFeatures, labels_of
from videonet.errors import CheckpointError, ConfigError, DataError
from videonet.heads.aggregation import VideoAttentionHead, stack_clips

FILE = "video_head.safetensors"
KEY = "video_head"  # in the file: the arguments of VideoAttentionHead


class ClipHeadTraining:
    """Classes of videos, learnt by a :class:`VideoAttentionHead` over frozen features.

    Args:
        options: ``VIDEO_HEAD`` of a config.
        train: features with labels.
        val: features with labels.
        names: of the classes.

    Raises:
        DataError: features without labels, or without what the head's levels need.

    Attributes:
        head: what learns.
    """

    def __init__(
        self,
        options: CfgNode,
        train: Sequence[VideoFeatures],
        val: Sequence[VideoFeatures],
        names: Sequence[str],
    ):
        self._names = list(names)
        self._features, self._labels = _tensors(train, options.LEVELS, len(names))
        self._val_features, self._val_labels = _tensors(val, options.LEVELS, len(names))
        self._arguments = {
            "dim": self._features[0].shape[-1],
            "num_classes": len(names),
            "levels": options.LEVELS,
            "hidden": options.HIDDEN,
            "score": options.SCORE,
            "dropout": options.DROPOUT,
        }
        self.head = VideoAttentionHead(**self._arguments)

    def __len__(self) -> int:
        return len(self._features)

    def loss(self, chosen: Tensor) -> Tensor:
        """The mean cross entropy of the training videos of these numbers, (B,)."""
        logits = self.head(*stack_clips([self._features[i] for i in chosen]))
        return F.cross_entropy(logits, self._labels[chosen])

    @torch.inference_mode()
    def evaluate(self) -> dict[str, float]:
        """Loss, top-1 and top-5 accuracy in percent on `val`, in evaluation mode."""
        self.head.eval()
        logits = torch.cat([self.head(*stack_clips([video])) for video in self._val_features])
        best = logits.topk(min(5, logits.shape[1])).indices == self._val_labels.unsqueeze(1)
        return {
            "loss": F.cross_entropy(logits, self._val_labels).item(),
            "top1": 100 * best[:, 0].float().mean().item(),
            "top5": 100 * best.any(dim=1).float().mean().item(),
        }

    def content(self) -> dict[str, Any]:
        """What the head's file holds, see :func:`load_video_head`."""
        weights = self.head.state_dict()
        return {"model_state": weights, KEY: self._arguments, "class_names": self._names}


def _tensors(
    videos: Sequence[VideoFeatures], levels: int, num_classes: int
) -> tuple[list[Tensor], Tensor]:
    labels = torch.from_numpy(labels_of(list(videos), num_classes))
    arrays = [video.frames if levels == 2 else video.features for video in videos]
    if any(array is None for array in arrays):
        raise DataError("VIDEO_HEAD.LEVELS is 2, which needs features with frames (--frames)")
    return [torch.from_numpy(array) for array in arrays], labels


def load_video_head(
    path: str | Path, dim: int, class_names: Sequence[str] | None = None
) -> VideoAttentionHead:
    """A head of a file, in evaluation mode.

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
