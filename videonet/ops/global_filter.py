"""Filters in the frequency domain over T×H×W (GFNet, arXiv 2107.00645; HorNet, arXiv 2207.14284).

A filter multiplies every spatiotemporal frequency of a channel with a complex number. One that
has a single temporal frequency is the same for all of them: a delta in time, so that frames do not
mix.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from videonet.errors import ConfigError
from videonet.ops.conv import depthwise
from videonet.ops.grid import Grid, as_grid

NORM_EPS = 1e-6
AXES = (1, 2, 3)


def filter_size(grid: Grid) -> Grid:
    """Frequencies of real cells on a (T, H, W) grid; the last axis is the half that is unique."""
    t, h, w = grid
    return t, h, w // 2 + 1


def resize_filter(weight: Tensor, size: Grid) -> Tensor:
    """A filter (C, t, h, w, 2) for another number of frequencies, (C, *size, 2).

    Trilinear with aligned corners, in the order of the discrete transform: bilinear within a
    frame, as the official code does at run time. The constant frequency stays in its place, and
    one temporal frequency is repeated over all.
    """
    if tuple(weight.shape[1:4]) == size:
        return weight
    parts = weight.permute(4, 0, 1, 2, 3)  # (2, C, t, h, w): real and imaginary
    parts = F.interpolate(parts, size=size, mode="trilinear", align_corners=True)
    return parts.permute(1, 2, 3, 4, 0)


def global_filter(x: Tensor, weight: Tensor) -> Tensor:
    """Filter cells x (B, T, H, W, C) by weights (C, t, h, w, 2), resized where they do not fit.

    Computed in single precision; the result has the type of x.
    """
    grid = as_grid(x.shape[1:4])
    weight = resize_filter(weight.float(), filter_size(grid)).movedim(0, 3)  # (t, h, w, C, 2)
    frequencies = torch.fft.rfftn(x.float(), dim=AXES, norm="ortho")
    frequencies = frequencies * torch.view_as_complex(weight.contiguous())
    return torch.fft.irfftn(frequencies, s=grid, dim=AXES, norm="ortho").to(x.dtype)


class GlobalLocalFilter(nn.Module):
    """Half of the channels through a small depth-wise convolution, half through a global filter.

    The channels of the halves alternate in the result (HorNet, Sec. 3.3).

    Args:
        dim: channels, an even number.
        size: frequencies (t, h, w) that the filter has a weight for.
        temporal_kernel: of the convolution.

    Raises:
        ConfigError: `dim` is odd.
    """

    def __init__(self, dim: int, size: Grid, temporal_kernel: int):
        super().__init__()
        if dim % 2:
            raise ConfigError(f"a global-local filter halves its channels, but there are {dim}")
        self.dw = depthwise(dim // 2, temporal_kernel, 3, bias=False)
        self.complex_weight = nn.Parameter(torch.empty(dim // 2, *size, 2))
        self.pre_norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.post_norm = nn.LayerNorm(dim, eps=NORM_EPS)
        nn.init.trunc_normal_(self.complex_weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, H, W, dim) -> the same."""
        near, far = self.pre_norm(x).chunk(2, dim=-1)
        halves = (self.dw(near), global_filter(far, self.complex_weight))
        return self.post_norm(torch.stack(halves, dim=-1).flatten(-2))
