"""Semantic segmentation: heads that give every cell the logits of its classes.

A head takes the maps of a backbone or of a neck, (B, C_i, T, H_i, W_i) from high to low resolution,
and gives logits (B, classes, T, H_0, W_0). Parameter names are those of mmsegmentation, but for
``norm``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from videonet.errors import ConfigError
from videonet.heads.conv_norm import ConvNorm, check_maps, same_conv
from videonet.heads.hrfpn import join_maps
from videonet.ops.conv import FastConv3d
from videonet.ops.resize import resize_space


class SemanticHead(nn.Module):
    """Base of the heads: which maps they read, and the classifier of cells.

    A subclass has :meth:`features`.

    Args:
        in_channels: of the maps that :meth:`forward` gets.
        num_classes: K.
        channels: that the classifier reads.
        indices: numbers of the maps that the head reads; None for all.
        dropout: of whole channels before the classifier.
        align_corners: of every bilinear resizing in the head.
        classifier_kernel: of the last convolution in height and width.

    Raises:
        ConfigError: there is no such map, or an even kernel.
    """

    conv_seg: FastConv3d

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        channels: int,
        *,
        indices: Sequence[int] | None = None,
        dropout: float = 0.1,
        align_corners: bool = False,
        classifier_kernel: int = 1,
    ):
        super().__init__()
        self.in_channels = tuple(in_channels)
        count = len(self.in_channels)
        wanted = range(count) if indices is None else indices
        for index in wanted:
            if not -count <= index < count:
                raise ConfigError(f"indices are {indices}, but the head gets {count} maps")
        self.indices = tuple(index % count for index in wanted)
        self.align_corners = align_corners
        self.channels, self.classifier_kernel = channels, classifier_kernel
        self.dropout = nn.Dropout3d(dropout)
        self.reset_classifier(num_classes)

    def reset_classifier(self, num_classes: int) -> None:
        """Give the head a new, randomly initialised classifier, where the old one was.

        Raises:
            ConfigError: less than one class.
        """
        if num_classes < 1:
            raise ConfigError(f"a head has {num_classes} classes, expected one or more")
        before = self.conv_seg.weight if hasattr(self, "conv_seg") else None
        self.num_classes = num_classes
        self.conv_seg = same_conv(self.channels, num_classes, self.classifier_kernel)
        nn.init.normal_(self.conv_seg.weight, std=0.01)
        if self.conv_seg.bias is not None:
            nn.init.zeros_(self.conv_seg.bias)
        if before is not None:
            self.conv_seg.to(before.device, before.dtype).train(self.training)

    def used_channels(self) -> tuple[int, ...]:
        """Channels of the maps that the head reads."""
        return tuple(self.in_channels[index] for index in self.indices)

    def features(self, maps: list[Tensor]) -> Tensor:
        """The maps that the head reads -> what the classifier reads, (B, channels, T, H, W)."""
        raise NotImplementedError

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps (B, C_i, T, H_i, W_i) -> logits (B, num_classes, T, H, W) at the size of the first.

        Raises:
            ConfigError: the maps are not those that the head was built for.
        """
        check_maps(maps, self.in_channels, type(self).__name__)
        x = self.features([maps[index] for index in self.indices])
        return self.conv_seg(self.dropout(x))


