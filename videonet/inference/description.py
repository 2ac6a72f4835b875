"""What results depend on: a file of results keeps it, so that others are not mixed in."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from fvcore.common.config import CfgNode
from torch import nn

from videonet.config import model_arguments

if TYPE_CHECKING:
    from videonet.inference.options import Options
    from videonet.inference.predictor import Predictor

# Keys of DATA and TEST that change no score: places of files, and what training alone reads.
_WITHOUT_EFFECT = frozenset(
    (
        *("PATH_TO_DATA_DIR", "PATH_PREFIX", "PATH_LABEL_SEPARATOR", "TRAIN_LIST", "VAL_LIST"),
        *("TEST_LIST", "CLASS_NAMES", "MAX_BAD_SHARE", "TRAIN_JITTER_SCALES", "TRAIN_CROP_SIZE"),
        *("TRAIN_JITTER_SCALES_RELATIVE", "TRAIN_JITTER_ASPECT_RELATIVE", "INV_UNIFORM_SAMPLE"),
        *("RANDOM_FLIP", "ENABLE", "BATCH_SIZE", "CHECKPOINT_FILE_PATH", "EMA"),
    )
)


def describe_scoring(predictor: Predictor) -> dict[str, Any]:
    """What the scores of a clip depend on: weights, outputs, and how clips are made; JSON."""
    cfg = predictor.cfg
    name, arguments = model_arguments(cfg)
    return {
        "checkpoint": predictor.origin,
        "weights": fingerprint(predictor.model),
        "classes": predictor.class_names,
        "model": {"name": name, **{key: _plain(value) for key, value in arguments.items()}},
        "settings": dict(_settings(cfg)) | dict(predictor.task.settings()),
    }


def describe_clips(predictor: Predictor, options: Options) -> dict[str, Any]:
    """Which clips of a video are scored; JSON."""
    if options.sliding:
        chosen = {"window": options.window, "stride": options.stride, "crops": options.crops}
        return {"clips": {"sliding": True, **chosen}}
    test = predictor.cfg.TEST
    return {"clips": {"views": f"{test.NUM_ENSEMBLE_VIEWS} x {test.NUM_SPATIAL_CROPS}"}}


def describe_results(predictor: Predictor, options: Options) -> dict[str, Any]:
    """What the lines of a result file depend on; JSON."""
    rule = options.segments
    head = predictor.video_head if options.aggregate == "attention" else None
    return {
        **describe_scoring(predictor),
        **describe_clips(predictor, options),
        "top_k": min(options.top_k, len(predictor.class_names)),
        "aggregate": options.aggregate,
        "head": fingerprint(head) if head is not None else None,
        "segments": {**vars(rule)} if options.sliding else None,
    }


def fingerprint(model: nn.Module) -> str:
    """A hash of all weights and buffers, with their names, types and shapes."""
    digest = hashlib.blake2b(digest_size=12)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(memoryview(content.numpy()))
    return digest.hexdigest()


def _settings(cfg: CfgNode) -> Iterator[tuple[str, Any]]:
    for group in ("DATA", "TEST"):
        for key, value in sorted(cfg[group].items()):
            if key not in _WITHOUT_EFFECT:
                yield f"{group}.{key}", _plain(value)
    precision = cfg.TRAIN.HALF_PRECISION if cfg.TRAIN.MIXED_PRECISION else "fp32"
    yield "precision", precision


def _plain(value: Any) -> Any:
    """A value of a configuration as JSON can hold it."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bool | int | float | str) or value is None:
        return value
    return repr(value)
