"""Decomposed relative position over time, height and width.

MViTv2 (arXiv 2112.01526), Eq. 4: the bias between query i and key j is the inner product of the
query with ``R_t + R_h + R_w``, one learned table per axis.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from videonet.ops.grid import Grid, resize_rows
from videonet.ops.kernels.autograd import FastFunction
from videonet.ops.precision import autocast_input, autocast_inputs
from videonet.ops.tracing import is_traced, once_per_shape

Tables = tuple[Tensor | None, Tensor | None, Tensor | None]  # rel_pos_t, rel_pos_h, rel_pos_w


def axis_embeddings(table: Tensor, queries: int, keys: int) -> Tensor:
    """Vectors between every query and key position along one axis, (queries, keys, D).

    Positions are compared on the finer of the two scales. A table (R, D) whose length is not
    ``2 * max(queries, keys) - 1`` is interpolated linearly.
    """
    table = resize_rows(table, 2 * max(queries, keys) - 1)
    return table[axis_distances(queries, keys, table.device)]


@once_per_shape
def axis_distances(queries: int, keys: int, device: torch.device) -> Tensor:
    """Row of the table for every query and key position, (queries, keys)."""
    q_step, k_step = max(keys / queries, 1.0), max(queries / keys, 1.0)
    q = torch.arange(queries, device=device).unsqueeze(1) * q_step
    k = torch.arange(keys, device=device).unsqueeze(0) * k_step
    return (q - k + (keys - 1) * k_step).long()


def position_rows(
    q: Tensor, q_grid: Grid, k_grid: Grid, tables: Tables, num_prefix_tokens: int = 0
) -> Tensor:
    """Relative-position logits of every query, one column per key *coordinate*.

    Args:
        q: unscaled queries (B, heads, Nq, D); class tokens first, then the cells of the grid.
        tables: one (R, D) table per axis (time, height, width), or None for no bias on it.

    Returns:
        (B, heads, Nq, Tk+Hk+Wk): the bias between a query and key (t, h, w) is the sum of
        columns ``t``, ``Tk + h`` and ``Tk + Hk + w``; zeros for class tokens.
    """
    embeddings = [
        None if table is None else axis_embeddings(table, n_q, n_k).to(q.dtype)
        for table, n_q, n_k in zip(tables, q_grid, k_grid, strict=True)
    ]
    q, embeddings = autocast_input(q), list(autocast_inputs(*embeddings))
    if is_traced():  # compilers decide what to keep, torch.func wants plain operators
        return _rows(q, q_grid, k_grid, num_prefix_tokens, embeddings)
    return _PositionRows.apply(q, q_grid, k_grid, num_prefix_tokens, *embeddings)


AXES = "thw"  # in einsum: q is bnthwd, the embeddings of an axis are e.g. (queries t, keys k, d)


def _rows(
    q: Tensor,
    q_grid: Grid,
    k_grid: Grid,
    num_prefix_tokens: int,
    embeddings: Sequence[Tensor | None],
) -> Tensor:
    cells = q[:, :, num_prefix_tokens:].unflatten(2, q_grid)  # (B, heads, T, H, W, D)
    parts = (
        cells.new_zeros(*cells.shape[:-1], keys)
        if table is None
        else torch.einsum(f"bnthwd,{axis}kd->bnthwk", cells, table)
        for axis, keys, table in zip(AXES, k_grid, embeddings, strict=True)
    )
    return F.pad(torch.cat(tuple(parts), dim=-1).flatten(2, 4), (0, 0, num_prefix_tokens, 0))


class _PositionRows(FastFunction):
    """Autograd would keep a reordered copy of the queries for every axis."""

    @staticmethod
    def forward(q: Tensor, q_grid: Grid, k_grid: Grid, num_prefix_tokens: int, *embeddings):
        return _rows(q, q_grid, k_grid, num_prefix_tokens, embeddings)

    @staticmethod
    def plain(q: Tensor, q_grid: Grid, k_grid: Grid, num_prefix_tokens: int, *embeddings):
        return _rows(q, q_grid, k_grid, num_prefix_tokens, embeddings)

    @staticmethod
    def gradients(inputs, needed, grad: Tensor):
        q, q_grid, k_grid, num_prefix_tokens, *embeddings = inputs
        grad_q = torch.zeros_like(q)
        # Without class tokens: (B, heads, T, H, W, D) twice, (B, heads, T, H, W, k) three times.
        cells, grad_cells, grad = (
            x[:, :, num_prefix_tokens:].unflatten(2, q_grid) for x in (q, grad_q, grad)
        )
        grad_tables: list[Tensor | None] = []
        for axis, part, table in zip(AXES, grad.split(k_grid, dim=-1), embeddings, strict=True):
            if table is None:
                grad_tables.append(None)
                continue
            grad_cells += torch.einsum(f"bnthwk,{axis}kd->bnthwd", part, table)
            grad_tables.append(torch.einsum(f"bnthwk,bnthwd->{axis}kd", part, cells))
        return grad_q, None, None, None, *grad_tables
