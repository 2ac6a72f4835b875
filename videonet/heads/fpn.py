"""Feature pyramid network (arXiv 1612.03144) on the stage maps of a backbone.

Every map is brought to one width, the coarser ones are added to the finer ones from the top down,
and a convolution smooths each sum. Frames of a clip are images side by side unless the kernels have
taps along time. Parameter names are those of mmdetection, but for ``norm``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from videonet.errors import ConfigError
from videonet.heads.conv_norm import ConvNorm, check_maps
from videonet.ops.resize import resize_space

EXTRA_LEVELS = ("pool", "input", "lateral", "output")
FUSIONS = ("sum", "avg")


def half_size(x: Tensor) -> Tensor:
    """Every second row and column of (B, C, T, H, W): max pooling with a kernel of 1."""
    return x[..., ::2, ::2]


class FPN(nn.Module):
    """Maps of several resolutions -> as many maps, or more, of one width.

    Coarser maps are resized to the size of the finer ones, whatever the sizes are; where detectron2
    runs, on frames padded to multiples of 32, that is its factor of 2.

    Args:
        in_channels: of every map that :meth:`forward` gets, from high to low resolution.
        out_channels: of every map that it gives.
        num_outs: number of maps that it gives; None for as many as are used. Levels beyond those
            have half the size of the one before, see `extra`.
        start_level, end_level: first and last map that are used, numbers in `in_channels`; None for
            the last one.
        extra: what gives the further levels: "pool", every second cell of the level before; or
            strided 3×3 convolutions, the first one on the last "input" map, the last "lateral"
            one or the last "output". RetinaNet's p6 and p7 are "input" or "output".
        relu_before_extra: a ReLU before each of those convolutions but the first.
        norm: of all convolutions, see :func:`videonet.heads.conv_norm.make_norm`; None for none.
        norm_on_laterals, norm_on_extra: False for no norm on these convolutions.
        relu: whether a ReLU follows every convolution.
        fuse: "sum", or "avg" for half of it.
        upsample: "nearest" or "bilinear", of the coarser maps.
        temporal_kernel: taps along time of the 3×3 convolutions.

    Attributes:
        out_channels: of every map that it gives.
        num_outs: number of maps that it gives.

    Raises:
        ConfigError: levels that there are not, or an unknown option.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int = 256,
        *,
        num_outs: int | None = None,
        start_level: int = 0,
        end_level: int | None = None,
        extra: str = "pool",
        relu_before_extra: bool = False,
        norm: str | None = None,
        norm_on_laterals: bool = True,
        norm_on_extra: bool = True,
        relu: bool = False,
        fuse: str = "sum",
        upsample: str = "nearest",
        temporal_kernel: int = 1,
    ):
        super().__init__()
        self.in_channels = tuple(in_channels)
        last = len(self.in_channels) - 1 if end_level is None else end_level
        if not 0 <= start_level <= last < len(self.in_channels):
            raise ConfigError(
                f"the pyramid starts at map {start_level} and ends at {last}, but there are "
                f"{len(self.in_channels)} maps"
            )
        used = self.in_channels[start_level : last + 1]
        self.num_outs = len(used) if num_outs is None else num_outs
        if self.num_outs < len(used):
            raise ConfigError(f"num_outs is {num_outs}, but {len(used)} maps are used")
        if extra not in EXTRA_LEVELS:
            raise ConfigError(f"extra is {extra!r}, expected one of {', '.join(EXTRA_LEVELS)}")
        if fuse not in FUSIONS:
            raise ConfigError(f"fuse is {fuse!r}, expected {' or '.join(FUSIONS)}")
        self.out_channels, self.start_level, self.end_level = out_channels, start_level, last
        self.extra, self.relu_before_extra = extra, relu_before_extra
        self.fuse, self.upsample, self.temporal_kernel = fuse, upsample, temporal_kernel
        self.norm_name, self.relu = norm, relu
        self.lateral_convs = nn.ModuleList(
            ConvNorm(dim, out_channels, norm=norm if norm_on_laterals else None, relu=relu)
            for dim in used
        )
        self.fpn_convs = nn.ModuleList(self.make_output() for _ in used)
        if extra != "pool":
            for number in range(self.num_outs - len(used)):
                dim = used[-1] if extra == "input" and number == 0 else out_channels
                self.fpn_convs.append(self._make_extra(dim, norm if norm_on_extra else None))

    def make_output(self) -> nn.Module:
        """What a level goes through after the top-down path, (B, C, T, H, W) -> the same."""
        dim, taps = self.out_channels, self.temporal_kernel
        return ConvNorm(dim, dim, 3, temporal_kernel=taps, norm=self.norm_name, relu=self.relu)

    def _make_extra(self, dim: int, norm: str | None) -> nn.Module:
        taps = self.temporal_kernel
        return ConvNorm(
            dim, self.out_channels, 3, 2, temporal_kernel=taps, norm=norm, relu=self.relu
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Stage maps (B, C_i, T, H_i, W_i) -> as many or more (B, out_channels, T, H_j, W_j).

        Raises:
            ConfigError: the maps are not those that the pyramid was built for.
        """
        check_maps(maps, self.in_channels, type(self).__name__)
        used = maps[self.start_level : self.end_level + 1]
        laterals = [conv(x) for conv, x in zip(self.lateral_convs, used, strict=True)]
        top = laterals[-1]
        sums = [top]
        for lateral in reversed(laterals[:-1]):
            top = lateral + resize_space(top, (lateral.shape[3], lateral.shape[4]), self.upsample)
            top = top / 2 if self.fuse == "avg" else top
            sums.insert(0, top)
        outs = [conv(x) for conv, x in zip(self.fpn_convs, sums, strict=False)]
        return self._with_extra_levels(outs, used[-1], laterals[-1])

    def _with_extra_levels(
        self, outs: list[Tensor], last_map: Tensor, last_lateral: Tensor
    ) -> list[Tensor]:
        """The levels, and behind them those that no map stands for."""
        if self.extra == "pool":
            while len(outs) < self.num_outs:
                outs.append(half_size(outs[-1]))
            return outs
        sources = {"input": last_map, "lateral": last_lateral, "output": outs[-1]}
        x = sources[self.extra]
        for number, conv in enumerate(list(self.fpn_convs)[len(outs) :]):
            x = conv(F.relu(x) if self.relu_before_extra and number else x)
            outs.append(x)
        return outs
