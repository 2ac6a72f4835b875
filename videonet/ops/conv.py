"""3D convolution, also of tokens on their grid, channels last."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from videonet.errors import ConfigError
from videonet.ops.depthwise import depthwise_conv, depthwise_sizes
from videonet.ops.grid import same_padding, volume
from videonet.ops.kernels import cpu

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class FastConv3d(nn.Conv3d):
    """``nn.Conv3d`` that is fast for a single clip on a CPU too.

    torch gives a small kernel on a single small input (batch 1 with channels × frames × height up
    to 20,480) to loops of its own, which take several times as long as oneDNN.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, T, H, W) -> (B, out_channels, T', H', W')."""
        single = x.dim() == 5 and x.shape[0] == 1
        if x.dim() == 5 and (sizes := depthwise_sizes(self)) is not None:
            return depthwise_conv(x, self.weight, self.bias, *sizes)
        if x.is_cuda and x.dim() == 5 and cuts_patches(self):
            return patch_product(self, x)
        if single and self.padding_mode == "zeros" and cpu.convolves(x, self.weight, self.bias):
            return cpu.CONVOLUTION(
                x, self.weight, self.bias, self.padding, self.stride, self.dilation, self.groups
            )
        if cpu.loses_taps(x, self.kernel_size[0]):
            with torch.autocast("cpu", enabled=False):
                bias = None if self.bias is None else self.bias.float()
                return self._conv_forward(x.float(), self.weight.float(), bias).bfloat16()
        return super().forward(x)


def cuts_patches(conv: nn.Conv3d) -> bool:
    """Whether a convolution sees every cell once: patches without overlap or padding."""
    return (
        conv.kernel_size == conv.stride
        and volume(conv.kernel_size) > 1
        and conv.groups == volume(conv.dilation) == 1
        and conv.padding in ((0, 0, 0), "valid")
    )


def patch_product(conv: nn.Conv3d, x: Tensor) -> Tensor:
    """The same as `conv` where it :func:`cuts_patches`, as one product of matrices.

    cuDNN has few kernels for large strides, and a product gives channels-last memory as tokens
    have it. (B, in_channels, T, H, W) -> (B, out_channels, T', H', W').
    """
    for dim, size in enumerate(conv.kernel_size, start=2):
        x = x.narrow(dim, 0, x.shape[dim] // size * size)
    for dim, size in zip((4, 3, 2), reversed(conv.kernel_size), strict=True):
        x = x.unflatten(dim, (-1, size))
    patches = x.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4)  # (B, T', H', W', in_channels*t*h*w)
    return F.linear(patches, conv.weight.flatten(1), conv.bias).permute(0, 4, 1, 2, 3)


class TokenConv(FastConv3d):
    """A 3D convolution that takes and gives (B, T, H, W, C), which is channels-last memory.

    With a kernel of 1×1×1 it is a linear layer.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, H, W, in_channels) -> (B, T', H', W', out_channels)."""
        if volume(self.kernel_size) == volume(self.stride) == self.groups == 1:
            return F.linear(x, self.weight.flatten(1), self.bias)
        return super().forward(x.permute(0, 4, 1, 2, 3)).permute(0, 2, 3, 4, 1)


def depthwise(dim: int, temporal_kernel: int, kernel: int, bias: bool = True) -> TokenConv:
    """A depth-wise convolution that keeps the grid: zeros around it.

    Raises:
        ConfigError: a size is even, so that no tap is the centre.
    """
    size = (temporal_kernel, kernel, kernel)
    if any(k % 2 == 0 for k in size):
        raise ConfigError(f"a depth-wise kernel of {size} has no centre: use odd sizes")
    return TokenConv(dim, dim, size, padding=same_padding(size), groups=dim, bias=bias)
