"""Attention on the CPU: a few queries at a time, against all keys.

The logits of one piece stay in the cache; memory grows with queries plus keys. torch's fused
attention for the CPU does the same with smaller pieces and MKL's products, at half the speed in
fp32 and a third in bf16.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product as pairs

import torch
from torch import Tensor

from videonet.ops.kernels import cpu
from videonet.ops.kernels.autograd import FastFunction
from videonet.ops.tracing import is_traced


def chunked_attention(
    q: Tensor, k: Tensor, v: Tensor, rows: Tensor | None = None, columns: Tensor | None = None
) -> Tensor:
    """``softmax(q @ k.T + rows @ columns.T) @ v`` for tensors that ``cpu.preferred`` accepts.

    Args:
        q: (B, heads, Nq, D), k and v: (B, heads, Nk, D).
        rows, columns: (B, heads, Nq, R) and constants (B, Nk, R), or None.

    Returns:
        (B, heads, Nq, D), in memory (B, Nq, heads, D).
    """
    if is_traced():
        return _ChunkedAttention.plain(q, k, v, rows, columns)
    return _ChunkedAttention.apply(q, k, v, rows, columns)


def _queries(q: Tensor, rows: Tensor | None, i: tuple[int, int], piece: slice) -> Tensor:
    return q[i][piece] if rows is None else torch.cat((q[i][piece], rows[i][piece]), dim=-1)


def _keys(k: Tensor, columns: Tensor | None, i: tuple[int, int]) -> Tensor:
    return k[i] if columns is None else torch.cat((k[i], columns[i[0]]), dim=-1)


def _heads(q: Tensor) -> Iterator[tuple[int, int]]:
    return pairs(range(q.shape[0]), range(q.shape[1]))


class _ChunkedAttention(FastFunction):
    @staticmethod
    def forward(q: Tensor, k: Tensor, v: Tensor, rows: Tensor | None, columns: Tensor | None):
        batch, heads, queries, _ = q.shape
        out = q.new_empty(batch, queries, heads, v.shape[-1]).transpose(1, 2)
        for i in _heads(q):
            keys, values = _keys(k, columns, i), v[i].contiguous()
            for piece in cpu.pieces(queries, keys.shape[0] * q.element_size()):
                query = _queries(q, rows, i, piece)
                weights = cpu.product(query, keys.t()).softmax(dim=-1)
                out[i][piece] = cpu.product(weights, values)
        return out

    @staticmethod
    def plain(q: Tensor, k: Tensor, v: Tensor, rows: Tensor | None, columns: Tensor | None):
        logits = q @ k.transpose(-2, -1)  # (B, heads, Nq, Nk)
        if rows is not None and columns is not None:
            logits = logits + rows @ columns.transpose(-2, -1).unsqueeze(1)
        return logits.softmax(dim=-1) @ v

    @staticmethod
    def gradients(inputs, needed, grad: Tensor):
        """The weights of a piece are computed again."""
        q, k, v, rows, columns = inputs
        width, queries = q.shape[-1], q.shape[2]
        grad_q, grad_rows = _empty_like(q), None if rows is None else _empty_like(rows)
        # Sums over the pieces are kept in fp32.
        grad_k, grad_v = (torch.zeros_like(x, dtype=torch.float32) for x in (k, v))
        for i in _heads(q):
            keys, values = _keys(k, columns, i), v[i].contiguous()
            for piece in cpu.pieces(queries, keys.shape[0] * q.element_size()):
                query = _queries(q, rows, i, piece)
                weights = cpu.product(query, keys.t()).softmax(dim=-1)
                grad_out = grad[i][piece]
                grad_v[i] += cpu.transposed_product(weights, grad_out)
                grad_weights = cpu.product(grad_out, values.t())
                grad_logits = cpu.SOFTMAX_GRADIENT(grad_weights, weights)
                grad_k[i] += cpu.transposed_product(grad_logits, query[:, :width])
                grad_query = cpu.product(grad_logits, keys)  # (piece, D+R)
                grad_q[i][piece] = grad_query[:, :width]
                if grad_rows is not None:
                    grad_rows[i][piece] = grad_query[:, width:]
        return grad_q, grad_k.to(k.dtype), grad_v.to(v.dtype), grad_rows, None


def _empty_like(x: Tensor) -> Tensor:
    """(B, heads, N, D) in memory (B, N, heads, D)."""
    return x.transpose(1, 2).new_empty(x.transpose(1, 2).shape).transpose(1, 2)
