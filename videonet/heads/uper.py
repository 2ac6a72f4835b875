"""UPerNet (arXiv 1807.10221): pyramid pooling on the last map, then a feature pyramid.

Pooling is over space alone: every frame of a clip keeps its own. Parameter names are those of
mmsegmentation, but for ``norm`` and ``pooling``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from videonet.errors import ConfigError
from videonet.heads.conv_norm import ConvNorm, GatedConvNorm
from videonet.heads.hrfpn import join_maps
from videonet.heads.semantic import SemanticHead
from videonet.ops.resize import resize_space

POOL_SCALES = (1, 2, 3, 6)


class PyramidPooling(nn.Module):
    """A map pooled to a few cells a side, at several such sizes (PSPNet, arXiv 1612.01105).

    Args:
        dim, dim_out: channels of the map, and of every result.
        scales: cells a side.
        norm: of the 1×1 convolutions, see :func:`videonet.heads.conv_norm.make_norm`.
        align_corners: of the resizing back.
    """

    def __init__(
        self,
        dim: int,
        dim_out: int,
        scales: Sequence[int] = POOL_SCALES,
        *,
        norm: str | None = "batch",
        align_corners: bool = False,
    ):
        super().__init__()
        self.scales, self.align_corners = tuple(scales), align_corners
        self.convs = nn.ModuleList(
            ConvNorm(dim, dim_out, norm=norm, relu=True) for _ in self.scales
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, dim, T, H, W) -> for every scale (B, dim_out, T, H, W)."""
        size = (x.shape[3], x.shape[4])
        frames = x.flatten(1, 2)  # (B, dim*T, H, W)
        outs = []
        for scale, conv in zip(self.scales, self.convs, strict=True):
            pooled = F.adaptive_avg_pool2d(frames, scale).unflatten(1, x.shape[1:3])
            outs.append(resize_space(conv(pooled), size, align_corners=self.align_corners))
        return outs


class UPerHead(SemanticHead):
    """UPerNet's head; with gates, HorFPN for segmentation (arXiv 2207.14284).

    In training, a batch norm cannot norm the one cell that pooling leaves of a single frame: a
    batch of one image needs ``norm="group"`` or ``norm="layer"``.

    Args:
        in_channels, num_classes, indices, dropout, align_corners, classifier_kernel: see
            :class:`videonet.heads.semantic.SemanticHead`.
        channels: of all convolutions.
        pool_scales: see :class:`PyramidPooling`.
        norm: of all convolutions, see :func:`videonet.heads.conv_norm.make_norm`; None for none.
        gates: None for a 3×3 convolution that mixes the joined maps; or arguments of the gated
            convolution in its place, see :class:`videonet.heads.conv_norm.GatedConvNorm`. As
            published, none (7×7), or `filter_size` ``videonet.heads.hor_fpn.GLOBAL_FILTER``.
        temporal_kernel: taps along time of kernels larger than 1×1.

    Raises:
        ConfigError: there is no such map, or gates that do not fit.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        channels: int = 512,
        *,
        pool_scales: Sequence[int] = POOL_SCALES,
        norm: str | None = "batch",
        gates: Mapping[str, Any] | None = None,
        temporal_kernel: int = 1,
        **options,
    ):
        super().__init__(in_channels, num_classes, channels, **options)
        *fine, last = self.used_channels()

        def conv3(dim: int) -> ConvNorm:
            taps = temporal_kernel
            return ConvNorm(dim, channels, 3, temporal_kernel=taps, norm=norm, relu=True)

        self.pooling = PyramidPooling(
            last, channels, pool_scales, norm=norm, align_corners=self.align_corners
        )
        self.bottleneck = conv3(last + len(pool_scales) * channels)
        self.lateral_convs = nn.ModuleList(
            ConvNorm(dim, channels, norm=norm, relu=True) for dim in fine
        )
        self.fpn_convs = nn.ModuleList(conv3(channels) for _ in fine)
        joined = (len(fine) + 1) * channels
        self.fpn_bottleneck: ConvNorm | GatedConvNorm
        if gates is None:
            self.fpn_bottleneck = conv3(joined)
        else:
            arguments: dict[str, Any] = {"temporal_kernel": temporal_kernel, "norm": norm} | dict(
                gates
            )
            self.fpn_bottleneck = GatedConvNorm(joined, channels, relu=True, **arguments)

    def features(self, maps: list[Tensor]) -> Tensor:
        """The maps that the head reads -> (B, channels, T, H, W)."""
        *fine, last = maps
        top = self.bottleneck(torch.cat([last, *self._pooled(last)], dim=1))
        outs = [top]
        for conv, out, x in zip(
            reversed(self.lateral_convs), reversed(self.fpn_convs), reversed(fine), strict=True
        ):
            size = (x.shape[3], x.shape[4])
            top = conv(x) + resize_space(top, size, align_corners=self.align_corners)
            outs.insert(0, out(top))
        return self.fpn_bottleneck(join_maps(outs, self.align_corners))

    def _pooled(self, last: Tensor) -> list[Tensor]:
        try:
            return self.pooling(last)
        except ValueError as error:  # torch's own message names no way out
            raise ConfigError(
                "in training, a batch norm cannot norm the single cell that pooling leaves of one "
                "frame: put more than one clip in a batch, or build UPerHead with norm='group'"
            ) from error
