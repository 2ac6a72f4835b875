"""Which half precision a run computes in."""

from __future__ import annotations

import torch
from fvcore.common.config import CfgNode

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast_dtype(cfg: CfgNode, device: torch.device) -> torch.dtype | None:
    """The precision of autocast under ``TRAIN.MIXED_PRECISION``, or None for full precision.

    ``TRAIN.HALF_PRECISION: auto`` is bf16 where the GPU has it, else fp16, and full precision on
    other devices, where half is seldom faster.
    """
    if not cfg.TRAIN.MIXED_PRECISION:
        return None
    if cfg.TRAIN.HALF_PRECISION in HALF:
        return HALF[cfg.TRAIN.HALF_PRECISION]
    if device.type != "cuda":
        return None
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def gradient_scaler(dtype: torch.dtype | None, device: torch.device) -> torch.amp.GradScaler:
    """Scales losses so that fp16 gradients do not vanish; does nothing in other precisions."""
    return torch.amp.GradScaler(device.type, enabled=dtype is torch.float16)
