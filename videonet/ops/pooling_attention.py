"""Pooling attention over a T×H×W grid: MViT (arXiv 2104.11227) and MViTv2 (arXiv 2112.01526)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from videonet.errors import ConfigError
from videonet.ops.attention import attention
from videonet.ops.grid import Grid, as_grid, pooled_grid, volume
from videonet.ops.kernels import gpu
from videonet.ops.kernels.modules import is_plain
from videonet.ops.linear import call_linear, fast_linear
from videonet.ops.pooling import POOL_MODES, avg_pool, conv_pool, max_pool
from videonet.ops.precision import autocast_inputs
from videonet.ops.tracing import once_per_shape
from videonet.ops.windows import Windows, cut_tokens, join_tokens, padding_mask

NORM_EPS = 1e-6


@once_per_shape
def patch_mask(
    num_prefix_tokens: int, tokens: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """(tokens, 1): zero for the class tokens, which come first, and one for the others."""
    mask = torch.ones(tokens, 1, dtype=dtype, device=device)
    mask[:num_prefix_tokens] = 0
    return mask


class TokenPool(nn.Module):
    """One of the three poolings of an attention: tokens in, fewer tokens out.

    Args:
        channels: width of the vectors that share one kernel and one norm (a head, or all heads).
        kernel, stride: (t, h, w).
        mode: "conv" or "conv_unshared" (depth-wise convolution, then layer norm), "max", "avg".
    """

    def __init__(self, channels: int, kernel: Grid, stride: Grid, mode: str):
        super().__init__()
        self.channels, self.kernel, self.stride, self.mode = channels, kernel, stride, mode
        self.conv = mode.startswith("conv")
        if self.conv:
            self.weight = nn.Parameter(torch.empty(channels, 1, *kernel))
            nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))  # as nn.Conv3d

    def forward(self, tokens: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        """(B, T*H*W, C) on ``grid`` -> (B, T'*H'*W', C) on the pooled grid."""
        if self.conv:
            return conv_pool(tokens, grid, self.weight, self.stride)
        pool = max_pool if self.mode == "max" else avg_pool
        return pool(tokens, grid, self.kernel, self.stride)

    def extra_repr(self) -> str:
        return f"{self.channels}, kernel={self.kernel}, stride={self.stride}, mode={self.mode}"


class PoolingAttention(nn.Module):
    """Multi-head attention whose queries, keys and values are pooled on the token grid.

    Parameter names follow the official implementation (``qkv``, ``pool_q``, ``norm_q``,
    ``rel_pos_h`` …), so its checkpoints load by name.

    Args:
        dim, dim_out: width of the tokens before and after.
        grid: the grid (T, H, W) that the relative-position tables are made for; other grids
            interpolate them.
        q_kernel, q_stride, kv_kernel, kv_stride: of the poolings; None for no pooling.
        pool_mode: see :class:`TokenPool`; "conv_unshared" needs ``pool_first``.
        pool_first: pool the input, then project (MViTv1 text) instead of project, then pool.
        separate_qkv: three projections instead of one.
        rel_pos_spatial, rel_pos_temporal: decomposed relative position (MViTv2, Eq. 4).
        residual_pooling: add the pooled query to the result (MViTv2, Eq. 5): that of every cell,
            and of the class token where ``residual_with_cls_token`` says so. The official code
            leaves the class token out, timm includes it, torchvision has an option
            (``residual_with_cls_embed``); the weights do not show which one they were trained for.
        cls_token: the first token is a class token, which is never pooled.
        cls_key_log_frames: weigh the class token's key as often as a patch of a still clip is
            there, once per frame of the keys, so that a still clip gives what its image gives.
        window: (t, h, w) cells of the input grid within which queries see keys (MViTv2,
            Sec. 4.2, hybrid window attention), a multiple of all strides; None for global
            attention. Windows follow the pooling, which does see across their borders.
        padded_keys: where a window reaches beyond the frame, zeros stand there and take part in
            the softmax as keys and values, and no window shrinks to a smaller frame (the
            detectors of detectron2). Without, keys beyond the frame are left out. Keys before or
            after the clip are left out either way.
        norm_eps: of the norms behind the poolings.
    """

    pool_q: TokenPool | None
    pool_k: TokenPool | None
    pool_v: TokenPool | None
    norm_q: nn.LayerNorm | None
    norm_k: nn.LayerNorm | None
    norm_v: nn.LayerNorm | None
    rel_pos_t: nn.Parameter | None
    rel_pos_h: nn.Parameter | None
    rel_pos_w: nn.Parameter | None

    def __init__(
        self,
        dim: int,
        dim_out: int,
        num_heads: int,
        grid: Grid,
        *,
        q_kernel: Grid | None = None,
        q_stride: Grid | None = None,
        kv_kernel: Grid | None = None,
        kv_stride: Grid | None = None,
        qkv_bias: bool = True,
        pool_mode: str = "conv",
        pool_first: bool = False,
        separate_qkv: bool = False,
        rel_pos_spatial: bool = True,
        rel_pos_temporal: bool = True,
        rel_pos_zero_init: bool = False,
        residual_pooling: bool = True,
        residual_with_cls_token: bool = False,
        cls_token: bool = True,
        cls_key_log_frames: bool = False,
        dropout: float = 0.0,
        window: Grid | None = None,
        padded_keys: bool = False,
        norm_eps: float = NORM_EPS,
    ):
        super().__init__()
        if pool_mode not in POOL_MODES:
            raise ConfigError(
                f"pool_mode is {pool_mode!r}, expected one of {', '.join(POOL_MODES)}"
            )
        if pool_mode == "conv_unshared" and not pool_first:
            raise ConfigError("pool_mode 'conv_unshared' needs pool_first=True")
        if window is not None and cls_token:
            raise ConfigError("attention in windows has no place for a class token")
        self.num_heads = num_heads
        self.window, self.padded_keys, self.norm_eps = window, padded_keys, norm_eps
        self.num_prefix_tokens = int(cls_token)
        self.cls_key_log_frames = cls_token and cls_key_log_frames
        self.pool_first = pool_first
        self.residual_pooling = residual_pooling
        self.residual_with_cls_token = residual_with_cls_token
        self.dropout = nn.Dropout(dropout)

        if pool_first or separate_qkv:
            self.q = nn.Linear(dim, dim_out, bias=qkv_bias)
            self.k = nn.Linear(dim, dim_out, bias=qkv_bias)
            self.v = nn.Linear(dim, dim_out, bias=qkv_bias)
        else:
            self.qkv = nn.Linear(dim, 3 * dim_out, bias=qkv_bias)
        self.proj = nn.Linear(dim_out, dim_out)

        pooled_dim = dim if pool_first else dim_out
        channels = pooled_dim if pool_mode == "conv_unshared" else pooled_dim // num_heads
        for name, kernel, stride in (
            ("q", q_kernel, q_stride),
            ("k", kv_kernel, kv_stride),
            ("v", kv_kernel, kv_stride),
        ):
            pool = None
            if (
                kernel is not None
                and stride is not None
                and not volume(kernel) == volume(stride) == 1
            ):
                pool = TokenPool(channels, kernel, stride, pool_mode)
            self.add_module(f"pool_{name}", pool)
            norm = nn.LayerNorm(channels, eps=norm_eps) if pool is not None and pool.conv else None
            self.add_module(f"norm_{name}", norm)

        head_dim = dim_out // num_heads
        self._add_tables(head_dim, grid, rel_pos_spatial, rel_pos_temporal, rel_pos_zero_init)

    def _add_tables(self, head_dim: int, grid: Grid, spatial: bool, temporal: bool, zero: bool):
        """Tables as long as the official ones: sizes after pooling are rounded down."""
        strides = [p.stride if p is not None else (1, 1, 1) for p in (self.pool_q, self.pool_k)]
        for axis, (name, wanted) in enumerate((("t", temporal), ("h", spatial), ("w", spatial))):
            table = None
            if wanted:
                sizes = [max(grid[axis] // stride[axis], 1) for stride in strides]
                table = nn.Parameter(torch.zeros(2 * max(sizes) - 1, head_dim))
                if not zero:
                    nn.init.trunc_normal_(table, std=0.02)
            self.register_parameter(f"rel_pos_{name}", table)

    def forward(self, x: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        """(B, [1+]T*H*W, dim) -> (B, [1+]T'*H'*W', dim_out) and the grid of the queries."""
        if gpu.usable(x) and (poolings := self._plain_poolings()) is not None:
            heads, q_grid, k_grid = self._pool_at_once(x, grid, *poolings)
            y = self._attend(*heads, q_grid, k_grid)
            return self.dropout(call_linear(self.proj, y)), q_grid
        if self.pool_first:
            (q, q_grid), (k, k_grid), (v, _) = (self.pool(x, grid, n) for n in "qkv")
            q, k, v = call_linear(self.q, q), call_linear(self.k, k), call_linear(self.v, v)
        else:
            q, k, v = self._project(x)
            (q, q_grid), (k, k_grid), (v, _) = (
                self.pool(t, grid, n) for t, n in zip((q, k, v), "qkv", strict=True)
            )
        if self.window is None:
            q, k, v = self._heads(q), self._heads(k), self._heads(v)
            y = self._attend(q, k, v, q_grid, k_grid)
        else:
            queries, keys = self._windows(self.window, grid, q_grid, k_grid)
            q, k, v = cut_tokens(q, queries), cut_tokens(k, keys), cut_tokens(v, keys)
            bias = padding_mask(keys, k, in_time_only=self.padded_keys)
            q, k, v = self._heads(q), self._heads(k), self._heads(v)
            y = join_tokens(self._attend(q, k, v, queries.size, keys.size, bias), queries)
        return self.dropout(call_linear(self.proj, y)), q_grid

    def _plain_poolings(self) -> tuple[Sequence[TokenPool], Sequence[nn.LayerNorm]] | None:
        """Those of queries, keys and values and their norms, where one kernel may run them all."""
        if torch.compiler.is_compiling() or self.window is not None or not hasattr(self, "qkv"):
            return None
        pools = [
            pool
            for pool in (self.pool_q, self.pool_k, self.pool_v)
            if pool is not None and is_plain(pool, TokenPool) and pool.conv
        ]
        norms = [
            norm
            for norm in (self.norm_q, self.norm_k, self.norm_v)
            if norm is not None and is_plain(norm, nn.LayerNorm)
        ]
        if len(pools) < 3 or len(norms) < 3 or pools[0].kernel != pools[1].kernel:
            return None
        return pools, norms

    def _pool_at_once(
        self, x: Tensor, grid: Grid, pools: Sequence[TokenPool], norms: Sequence[nn.LayerNorm]
    ) -> tuple[tuple[Tensor, Tensor, Tensor], Grid, Grid]:
        """Queries, keys and values (B, heads, N', D); the grids of queries and of keys."""
        qkv = call_linear(self.qkv, x).unflatten(2, (3, self.num_heads, -1))  # (B, N, 3, heads, D)
        weights = torch.stack([pool.weight for pool in pools])
        gains = torch.stack([norm.weight for norm in norms])
        offsets = torch.stack([norm.bias for norm in norms])
        strides = pools[0].stride, pools[1].stride
        heads = gpu.POOL_NORM(
            *autocast_inputs(qkv, weights), gains, offsets, grid, *strides, self.norm_eps
        )
        q_grid, k_grid = (pooled_grid(grid, pools[0].kernel, stride) for stride in strides)
        return heads, q_grid, k_grid

    def _attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        q_grid: Grid,
        k_grid: Grid,
        key_bias: Tensor | None = None,
    ) -> Tensor:
        """(B, heads, N', D), (B, heads, Nk, D) twice -> (B, N', heads*D)."""
        y = attention(
            q,
            k,
            v,
            q_grid=q_grid,
            k_grid=k_grid,
            tables=(self.rel_pos_t, self.rel_pos_h, self.rel_pos_w),
            num_prefix_tokens=self.num_prefix_tokens,
            prefix_key_bias=math.log(k_grid[0]) if self.cls_key_log_frames else 0.0,
            key_bias=key_bias,
        )  # (B, heads, N', D)
        if self.residual_pooling and self.residual_with_cls_token:
            y = y + q
        elif self.residual_pooling:
            y = torch.addcmul(
                y, q, patch_mask(self.num_prefix_tokens, q.shape[2], q.dtype, q.device)
            )
        return y.transpose(1, 2).flatten(2)

    def _windows(
        self, window: Grid, grid: Grid, q_grid: Grid, k_grid: Grid
    ) -> tuple[Windows, Windows]:
        """The same windows on the grids of queries and of keys.

        None is longer than its grid, nor, without `padded_keys`, higher or wider.
        """
        cuts = []
        for pool, pooled in ((self.pool_q, q_grid), (self.pool_k, k_grid)):
            strides = (1, 1, 1) if pool is None else pool.stride
            size = (
                p if w >= n and not (axis and self.padded_keys) else w // s
                for axis, (n, p, w, s) in enumerate(zip(grid, pooled, window, strides, strict=True))
            )
            cuts.append(Windows(pooled, as_grid(size)))
        return cuts[0], cuts[1]

    def _project(self, x: Tensor) -> Sequence[Tensor]:
        """Tokens (B, N, dim) -> queries, keys and values (B, N, heads*D) before the pooling."""
        if not hasattr(self, "qkv"):
            return [call_linear(layer, x) for layer in (self.q, self.k, self.v)]
        if not is_plain(self.qkv, nn.Linear):
            return self.qkv(x).chunk(3, dim=-1)
        # By slices of the weight, so that each result is contiguous.
        weights, bias = self.qkv.weight.chunk(3), self.qkv.bias
        biases = (None, None, None) if bias is None else bias.chunk(3)
        return [fast_linear(x, w, b) for w, b in zip(weights, biases, strict=True)]

    def _heads(self, tokens: Tensor) -> Tensor:
        """(B, N, heads*D) -> (B, heads, N, D)."""
        return tokens.unflatten(2, (self.num_heads, -1)).transpose(1, 2)

    def pool(self, tokens: Tensor, grid: Grid, name: str) -> tuple[Tensor, Grid]:
        """Pool and normalise q, k or v; the class token passes the norm, not the pooling."""
        pool, norm = getattr(self, f"pool_{name}"), getattr(self, f"norm_{name}")
        if pool is None:
            return tokens, grid
        # One split has one gradient; two slices would each fill a tensor of all tokens.
        first, patches = tokens.split((self.num_prefix_tokens, volume(grid)), dim=1)
        pooled, new_grid = pool(patches, grid)
        if self.num_prefix_tokens:
            pooled = torch.cat((first, pooled), dim=1)
        if norm is not None:
            pooled = norm(pooled.unflatten(2, (-1, pool.channels))).flatten(2)
        return pooled, new_grid
