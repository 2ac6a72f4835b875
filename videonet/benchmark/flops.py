"""Counting multiply-adds without running anything: shapes on the meta device suffice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from videonet.ops import pooling_attention
from videonet.ops.attention import attention_reference
from videonet.ops.kernels import private


@contextmanager
def written_out_attention() -> Iterator[None]:
    """Within it, pooling attention builds its matrix of logits, as the papers count it."""
    fused = pooling_attention.attention
    pooling_attention.attention = attention_reference
    try:
        yield
    finally:
        pooling_attention.attention = fused


def multiply_adds(model: nn.Module, *shapes: Sequence[int], training: bool = False) -> int:
    """Multiply-adds of one forward pass in eval mode, or of a forward and a backward pass.

    Matrix products, convolutions and attentions are counted; norms, activations and sums are not.
    Papers call this number FLOPs. The model and its inputs are taken to the meta device, so its
    weights are lost.

    Args:
        model: any module.
        shapes: of its inputs, batch included.
        training: count the backward pass to all parameters as well.
    """
    model = model.to("meta").train(training)
    inputs: list[Tensor] = [torch.empty(shape, device="meta") for shape in shapes]
    counter = FlopCounterMode(display=False, custom_mapping=_corrected())
    with torch.set_grad_enabled(training), counter:
        output = model(*inputs)
        if training:
            output.sum().backward()
    return counter.get_total_flops() // 2


def _convolution_backward(grad, x, weight, *settings, out_shape=None) -> int:
    """As many operations as forward for each gradient; torch's own count ignores groups."""
    transposed, wanted = settings[4], settings[7]
    return (wanted[0] + wanted[1]) * conv_flop_count(x, weight, grad, transposed=transposed)


def _corrected() -> dict:
    backward = private.operator("convolution_backward")
    return {} if backward is None else {backward: _convolution_backward}
