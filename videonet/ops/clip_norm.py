"""Group norm with one group, on channels-last tokens; on GPUs by Triton kernels."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from videonet.ops.kernels import gpu


class ClipNorm(nn.GroupNorm):
    """One mean and one variance per clip, over all cells and channels; scale and bias per channel.

    The same as ``nn.GroupNorm(1, dim)`` on (B, dim, T, H, W), without bringing the channels there.
    """

    def __init__(self, dim: int, eps: float = 1e-5):
        super().__init__(1, dim, eps)

    def forward(self, x: Tensor) -> Tensor:
        """(B, ..., dim), normed over all but B."""
        if gpu.usable(x):
            return gpu.CLIP_NORM(x, self.weight, self.bias, self.eps)
        return F.layer_norm(x, x.shape[1:], eps=self.eps) * self.weight + self.bias
