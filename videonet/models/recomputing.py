"""Blocks whose activations are computed again in the backward pass, which saves their memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from videonet.ops.conv import BATCH_NORMS


@contextmanager
def statistics_kept(block: nn.Module) -> Iterator[None]:
    """A context in which the batch norms of `block` do not update their running statistics."""
    norms = [m for m in block.modules() if isinstance(m, BATCH_NORMS)]
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, batches


def recomputed(block: nn.Module, *inputs: Any) -> Any:
    """Call a block whose activations are computed again in the backward pass, not stored.

    Batch norms update their running statistics in the first call alone.
    """

    def contexts() -> tuple[AbstractContextManager, AbstractContextManager]:
        return nullcontext(), statistics_kept(block)

    if not any(isinstance(module, BATCH_NORMS) for module in block.modules()):
        return checkpoint(block, *inputs, use_reentrant=False)  # compilers know this form alone
    return checkpoint(block, *inputs, use_reentrant=False, context_fn=contexts)
