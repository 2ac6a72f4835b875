"""Fixtures shared by all tests."""

import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.fast_paths import force_fast_paths


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Every test draws the same numbers, whatever ran before it in the same process."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder with real videos and reference outputs, where a developer has one."""
    if not SHARED.is_dir():
        pytest.skip("the reference folder 'shared' is not beside this checkout")
    return SHARED


@pytest.fixture(scope="session")
def device() -> torch.device:
    """Where tests marked ``cuda`` compute: a CUDA device, or what VIDEONET_TEST_DEVICE names."""
    name = os.environ.get("VIDEONET_TEST_DEVICE", "cuda")
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device (VIDEONET_TEST_DEVICE=cpu tries the test without one)")
    return torch.device(name)


@pytest.fixture
def small_pieces(monkeypatch):
    """Every CPU works in oneDNN's pieces, even on tiny tensors, which take several."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("torch is built without oneDNN")
    force_fast_paths(monkeypatch)
