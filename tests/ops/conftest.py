"""Fixtures of the operators' tests."""

import pytest
import torch

from videonet.ops import attention, onednn


@pytest.fixture
def small_pieces(monkeypatch):
    """Every CPU works in oneDNN's pieces, even on tiny tensors, which take several."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("torch is built without oneDNN")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(onednn, "PIECE_BYTES", 1)
    monkeypatch.setattr(onednn, "MIN_ROWS", 7)
    monkeypatch.setattr(attention, "MIN_LOGITS", 1)
