"""Sizes and interpolation of grids."""

import torch
import torch.nn.functional as F

from videonet.ops.grid import one_hot_positions, resize_grid, resize_rows


def test_one_hot_rows_name_their_cell():
    table = one_hot_positions((2, 3, 4), torch.float32, torch.device("cpu"))
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


def test_bicubic_resizes_each_frame_as_an_image_and_time_linearly():
    clip = torch.randn(2, 5, 6, 7)  # (T, H, W, C)
    frames = F.interpolate(clip.permute(0, 3, 1, 2), (3, 8), mode="bicubic", antialias=True)
    found = resize_grid(clip.reshape(1, -1, 7), (2, 5, 6), (2, 3, 8), "bicubic")
    torch.testing.assert_close(found[0], frames.permute(0, 2, 3, 1).reshape(-1, 7))
    longer = resize_grid(clip.reshape(1, -1, 7), (2, 5, 6), (4, 3, 8), "bicubic")
    torch.testing.assert_close(longer, resize_grid(found, (2, 3, 8), (4, 3, 8)))
