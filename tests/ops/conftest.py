"""Fixtures of the operators' tests."""

import pytest
import torch

from videonet.ops import attention
from videonet.ops.kernels import cpu


@pytest.fixture
def small_pieces(monkeypatch):
    """Every CPU works in oneDNN's pieces, even on tiny tensors, which take several."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("torch is built without oneDNN")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(cpu, "PIECE_BYTES", 1)
    monkeypatch.setattr(cpu, "MIN_ROWS", 7)
    monkeypatch.setattr(attention, "MIN_LOGITS", 1)
    if not cpu.PRODUCT.trust(torch.bfloat16):  # this CPU multiplies bf16 in torch's own way only
        monkeypatch.setattr(cpu.PRODUCT, "fast", cpu.PRODUCT.plain)
        monkeypatch.setattr(cpu.PRODUCT, "trusted", {})
