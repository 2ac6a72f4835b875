"""The units that necks and dense heads are made of: a convolution, a norm and an activation."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from videonet.errors import ConfigError
from videonet.ops.conv import FastConv3d, TokenConv
from videonet.ops.gated_conv import RecursiveGatedConv
from videonet.ops.grid import Grid

NORMS = ("batch", "group", "layer")
GROUPS = 32  # of a group norm, in mmcv and detectron2
CHANNEL_NORM_EPS = 1e-6


def check_maps(maps: Sequence[Tensor], in_channels: Sequence[int], owner: str) -> None:
    """Whether a neck or head gets the maps that it was built for.

    Raises:
        ConfigError: another number of maps, of dimensions or of channels.
    """
    if len(maps) != len(in_channels):
        raise ConfigError(f"{owner} takes {len(in_channels)} maps, but got {len(maps)}")
    for level, (x, channels) in enumerate(zip(maps, in_channels, strict=True)):
        if x.dim() != 5 or x.shape[1] != channels:
            raise ConfigError(
                f"map {level} has the shape {tuple(x.shape)}, but {owner} expects "
                f"(B, {channels}, T, H, W)"
            )


class FrameGroupNorm(nn.GroupNorm):
    """Group norm of every frame by itself: (B, C, T, H, W) is normed as B·T images."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) -> the same shape."""
        frames = super().forward(x.transpose(1, 2).flatten(0, 1))  # (B*T, C, H, W)
        return frames.unflatten(0, (x.shape[0], x.shape[2])).transpose(1, 2)


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of every cell of (B, C, T, H, W)."""

    def __init__(self, dim: int, eps: float = CHANNEL_NORM_EPS):
        super().__init__(dim, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) -> the same shape."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


def make_norm(name: str | None, dim: int) -> nn.Module:
    """A norm for maps (B, dim, T, H, W).

    Args:
        name: "batch"; "group", of every frame by itself, in 32 groups, or "group:4" in 4;
            "layer", over the channels of a cell; or None for no norm.
        dim: channels.

    Raises:
        ConfigError: another name, or groups that do not divide the channels.
    """
    if name is None:
        return nn.Identity()
    if name == "batch":
        return nn.BatchNorm3d(dim)
    if name == "layer":
        return ChannelNorm(dim)
    kind, _, count = name.partition(":")
    if kind != "group" or not (count.isdecimal() or name == "group"):
        raise ConfigError(f"the norm is {name!r}, expected one of {', '.join(NORMS)}")
    groups = int(count or GROUPS)
    if not groups or dim % groups:
        raise ConfigError(f"{groups} groups of a norm do not divide {dim} channels")
    return FrameGroupNorm(groups, dim)


def init_conv(conv: nn.Conv3d, relu: bool = False) -> None:
    """Initialise a convolution uniformly, for what follows it: a ReLU, or not; biases are 0."""
    nn.init.kaiming_uniform_(conv.weight, nonlinearity="relu" if relu else "linear")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


def same_conv(
    dim: int,
    dim_out: int,
    kernel: int,
    temporal_kernel: int = 1,
    *,
    stride: int = 1,
    dilation: int = 1,
    bias: bool = True,
) -> FastConv3d:
    """A convolution with zeros around it, so that only its stride changes the size.

    Args:
        dim, dim_out: channels before and after.
        kernel, stride, dilation: in height and width.
        temporal_kernel: taps along time; a kernel of 1×1 has one.
        bias: whether it has one.

    Raises:
        ConfigError: a size of the kernel is even.
    """
    taps = 1 if kernel == 1 else temporal_kernel
    if kernel % 2 == 0 or taps % 2 == 0:
        raise ConfigError(f"a kernel of {taps}×{kernel}×{kernel} has no centre: use odd sizes")
    around = kernel // 2 * dilation
    return FastConv3d(
        dim,
        dim_out,
        (taps, kernel, kernel),
        (1, stride, stride),
        (taps // 2, around, around),
        (1, dilation, dilation),
        bias=bias,
    )


class ConvNorm(nn.Module):
    """A convolution that keeps the size or halves it, a norm and a ReLU, the latter as asked for.

    Args:
        dim, dim_out: channels before and after.
        kernel: of height and width, an odd size.
        stride: in height and width.
        dilation: of the taps in height and width.
        temporal_kernel: taps along time; a kernel of 1×1 has one.
        norm: see :func:`make_norm`; None for no norm, and then the convolution has a bias.
        bias: True or False for a convolution that has one, or none, whatever its norm.
        relu: whether a ReLU follows.

    Raises:
        ConfigError: a size of the kernel is even, or an unknown norm.
    """

    def __init__(
        self,
        dim: int,
        dim_out: int,
        kernel: int = 1,
        stride: int = 1,
        *,
        dilation: int = 1,
        temporal_kernel: int = 1,
        norm: str | None = None,
        bias: bool | None = None,
        relu: bool = False,
    ):
        super().__init__()
        self.conv = same_conv(
            dim,
            dim_out,
            kernel,
            temporal_kernel,
            stride=stride,
            dilation=dilation,
            bias=norm is None if bias is None else bias,
        )
        self.norm = make_norm(norm, dim_out)
        self.relu = relu
        init_conv(self.conv, relu)

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, T, H, W) -> (B, dim_out, T, H', W')."""
        x = self.norm(self.conv(x))
        return F.relu(x) if self.relu else x


class GatedConvNorm(RecursiveGatedConv):
    """A recursive gated convolution in place of the convolution of :class:`ConvNorm` (HorFPN).

    Unlike HorNet's own, f is not scaled.

    Args:
        dim, dim_out: channels before and after.
        kernel: of f in height and width.
        order: number of gates.
        filter_size: None, or the frequencies (t, h, w) of a global-local filter in place of f; one
            temporal frequency keeps frames apart.
        width: of the gates; None for `dim_out`.
        project: False for no convolution behind the gates, whose width is `dim_out` then.
        temporal_kernel: taps along time of f.
        norm, relu: see :class:`ConvNorm`.

    Raises:
        ConfigError: a width that the order does not fit, or that no projection follows.
    """

    def __init__(
        self,
        dim: int,
        dim_out: int,
        kernel: int = 7,
        *,
        order: int = 2,
        filter_size: Grid | None = None,
        width: int | None = None,
        project: bool = True,
        temporal_kernel: int = 1,
        norm: str | None = None,
        relu: bool = False,
    ):
        inner = dim_out if width is None else width
        if inner != dim_out and not project:
            raise ConfigError(f"gates of width {inner} need a projection to {dim_out} channels")
        super().__init__(
            inner,
            order,
            1.0,
            temporal_kernel,
            filter_size,
            kernel=kernel,
            dim_in=dim,
            dim_out=dim_out if project else None,
        )
        self.norm = make_norm(norm, dim_out)
        self.relu = relu
        for module in self.modules():
            if isinstance(module, TokenConv):
                init_conv(module)

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, T, H, W) -> (B, dim_out, T, H, W)."""
        cells = super().forward(x.permute(0, 2, 3, 4, 1))  # (B, T, H, W, dim_out)
        x = self.norm(cells.permute(0, 4, 1, 2, 3))
        return F.relu(x) if self.relu else x
