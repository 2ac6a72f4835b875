"""The stem: a strided convolution that cuts a clip into tubelets."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from videonet.ops.conv import FastConv3d
from videonet.ops.grid import Grid, as_grid


def stem_memory(clip: Tensor) -> Tensor:
    """A clip in the memory format in which a GPU's convolution of it is fast.

    In half precision cuDNN's kernels for tensor cores work channels-last, and would copy a larger
    result there and back. The numbers stay.
    """
    half = clip.dtype in (torch.bfloat16, torch.float16)
    if clip.dim() == 5 and (half or torch.is_autocast_enabled(clip.device.type)):
        return clip.contiguous(memory_format=torch.channels_last_3d)
    return clip


class PatchEmbed(nn.Module):
    """3D patch stem; an image is the case of one frame with a temporal kernel of 1.

    Args:
        in_channels: channels of the clip.
        dim: width C of the tokens.
        kernel, stride, padding: of the convolution, each (t, h, w).
        norm: applied to the tokens.
        bias: of the convolution.
    """

    def __init__(
        self,
        in_channels: int,
        dim: int,
        kernel: Grid,
        stride: Grid,
        padding: Grid,
        norm: nn.Module | None = None,
        bias: bool = True,
    ):
        super().__init__()
        self.proj = FastConv3d(in_channels, dim, kernel, stride, padding, bias=bias)
        self.norm = norm

    def forward(self, clip: Tensor) -> tuple[Tensor, Grid]:
        """(B, in_channels, T, H, W) -> tokens (B, T'*H'*W', C) and their grid (T', H', W')."""
        if clip.is_cuda:
            clip = stem_memory(clip)
        volume = self.proj(clip)  # (B, C, T', H', W')
        tokens = volume.flatten(2).transpose(1, 2)
        return tokens if self.norm is None else self.norm(tokens), as_grid(volume.shape[2:])
