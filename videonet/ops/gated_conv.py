"""Recursive gated convolution (HorNet, arXiv 2207.14284, Sec. 3.1)."""

from __future__ import annotations

from torch import Tensor, nn

from videonet.errors import ConfigError
from videonet.ops.conv import TokenConv, depthwise
from videonet.ops.global_filter import GlobalLocalFilter
from videonet.ops.grid import Grid


class RecursiveGatedConv(nn.Module):
    """Interactions of tokens with their surroundings up to the `order`-th power.

    One projection gives ``p_0`` and ``q_0 … q_{n-1}``, where ``q_k`` has the width
    ``C / 2**(n-k-1)``; one depth-wise operator f spreads all q at once; and the gates follow each
    other, ``p_{k+1} = f(q_k) * g_k(p_k)``, with f scaled for a stable training.

    Args:
        dim: width C of the gates.
        order: n, from 1.
        scale: of f, the paper's ``1 / alpha``.
        temporal_kernel: of the depth-wise convolution.
        filter_size: None for that convolution, or the frequencies (t, h, w) of a global-local
            filter in its place.
        kernel: of that convolution in height and width.
        dim_in: width of what it gets; None for C.
        dim_out: width of what it gives, by a last projection; None for no projection.

    Raises:
        ConfigError: `dim` is too narrow for `order`.
    """

    dwconv: TokenConv | GlobalLocalFilter

    def __init__(
        self,
        dim: int,
        order: int,
        scale: float,
        temporal_kernel: int,
        filter_size: Grid | None = None,
        *,
        kernel: int = 7,
        dim_in: int | None = None,
        dim_out: int | None = None,
    ):
        super().__init__()
        self.widths = [dim // 2**i for i in reversed(range(order))]
        if not self.widths or not self.widths[0]:
            raise ConfigError(f"a gated convolution of order {order} does not fit width {dim}")
        self.scale = scale
        total = sum(self.widths)
        self.proj_in = TokenConv(dim_in or dim, self.widths[0] + total, 1)
        if filter_size is None:
            self.dwconv = depthwise(total, temporal_kernel, kernel)
        else:
            self.dwconv = GlobalLocalFilter(total, filter_size, temporal_kernel)
        self.pws = nn.ModuleList(
            TokenConv(narrow, wide, 1)
            for narrow, wide in zip(self.widths[:-1], self.widths[1:], strict=True)
        )
        self.proj_out = nn.Identity() if dim_out is None else TokenConv(dim, dim_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, H, W, dim_in) -> (B, T, H, W, dim_out)."""
        p, q = self.proj_in(x).split([self.widths[0], sum(self.widths)], dim=-1)
        first, *gates = (self.dwconv(q) * self.scale).split(self.widths, dim=-1)
        p = p * first
        for g, gate in zip(self.pws, gates, strict=True):
            p = g(p) * gate
        return self.proj_out(p)
