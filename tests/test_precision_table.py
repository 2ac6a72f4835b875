"""No cell of the precision table crashes or is wrong."""

import shutil

import pytest

from tests.precision_table import COLUMNS, ROWS, cell

FAST_ROWS = ("position_rows", "attention", "chunked_attention", "linear", "mlp", "depthwise")
FAST_COLUMNS = ("recompute", "vmap(grad)", "jvp", "double backward")
CELLS = [
    pytest.param(
        *(row, column),
        marks=() if row in FAST_ROWS and column in FAST_COLUMNS else pytest.mark.slow,
    )
    for row in ROWS
    for column in COLUMNS
]


@pytest.mark.parametrize("row, column", CELLS)
def test_cell(row, column, small_pieces):
    if column == "inductor" and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        pytest.skip("inductor needs a C++ compiler")
    found = cell(row, column)
    assert isinstance(found, float), found
    assert found <= COLUMNS[column][1]
