"""Fixtures shared by all tests."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder with real videos and reference outputs, where a developer has one."""
    if not SHARED.is_dir():
        pytest.skip("the reference folder 'shared' is not beside this checkout")
    return SHARED
