"""HorFPN (HorNet, arXiv 2207.14284): a feature pyramid that smooths by gated convolutions.

After the top-down path, every level goes through a recursive gated convolution of order 2 in place
of a 3×3 convolution, either with a 7×7 depth-wise convolution or with a global filter.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from videonet.heads.conv_norm import GatedConvNorm
from videonet.heads.fpn import FPN
from videonet.ops.grid import Grid

GLOBAL_FILTER = (1, 32, 17)  # frequencies of the published "GF": one for all of time


class HorFPN(FPN):
    """:class:`videonet.heads.fpn.FPN` with gated convolutions behind the top-down path.

    Args:
        in_channels, out_channels: as of the FPN.
        kernel: of the depth-wise convolutions in height and width.
        order: number of gates.
        filter_size: None for those convolutions, or frequencies (t, h, w) of global-local filters
            in their place, ``GLOBAL_FILTER`` as published. They are resized to every level; one
            temporal frequency keeps frames apart.
        width_ratio: of the gates to `out_channels`.
        project: whether a 1×1 convolution follows the gates.
        **options: further ones of the FPN.

    Raises:
        ConfigError: as the FPN does, and for gates that do not fit.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int = 256,
        *,
        kernel: int = 7,
        order: int = 2,
        filter_size: Grid | None = None,
        width_ratio: int = 1,
        project: bool = True,
        **options,
    ):
        # Before FPN's constructor, which calls make_output.
        self.kernel, self.order, self.filter_size = kernel, order, filter_size
        self.width_ratio, self.project = width_ratio, project
        super().__init__(in_channels, out_channels, **options)

    def make_output(self) -> nn.Module:
        """The gated convolution of a level, (B, C, T, H, W) -> the same."""
        return GatedConvNorm(
            self.out_channels,
            self.out_channels,
            self.kernel,
            order=self.order,
            filter_size=self.filter_size,
            width=self.out_channels * self.width_ratio,
            project=self.project,
            temporal_kernel=self.temporal_kernel,
            norm=self.norm_name,
            relu=self.relu,
        )
