"""Attention whose decomposed relative positions are computed within the dot product.

The bias between query q and key (t, h, w) is a sum of three numbers, each of which depends on q
and on one coordinate of the key (MViTv2, arXiv 2112.01526, Eq. 4). Appending these numbers to the
query, and one-hot coordinates to the key, makes plain attention of width ``D + T + H + W``
compute the same logits. So no bias of (queries × keys) is stored, and fused kernels can be used.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from videonet.errors import ConfigError
from videonet.ops.chunked_attention import chunked_attention
from videonet.ops.fused_attention import fused_attention
from videonet.ops.grid import Grid, one_hot_positions
from videonet.ops.kernels import cpu, gpu
from videonet.ops.precision import autocast_inputs
from videonet.ops.relative_position import Tables, position_rows
from videonet.ops.tracing import once_per_shape

# Below, the loop over heads in Python costs more than the products (small windows).
MIN_LOGITS = 2**16


def check_heads(dim: int, num_heads: int) -> None:
    """Refuse heads that cannot share a width evenly.

    Raises:
        ConfigError: `dim` is no multiple of `num_heads`.
    """
    if num_heads < 1 or dim % num_heads:
        raise ConfigError(f"a width of {dim} is no multiple of its {num_heads} heads")


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    q_grid: Grid,
    k_grid: Grid,
    tables: Tables = (None, None, None),
    num_prefix_tokens: int = 0,
    prefix_key_bias: float = 0.0,
    key_bias: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """Softmax attention with the bias of MViTv2, Eq. 4.

    Args:
        q: (B, heads, Nq, D), k and v: (B, heads, Nk, D); prefix tokens first, then the cells of
            the grid. The logits are scaled by `scale`, ``D ** -0.5`` if None; the bias is not.
        tables: relative-position tables of time, height and width, each (R, D) or None.
        num_prefix_tokens: number of tokens before the cells in q, k and v (class token,
            registers), which have no relative position.
        prefix_key_bias: added to the logits of the prefix tokens' keys, for every query.
        key_bias: (B, Nk), added to the logits of single keys, for every query; None for none.

    Returns:
        (B, heads, Nq, D).
    """
    k = k * (q.shape[-1] ** -0.5 if scale is None else scale)  # there are fewer keys than queries
    q, k, v = autocast_inputs(q, k, v)
    has_tables = any(table is not None for table in tables)
    if not has_tables and not prefix_key_bias and key_bias is None:
        return dot_product_attention(q, k, v)
    rows, columns = q[..., :0], None
    if has_tables:
        rows = position_rows(q, q_grid, k_grid, tables, num_prefix_tokens)
    if has_tables or prefix_key_bias:
        columns = key_columns(k_grid, num_prefix_tokens, k.dtype, k.device)
        columns = columns[:, 0 if has_tables else -1 : None if prefix_key_bias else -1]
    if prefix_key_bias:  # a number in every query, multiplied by 1 for prefix keys and else by 0
        rows = F.pad(rows, (0, 1), value=prefix_key_bias)
    if key_bias is not None:  # a 1 in every query, multiplied by the bias of each key
        rows = F.pad(rows, (0, 1), value=1.0)
        of_key = key_bias.unsqueeze(2).to(k.dtype)  # (B, Nk, 1)
        columns = (
            of_key
            if columns is None
            else torch.cat((columns.expand(k.shape[0], -1, -1), of_key), dim=-1)
        )
    return dot_product_attention(q, k, v, rows, columns)


@once_per_shape
def key_columns(
    grid: Grid, num_prefix_tokens: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """One-hot coordinates of the keys, and a 1 for prefix tokens, (Nk, T+H+W+1)."""
    columns = F.pad(one_hot_positions(grid, dtype, device), (0, 1, num_prefix_tokens, 0))
    columns[:num_prefix_tokens, -1] = 1
    return columns


def dot_product_attention(
    q: Tensor, k: Tensor, v: Tensor, rows: Tensor | None = None, columns: Tensor | None = None
) -> Tensor:
    """``softmax(q @ k.T + rows @ columns.T) @ v`` without the matrix of logits.

    Args:
        q: (B, heads, Nq, D), k and v: (B, heads, Nk, D).
        rows: (B, heads, Nq, R), or None.
        columns: constants (Nk, R) or (B, Nk, R), or None where `rows` is.
    """
    is_large = q.shape[2] * k.shape[2] >= MIN_LOGITS
    if rows is None or columns is None:
        q, k, v = autocast_inputs(q, k, v)
        if is_large and cpu.preferred(q, k, v):
            return chunked_attention(q, k, v)
        return fused_attention(q, k, v, scale=1.0)
    columns = columns.expand(k.shape[0], -1, -1)
    q, k, v, rows, columns = autocast_inputs(q, k, v, rows, columns)
    if is_large and cpu.preferred(q, k, v, rows, columns):
        return chunked_attention(q, k, v, rows, columns)
    columns = columns.unsqueeze(1).expand(-1, k.shape[1], -1, -1)
    if gpu.attends(q, rows, k, v):
        return gpu.TWO_PART_ATTENTION(q, rows, torch.cat((k, columns), dim=-1), v)
    # Fused kernels want one width for q, k and v, a multiple of 8.
    width = v.shape[-1]
    missing = -(q.shape[-1] + rows.shape[-1]) % 8
    zero = q.new_zeros(())
    q = torch.cat((q, rows, zero.expand(*rows.shape[:-1], missing)), dim=-1)  # (B, heads, Nq, D+R)
    k = torch.cat((k, columns, zero.expand(*columns.shape[:-1], missing)), dim=-1)
    v = F.pad(v, (0, q.shape[-1] - width))
    return fused_attention(q, k, v, scale=1.0)[..., :width]


def attention_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    q_grid: Grid,
    k_grid: Grid,
    tables: Tables = (None, None, None),
    num_prefix_tokens: int = 0,
    prefix_key_bias: float = 0.0,
    key_bias: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """The same function as :func:`attention`, written out with the full matrix of logits."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    logits = (q * scale) @ k.transpose(-2, -1)  # (B, heads, Nq, Nk)
    if any(table is not None for table in tables):
        rows = position_rows(q, q_grid, k_grid, tables, num_prefix_tokens)[:, :, num_prefix_tokens:]
        t, h, w = rows.split(k_grid, dim=-1)
        bias = t[..., :, None, None] + h[..., None, :, None] + w[..., None, None, :]
        logits = logits + F.pad(bias.flatten(3), (num_prefix_tokens, 0, num_prefix_tokens, 0))
    of_class_key = torch.arange(k.shape[2], device=k.device) < num_prefix_tokens
    logits = logits + prefix_key_bias * of_class_key.to(logits.dtype)
    if key_bias is not None:
        logits = logits + key_bias[:, None, None, :]
    return logits.softmax(dim=-1) @ v
