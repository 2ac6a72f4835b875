"""Decomposed relative position over time, height and width.

MViTv2 (arXiv 2112.01526), Eq. 4: the bias between query i and key j is the inner product of the
query with ``R_t + R_h + R_w``, one learned table per axis.
"""

from __future__ import annotations

import torch
from torch import Tensor

from videonet.ops.grid import Grid, resize_rows

Tables = tuple[Tensor | None, Tensor | None, Tensor | None]  # rel_pos_t, rel_pos_h, rel_pos_w


def axis_embeddings(table: Tensor, queries: int, keys: int) -> Tensor:
    """Vectors between every query and key position along one axis, (queries, keys, D).

    Positions are compared on the finer of the two scales. A table (R, D) whose length is not
    ``2 * max(queries, keys) - 1`` is interpolated linearly.
    """
    table = resize_rows(table, 2 * max(queries, keys) - 1)
    q_step, k_step = max(keys / queries, 1.0), max(queries / keys, 1.0)
    q = torch.arange(queries, device=table.device).unsqueeze(1) * q_step
    k = torch.arange(keys, device=table.device).unsqueeze(0) * k_step
    return table[(q - k + (keys - 1) * k_step).long()]


def position_rows(q: Tensor, q_grid: Grid, k_grid: Grid, tables: Tables) -> Tensor:
    """Relative-position logits of every query, one column per key *coordinate*.

    Args:
        q: unscaled queries (B, heads, Tq*Hq*Wq, D), without class token.
        tables: one (R, D) table per axis (time, height, width), or None for no bias on it.

    Returns:
        (B, heads, Tq*Hq*Wq, Tk+Hk+Wk): the bias between a query and key (t, h, w) is the sum of
        columns ``t``, ``Tk + h`` and ``Tk + Hk + w``.
    """
    q = q.unflatten(2, q_grid)  # (B, heads, Tq, Hq, Wq, D)
    rows = []
    for axis, (table, equation) in enumerate(
        zip(tables, ("bnthwd,tkd->bnthwk", "bnthwd,hkd->bnthwk", "bnthwd,wkd->bnthwk"), strict=True)
    ):
        if table is None:
            rows.append(q.new_zeros(*q.shape[:-1], k_grid[axis]))
        else:
            embeddings = axis_embeddings(table, q_grid[axis], k_grid[axis]).to(q.dtype)
            rows.append(torch.einsum(equation, q, embeddings))
    return torch.cat(rows, dim=-1).flatten(2, 4)
