"""HRNetV2p (arXiv 1908.07919, Sec. 3.3): a pyramid of averages of HRNet's joined branches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from videonet.errors import ConfigError
from videonet.heads.conv_norm import ConvNorm, check_maps
from videonet.ops.resize import POOLINGS, pool_space, resize_space


def join_maps(maps: Sequence[Tensor], align_corners: bool = False) -> Tensor:
    """Maps at the size of the first one, side by side: (B, sum of channels, T, H_0, W_0)."""
    size = (maps[0].shape[3], maps[0].shape[4])
    rest = [resize_space(x, size, align_corners=align_corners) for x in maps[1:]]
    return torch.cat([maps[0], *rest], dim=1)


class HRFPN(nn.Module):
    """The branches of an HRNet -> maps of one width, each of half the size of the one before.

    Branches are upsampled bilinearly to the first one and joined, a 1×1 convolution reduces their
    width, and every level pools that map and goes through a 3×3 convolution.

    Args:
        in_channels: of the branches, from high to low resolution.
        out_channels: of every map that it gives.
        num_outs: number of maps that it gives.
        pooling: "avg" or "max".
        stride: of the 3×3 convolutions.
        shared: one 3×3 convolution for all levels.
        temporal_kernel: taps along time of the 3×3 convolutions.

    Attributes:
        out_channels: of every map that it gives.
        num_outs: number of maps that it gives.

    Raises:
        ConfigError: an unknown pooling.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int = 256,
        *,
        num_outs: int = 5,
        pooling: str = "avg",
        stride: int = 1,
        shared: bool = False,
        temporal_kernel: int = 1,
    ):
        super().__init__()
        if pooling not in POOLINGS:
            raise ConfigError(f"pooling is {pooling!r}, expected {' or '.join(POOLINGS)}")
        self.in_channels, self.out_channels = tuple(in_channels), out_channels
        self.num_outs, self.pooling = num_outs, pooling
        self.reduction_conv = ConvNorm(sum(self.in_channels), out_channels)
        self.fpn_convs = nn.ModuleList(
            ConvNorm(out_channels, out_channels, 3, stride, temporal_kernel=temporal_kernel)
            for _ in range(1 if shared else num_outs)
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Branches (B, C_i, T, H_i, W_i) -> (B, out_channels, T, H_0 / 2^j, W_0 / 2^j).

        Raises:
            ConfigError: the maps are not those that the pyramid was built for.
        """
        check_maps(maps, self.in_channels, "HRFPN")
        joined = self.reduction_conv(join_maps(maps))
        levels = [pool_space(joined, 2**level, self.pooling) for level in range(self.num_outs)]
        convs = list(self.fpn_convs) * (self.num_outs if len(self.fpn_convs) == 1 else 1)
        return [conv(x) for conv, x in zip(convs, levels, strict=True)]
