"""What happens to a batch on the device: normalisation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from videonet.ops.tracing import once_per_shape


def normalize(
    clips: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """``(clips / 255 - mean) / std`` of uint8 ``(N, 3, T, H, W)``, where the clips are."""
    shift, scale = _shift_and_scale(tuple(mean), tuple(std), clips.device)
    # A GPU converts as it reads, in one pass; a CPU converts faster by itself.
    return torch.addcmul(shift, clips if clips.is_cuda else clips.float(), scale).to(dtype)


@once_per_shape
def _shift_and_scale(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> Tensor:
    """(2, 3, 1, 1, 1), kept on the device: a copy in every step would wait for the GPU."""
    deviation = torch.tensor(std, device=device)
    shift = -torch.tensor(mean, device=device) / deviation
    return torch.stack((shift, 1 / (255 * deviation))).view(2, -1, 1, 1, 1)
