"""Pyramids for plain vision transformers, all of whose maps have one resolution.

The simple pyramid of ViTDet (arXiv 2203.16527) makes every level of the last map; the multi-level
neck of mmsegmentation resizes maps of several depths.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from videonet.errors import ConfigError
from videonet.heads.conv_norm import ConvNorm, check_maps, make_norm
from videonet.heads.fpn import half_size
from videonet.ops.resize import pool_space, resize_space

SCALES = (4.0, 2.0, 1.0, 0.5)


def twice_as_large(dim: int) -> nn.ConvTranspose3d:
    """A transposed convolution to twice the height and width, and half the channels."""
    return nn.ConvTranspose3d(dim, dim // 2, (1, 2, 2), (1, 2, 2))


class SpacePool(nn.Module):
    """:func:`videonet.ops.resize.pool_space` as a module."""

    def __init__(self, size: int, pooling: str):
        super().__init__()
        self.size, self.pooling = size, pooling

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) -> (B, C, T, H / size, W / size)."""
        return pool_space(x, self.size, self.pooling)


class SimplePyramid(nn.Module):
    """The last map of a plain backbone -> maps of several sizes and one width.

    Args:
        in_channels: of the maps that :meth:`forward` gets, of which it reads the last one.
        out_channels: of every map that it gives.
        scales: size of every level in units of that map: 4, 2, 1 or 0.5.
        num_outs: number of maps that it gives; None for one of each scale. Those beyond are every
            second cell of the one before.
        norm: of all convolutions, see :func:`videonet.heads.conv_norm.make_norm`; None for none.
        temporal_kernel: taps along time of the 3×3 convolutions.

    Attributes:
        out_channels: of every map that it gives.
        num_outs: number of maps that it gives.

    Raises:
        ConfigError: another scale, or fewer maps than scales.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int = 256,
        *,
        scales: Sequence[float] = SCALES,
        num_outs: int | None = None,
        norm: str | None = "layer",
        temporal_kernel: int = 1,
    ):
        super().__init__()
        self.in_channels, self.out_channels = tuple(in_channels), out_channels
        self.num_outs = len(scales) if num_outs is None else num_outs
        if self.num_outs < len(scales):
            raise ConfigError(f"num_outs is {num_outs}, but there are {len(scales)} scales")
        self.levels = nn.ModuleList()
        for scale in scales:
            steps, dim = self._resample(scale, self.in_channels[-1], norm)
            self.levels.append(
                nn.Sequential(
                    *steps,
                    ConvNorm(dim, out_channels, norm=norm),
                    ConvNorm(
                        out_channels, out_channels, 3, temporal_kernel=temporal_kernel, norm=norm
                    ),
                )
            )

    @staticmethod
    def _resample(scale: float, dim: int, norm: str | None) -> tuple[list[nn.Module], int]:
        """What brings the map to a scale, and its channels behind that."""
        if scale == 4:
            half = dim // 2
            steps = (twice_as_large(dim), make_norm(norm, half), nn.GELU(), twice_as_large(half))
            return list(steps), half // 2
        if scale == 2:
            return [twice_as_large(dim)], dim // 2
        if scale == 1:
            return [], dim
        if scale == 0.5:
            return [SpacePool(2, "max")], dim
        raise ConfigError(f"the scale of a level is {scale}, expected 4, 2, 1 or 0.5")

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps (B, C, T, H, W) -> (B, out_channels, T, H_j, W_j), high resolution first.

        Raises:
            ConfigError: the maps are not those that the pyramid was built for.
        """
        check_maps(maps, self.in_channels, "SimplePyramid")
        outs = [level(maps[-1]) for level in self.levels]
        while len(outs) < self.num_outs:
            outs.append(half_size(outs[-1]))
        return outs


class MultiLevelNeck(nn.Module):
    """Maps of a plain backbone at several depths -> maps of several sizes and one width.

    Every map goes through a 1×1 convolution, is resized bilinearly and goes through a 3×3 one.

    Args:
        in_channels: of the maps, in the order of depth; one map is used for all scales.
        out_channels: of every map that it gives.
        scales: factor on the size of every map.
        norm, relu: of all convolutions, see :class:`videonet.heads.conv_norm.ConvNorm`.
        temporal_kernel: taps along time of the 3×3 convolutions.

    Attributes:
        out_channels: of every map that it gives.
        num_outs: number of maps that it gives.

    Raises:
        ConfigError: there are neither one map nor as many as scales.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int = 256,
        *,
        scales: Sequence[float] = SCALES,
        norm: str | None = None,
        relu: bool = False,
        temporal_kernel: int = 1,
    ):
        super().__init__()
        self.in_channels, self.out_channels = tuple(in_channels), out_channels
        self.scales, self.num_outs = tuple(scales), len(scales)
        if len(self.in_channels) not in (1, len(self.scales)):
            raise ConfigError(
                f"{len(self.in_channels)} maps cannot be resized to {len(self.scales)} scales"
            )
        self.lateral_convs = nn.ModuleList(
            ConvNorm(dim, out_channels, norm=norm, relu=relu) for dim in self.in_channels
        )
        self.convs = nn.ModuleList(
            ConvNorm(
                out_channels,
                out_channels,
                3,
                temporal_kernel=temporal_kernel,
                norm=norm,
                relu=relu,
            )
            for _ in self.scales
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps (B, C_i, T, H, W) -> (B, out_channels, T, H * scale_j, W * scale_j).

        Raises:
            ConfigError: the maps are not those that the neck was built for.
        """
        check_maps(maps, self.in_channels, "MultiLevelNeck")
        laterals = [conv(x) for conv, x in zip(self.lateral_convs, maps, strict=True)]
        laterals = laterals * (self.num_outs if len(laterals) == 1 else 1)
        rows = zip(self.convs, laterals, self.scales, strict=True)
        return [conv(scale_space(x, scale)) for conv, x, scale in rows]


def scale_space(x: Tensor, scale: float) -> Tensor:
    """(B, C, T, H, W) -> the same with height and width times `scale`, bilinearly.

    The sizes are rounded down, cells keep the distance that `scale` says.
    """
    if scale == 1:
        return x
    size = (int(x.shape[3] * scale), int(x.shape[4] * scale))
    if min(size) < 1:
        return resize_space(x, (max(size[0], 1), max(size[1], 1)))
    frames = x.transpose(1, 2).flatten(0, 1)  # (B*T, C, H, W)
    frames = F.interpolate(frames, scale_factor=scale, mode="bilinear", align_corners=False)
    return frames.unflatten(0, (x.shape[0], x.shape[2])).transpose(1, 2)
