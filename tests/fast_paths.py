"""Lets every CPU take the fast paths of the best ones."""

from __future__ import annotations

import pytest
import torch

from videonet.ops import attention
from videonet.ops.kernels import cpu


def force_fast_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN's pieces, several of them even on tiny tensors, whatever this CPU gains from them."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(cpu, "PIECE_BYTES", 1)
    monkeypatch.setattr(cpu, "MIN_ROWS", 7)
    monkeypatch.setattr(attention, "MIN_LOGITS", 1)
    if not cpu.PRODUCT.trust(torch.bfloat16):  # this CPU multiplies bf16 in torch's own way only
        monkeypatch.setattr(cpu.PRODUCT, "fast", cpu.PRODUCT.plain)
        monkeypatch.setattr(cpu.PRODUCT, "trusted", {})
