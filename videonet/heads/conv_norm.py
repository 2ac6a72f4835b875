"""The unit that necks and dense heads are made of: a convolution, a norm and an activation."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from videonet.errors import ConfigError
from videonet.ops.conv import FastConv3d

NORMS = ("batch", "group", "layer")
CHANNEL_NORM_EPS = 1e-6


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


def make_norm(name: str, dim: int, groups: int = 32) -> nn.Module:
    """A norm for maps (B, dim, T, H, W).

    Args:
        name: "batch"; "group", of every frame by itself; or "layer", over the channels of a cell.
        dim: channels.
        groups: of the group norm.

    Raises:
        ConfigError: another name, or groups that do not divide the channels.
    """
    if name == "batch":
        return nn.BatchNorm3d(dim)
    if name == "layer":
        return ChannelNorm(dim)
    if name != "group":
        raise ConfigError(f"the norm is {name!r}, expected one of {', '.join(NORMS)}")
    if dim % groups:
        raise ConfigError(f"{groups} groups of a norm do not divide {dim} channels")
    return FrameGroupNorm(groups, dim)


class ConvNorm(nn.Module):
    """A convolution that keeps the size or halves it, a norm and a ReLU, the latter as asked for.

    Args:
        dim, dim_out: channels before and after.
        kernel: of height and width, an odd size.
        stride: in height and width.
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
        temporal_kernel: int = 1,
        norm: str | None = None,
        bias: bool | None = None,
        relu: bool = False,
    ):
        super().__init__()
        taps = 1 if kernel == 1 else temporal_kernel
        if kernel % 2 == 0 or taps % 2 == 0:
            raise ConfigError(f"a kernel of {taps}×{kernel}×{kernel} has no centre: use odd sizes")
        self.conv = FastConv3d(
            dim,
            dim_out,
            (taps, kernel, kernel),
            (1, stride, stride),
            (taps // 2, kernel // 2, kernel // 2),
            bias=norm is None if bias is None else bias,
        )
        self.norm = nn.Identity() if norm is None else make_norm(norm, dim_out)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, T, H, W) -> (B, dim_out, T, H', W')."""
        x = self.norm(self.conv(x))
        return F.relu(x) if self.relu else x


def init_convs(module: nn.Module) -> None:
    """Initialise a convolution uniformly with a gain of 1, for ``module.apply``; biases are 0."""
    if isinstance(module, FastConv3d):
        nn.init.kaiming_uniform_(module.weight, a=1)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
