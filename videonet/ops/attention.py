"""Attention with a decomposed relative position that rides inside the dot product.

The bias between query q and key (t, h, w) is a sum of three numbers that depend on q and on one
coordinate of the key each. Appending these numbers to the scaled query, and the one-hot
coordinates to the key, makes plain attention of width ``D + T + H + W`` compute the same logits:
no (queries x keys) bias is ever built and fused kernels apply.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from videonet.ops.grid import Grid, one_hot_positions
from videonet.ops.relative_position import Tables, position_rows


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    q_grid: Grid,
    k_grid: Grid,
    tables: Tables = (None, None, None),
    class_tokens: int = 0,
    class_key_bias: float = 0.0,
    key_bias: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """Softmax attention with the bias of MViTv2, Eq. 4.

    Args:
        q: (B, heads, Nq, D), k and v: (B, heads, Nk, D); class tokens first, then the cells of
            the grid. The logits are scaled by `scale`, ``D ** -0.5`` if None; the bias is not.
        tables: relative-position tables of time, height and width, each (R, D) or None.
        class_tokens: number of leading tokens in q, k and v that take no part in the bias.
        class_key_bias: added to the logits of the class tokens' keys, for every query.
        key_bias: (B, Nk), added to the logits of single keys, for every query; None for none.

    Returns:
        (B, heads, Nq, D).
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    has_tables = any(table is not None for table in tables)
    if not has_tables and not class_key_bias and key_bias is None:
        return F.scaled_dot_product_attention(q, k, v, scale=scale)
    width = v.shape[-1]
    if has_tables:
        rows = position_rows(q[:, :, class_tokens:], q_grid, k_grid, tables)
        rows = F.pad(rows, (0, 0, class_tokens, 0))
        columns = F.pad(one_hot_positions(k_grid, like=k), (0, 0, class_tokens, 0))
    else:
        rows, columns = q[..., :0], k.new_empty(k.shape[2], 0)
    if class_key_bias:  # one more number that every query has and only class keys read
        rows = F.pad(rows, (0, 1), value=class_key_bias)
        reads = k.new_zeros(k.shape[2], 1)
        reads[:class_tokens] = 1
        columns = torch.cat((columns, reads), dim=-1)
    if key_bias is not None:  # likewise, with a number that each key has for itself
        rows = F.pad(rows, (0, 1), value=1.0)
        columns = columns.expand(len(k), 1, -1, -1)
        columns = torch.cat((columns, key_bias[:, None, :, None].to(k.dtype)), dim=-1)
    q = torch.cat((q * scale, rows), dim=-1)  # (B, heads, Nq, D+T+H+W[+1][+1])
    k = torch.cat((k, columns.expand(*k.shape[:2], -1, -1)), dim=-1)  # (B, heads, Nk, same)
    # Fused kernels want one width for q, k and v.
    v = F.pad(v, (0, q.shape[-1] - width))
    return F.scaled_dot_product_attention(q, k, v, scale=1.0)[..., :width]


def attention_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    q_grid: Grid,
    k_grid: Grid,
    tables: Tables = (None, None, None),
    class_tokens: int = 0,
    class_key_bias: float = 0.0,
    key_bias: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """The same function as :func:`attention`, written out with the full matrix of logits."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    logits = (q * scale) @ k.transpose(-2, -1)  # (B, heads, Nq, Nk)
    if any(table is not None for table in tables):
        rows = position_rows(q[:, :, class_tokens:], q_grid, k_grid, tables)
        t, h, w = rows.split(k_grid, dim=-1)
        bias = t[..., :, None, None] + h[..., None, :, None] + w[..., None, None, :]
        logits = logits + F.pad(bias.flatten(3), (class_tokens, 0, class_tokens, 0))
    of_class_key = torch.arange(k.shape[2], device=k.device) < class_tokens
    logits = logits + class_key_bias * of_class_key.to(logits.dtype)
    if key_bias is not None:
        logits = logits + key_bias[:, None, None, :]
    return logits.softmax(dim=-1) @ v
