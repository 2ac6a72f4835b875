"""What reads pooled regions: the box head and the mask head.

A region is a one-frame map (N, C, 1, h, w). Classes come without the background in front, whatever
the conventions: logits end with the background, deltas and masks have no row for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch.nn.functional as F
from torch import Tensor, nn

from videonet.heads.conv_norm import ConvNorm
from videonet.ops.conv import BATCH_NORMS, FastConv3d

FROZEN = "frozen"


class FrozenBatchNorm(nn.BatchNorm3d):
    """A batch norm that keeps its statistics, its scale and its bias."""

    def __init__(self, dim: int):
        super().__init__(dim)
        self.requires_grad_(False)

    def train(self, mode: bool = True) -> FrozenBatchNorm:
        """Stay as in evaluation."""
        return super().train(False)


def region_conv(dim: int, dim_out: int, norm: str | None) -> ConvNorm:
    """A 3×3 convolution, a norm and a ReLU.

    Args:
        dim, dim_out: channels before and after.
        norm: "batch", "frozen" for batch norm that learns nothing, "group" or "layer"; None for
            none. "batch" sees all regions of a batch, of a clip near-copies of each other.

    Raises:
        ConfigError: another norm.
    """
    conv = ConvNorm(dim, dim_out, 3, norm="batch" if norm == FROZEN else norm, relu=True)
    nn.init.kaiming_normal_(conv.conv.weight, mode="fan_out", nonlinearity="relu")
    if norm == FROZEN:
        conv.norm = FrozenBatchNorm(dim_out)
    return conv


def zero_bias(layer: nn.Conv3d | nn.ConvTranspose3d) -> None:
    """Set the bias of a layer to 0, where it has one."""
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


@contextmanager
def usable_without_regions(head: nn.Module, regions: Tensor) -> Iterator[None]:
    """Where there are no regions, batch norms take their running statistics and keep them."""
    norms = [m for m in head.modules() if isinstance(m, BATCH_NORMS) and m.training]
    norms = [] if len(regions) else norms
    for norm in norms:
        norm.training = False
    try:
        yield
    finally:
        for norm in norms:
            norm.training = True


class BoxHead(nn.Module):
    """Classes of regions, and their boxes as differences from the regions.

    Args:
        channels: C of the pooled regions.
        num_classes: K, without the background.
        size: cells per side of a pooled region.
        conv_dims: widths of 3×3 convolutions before the linear layers; the official cascades have
            four of 256.
        fc_dims: widths of the linear layers.
        norm: of the convolutions, see :func:`region_conv`.
        class_agnostic: one box for all classes.
        background_first: see :class:`Conventions`.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        size: int = 7,
        conv_dims: Sequence[int] = (),
        fc_dims: Sequence[int] = (1024, 1024),
        norm: str | None = None,
        class_agnostic: bool = False,
        background_first: bool = False,
    ):
        super().__init__()
        self.background_first, self.class_agnostic = background_first, class_agnostic
        self.convs = nn.ModuleList()
        for width in conv_dims:
            self.convs.append(region_conv(channels, width, norm))
            channels = width
        self.fcs, channels = nn.ModuleList(), channels * size * size
        for width in fc_dims:
            fc = nn.Linear(channels, width)
            nn.init.kaiming_uniform_(fc.weight, a=1)
            nn.init.zeros_(fc.bias)
            self.fcs.append(fc)
            channels = width
        self.width = channels
        self.reset_classes(num_classes)

    def reset_classes(self, num_classes: int) -> None:
        """Make new layers for `num_classes` classes."""
        boxes = 1 if self.class_agnostic else num_classes + self.background_first
        self.scores = nn.Linear(self.width, num_classes + 1)
        self.deltas = nn.Linear(self.width, 4 * boxes)
        for layer, deviation in ((self.scores, 0.01), (self.deltas, 0.001)):
            nn.init.normal_(layer.weight, std=deviation)
            nn.init.zeros_(layer.bias)

    def forward(self, regions: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, 1, size, size) -> logits (N, K + 1), the background last, and deltas (N, K, 4).

        There is one row of deltas for all classes where the head is class-agnostic.
        """
        with usable_without_regions(self, regions):
            for conv in self.convs:
                regions = conv(regions)
        x = regions.flatten(1)
        for fc in self.fcs:
            x = F.relu(fc(x))
        logits = self.scores(x).float()
        deltas = self.deltas(x).float().unflatten(1, (-1, 4))
        if self.background_first:
            logits = logits.roll(-1, dims=1)
            deltas = deltas if self.class_agnostic else deltas[:, 1:]
        return logits, deltas


class MaskHead(nn.Module):
    """A mask of a region for each class (Mask R-CNN, arXiv 1703.06870, Fig. 4).

    Args:
        channels: C of the pooled regions.
        num_classes: K, without the background.
        conv_dims: widths of the 3×3 convolutions.
        deconv_dim: width of the transposed convolution that doubles the size.
        norm: of the convolutions, see :func:`region_conv`.
        background_first: see :class:`Conventions`.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        conv_dims: Sequence[int] = (256, 256, 256, 256),
        deconv_dim: int = 256,
        norm: str | None = None,
        background_first: bool = False,
    ):
        super().__init__()
        self.background_first = background_first
        self.convs = nn.ModuleList()
        for width in conv_dims:
            self.convs.append(region_conv(channels, width, norm))
            channels = width
        self.deconv = nn.ConvTranspose3d(channels, deconv_dim, (1, 2, 2), (1, 2, 2))
        nn.init.kaiming_normal_(self.deconv.weight, mode="fan_out", nonlinearity="relu")
        zero_bias(self.deconv)
        self.width = deconv_dim
        self.reset_classes(num_classes)

    def reset_classes(self, num_classes: int) -> None:
        """Make a new layer for `num_classes` classes."""
        self.logits = FastConv3d(self.width, num_classes + self.background_first, 1)
        nn.init.normal_(self.logits.weight, std=0.001)
        zero_bias(self.logits)

    def forward(self, regions: Tensor) -> Tensor:
        """(N, C, 1, size, size) -> logits (N, K, 2 * size, 2 * size)."""
        with usable_without_regions(self, regions):
            for conv in self.convs:
                regions = conv(regions)
        logits = self.logits(F.relu(self.deconv(regions))).squeeze(2).float()
        return logits[:, 1:] if self.background_first else logits
