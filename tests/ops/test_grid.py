"""Sizes and interpolation of grids."""

import torch

from videonet.ops.grid import one_hot_positions, resize_grid, resize_rows


def test_one_hot_rows_name_their_cell():
    table = one_hot_positions((2, 3, 4), like=torch.zeros(1))
    cells = table.reshape(2, 3, 4, 9)
    assert cells.sum() == 3 * 24
    assert cells[1, 2, 0].nonzero().flatten().tolist() == [1, 2 + 2, 2 + 3 + 0]


def test_resizing_keeps_a_fitting_table_and_constant_tables():
    table = torch.randn(5, 3)
    assert resize_rows(table, 5) is table
    constant = torch.ones(1, 2 * 3 * 4, 3)
    assert resize_grid(constant, (2, 3, 4), (2, 3, 4)) is constant
    torch.testing.assert_close(
        resize_grid(constant, (2, 3, 4), (4, 5, 6)), torch.ones(1, 4 * 5 * 6, 3)
    )
