"""What happens to a batch on the device: normalisation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def normalize(
    clips: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """``(clips / 255 - mean) / std`` of uint8 ``(N, 3, T, H, W)``, where the clips are."""
    mean = torch.tensor(mean, device=clips.device).view(-1, 1, 1, 1)
    std = torch.tensor(std, device=clips.device).view(-1, 1, 1, 1)
    return torch.addcmul(-mean / std, clips.float(), 1 / (255 * std)).to(dtype)
