"""No cell of the precision table crashes or is wrong."""

import shutil

import pytest

from tests.precision_table import COLUMNS, ROWS, cell


@pytest.mark.slow
@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("row", ROWS)
def test_cell(row, column, small_pieces):
    if column == "inductor" and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        pytest.skip("inductor needs a C++ compiler")
    found = cell(row, column)
    assert isinstance(found, float), found
    assert found <= COLUMNS[column][1]
