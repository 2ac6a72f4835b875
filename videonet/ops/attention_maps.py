"""Recording attention weights, which fused kernels compute without storing them."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from videonet.ops.fused_attention import attention_weights


class RecordAttention(TorchFunctionMode):
    """A context in which every fused attention computes and records its weights.

    Use it around a forward pass of any architecture that calls torch's
    ``scaled_dot_product_attention``, which then is computed as ``softmax(Q K^T + mask) V``.
    Relative positions (see :mod:`videonet.ops.attention`) are part of the weights. Memory grows
    with the number of queries times that of keys.

    Attributes:
        weights: one tensor (B, Nq, Nk) per call, in the order of the calls: means over the heads.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weights: list[Tensor] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        return self._attend(*args, **kwargs)

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        if is_causal or enable_gqa:
            raise NotImplementedError("no model of videonet masks causally or groups its queries")
        weights = attention_weights(query, key, attn_mask, scale)  # (B, heads, Nq, Nk)
        self.weights.append(weights.detach().flatten(1, -3).mean(dim=1))
        return F.dropout(weights, dropout_p, dropout_p > 0) @ value
