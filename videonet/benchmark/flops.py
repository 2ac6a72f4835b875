"""Counting multiply-adds without running anything: shapes on the meta device suffice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from videonet.ops import pooling_attention
from videonet.ops.attention import attention_reference


@contextmanager
def written_out_attention() -> Iterator[None]:
    """Within it, pooling attention builds its matrix of logits, as the papers count it."""
    fused = pooling_attention.attention
    pooling_attention.attention = attention_reference
    try:
        yield
    finally:
        pooling_attention.attention = fused


def multiply_adds(model: nn.Module, *shapes: Sequence[int]) -> int:
    """Multiply-adds of one forward pass, in eval mode.

    Matrix products, convolutions and attentions are counted; norms, activations and sums are not.
    Papers call this number FLOPs. The model and its inputs are taken to the meta device, so its
    weights are lost.

    Args:
        model: any module.
        shapes: of its inputs, batch included.
    """
    model = model.to("meta").eval()
    inputs: list[Tensor] = [torch.empty(shape, device="meta") for shape in shapes]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(*inputs)
    return counter.get_total_flops() // 2