class FCNHead(SemanticHead):
    """A few convolutions on one map, or on all of them joined at the size of the first.

    It is the auxiliary head of UPerNet (one convolution on the third map), and HRNetV2's head (a
    1×1 convolution on the joined branches, see :func:`hrnet_head`).

    Args:
        in_channels, num_classes, indices, dropout, align_corners, classifier_kernel: see
            :class:`SemanticHead`.
        channels: of the convolutions.
        num_convs: number of convolutions; 0 for none.
        kernel, dilation: of the convolutions in height and width.
        concat_input: put what the convolutions read and what they give side by side, for a last
            convolution.
        norm: of all convolutions, see :func:`videonet.heads.conv_norm.make_norm`; None for none.
        conv_bias: True for biases also where there is a norm.
        temporal_kernel: taps along time of kernels larger than 1×1.

    Raises:
        ConfigError: there is no such map, or no convolution brings the channels to `channels`.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        channels: int = 256,
        *,
        num_convs: int = 1,
        kernel: int = 3,
        dilation: int = 1,
        concat_input: bool = False,
        norm: str | None = "batch",
        conv_bias: bool | None = None,
        temporal_kernel: int = 1,
        **options,
    ):
        super().__init__(in_channels, num_classes, channels, **options)
        dim = sum(self.used_channels())
        if not num_convs and dim != channels:
            raise ConfigError(f"without convolutions {dim} channels do not become {channels}")
        self.convs = nn.Sequential(
            *(
                ConvNorm(
                    channels if number else dim,
                    channels,
                    kernel,
                    dilation=dilation,
                    temporal_kernel=temporal_kernel,
                    norm=norm,
                    bias=conv_bias,
                    relu=True,
                )
                for number in range(num_convs)
            )
        )
        self.conv_cat = None
        if concat_input:
            self.conv_cat = ConvNorm(
                dim + channels,
                channels,
                kernel,
                temporal_kernel=temporal_kernel,
                norm=norm,
                bias=conv_bias,
                relu=True,
            )

    def features(self, maps: list[Tensor]) -> Tensor:
        """The maps that the head reads -> (B, channels, T, H, W)."""
        joined = join_maps(maps, self.align_corners)
        x = self.convs(joined)
        return x if self.conv_cat is None else self.conv_cat(torch.cat((joined, x), dim=1))


def hrnet_head(in_channels: Sequence[int], num_classes: int, **options) -> FCNHead:
    """HRNetV2's head (arXiv 1908.07919, Sec. 3.3): the joined branches, mixed cell by cell.

    Args:
        in_channels: of the branches.
        num_classes: K.
        **options: other arguments of :class:`FCNHead`. The official repository's convolution has a
            bias, ``conv_bias=True``; mmsegmentation's has none.
    """
    joined = {"channels": sum(in_channels), "kernel": 1, "dropout": 0.0}
    return FCNHead(in_channels, num_classes, **(joined | options))


class TwiceAsLarge(nn.Module):
    """Bilinear resizing to twice the height and width."""

    def __init__(self, align_corners: bool):
        super().__init__()
        self.align_corners = align_corners

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) -> (B, C, T, 2 * H, 2 * W)."""
        size = (2 * x.shape[3], 2 * x.shape[4])
        return resize_space(x, size, align_corners=self.align_corners)


class SemanticFPNHead(SemanticHead):
    """Panoptic FPN's semantic branch (arXiv 1901.02446): levels brought to one size and added up.

    Every level goes through as many 3×3 convolutions as it has to be doubled, one at least, each
    followed by such a doubling.

    Args:
        in_channels, num_classes, indices, dropout, align_corners, classifier_kernel: see
            :class:`SemanticHead`.
        channels: of the convolutions.
        strides: pixels from one cell to the next, of every map that the head reads; None for those
            that double from each to the next.
        norm: of all convolutions, see :func:`videonet.heads.conv_norm.make_norm`; None for none.
        temporal_kernel: taps along time of the convolutions.

    Raises:
        ConfigError: there is no such map, or not one stride for each.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        channels: int = 128,
        *,
        strides: Sequence[int] | None = None,
        norm: str | None = "batch",
        temporal_kernel: int = 1,
        **options,
    ):
        super().__init__(in_channels, num_classes, channels, **options)
        dims = self.used_channels()
        strides = [2**level for level in range(len(dims))] if strides is None else strides
        if len(strides) != len(dims):
            raise ConfigError(f"{len(strides)} strides are given for {len(dims)} maps")
        self.scale_heads = nn.ModuleList()
        for dim, stride in zip(dims, strides, strict=True):
            steps: list[nn.Module] = []
            for number in range(max(1, int(math.log2(stride) - math.log2(strides[0])))):
                steps.append(
                    ConvNorm(
                        channels if number else dim,
                        channels,
                        3,
                        temporal_kernel=temporal_kernel,
                        norm=norm,
                        relu=True,
                    )
                )
                if stride != strides[0]:
                    steps.append(TwiceAsLarge(self.align_corners))
            self.scale_heads.append(nn.Sequential(*steps))

    def features(self, maps: list[Tensor]) -> Tensor:
        """The maps that the head reads -> their sum, (B, channels, T, H, W)."""
        first, *rest = [head(x) for head, x in zip(self.scale_heads, maps, strict=True)]
        size = (first.shape[3], first.shape[4])
        for x in rest:
            first = first + resize_space(x, size, align_corners=self.align_corners)
        return first
