"""Windows against definitions written out cell by cell."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from videonet.ops.grid import volume
from videonet.ops.window_attention import StageWindows, WindowAttention
from videonet.ops.windows import (
    MASKED,
    Windows,
    cut_windows,
    edge_masks,
    join_windows,
    relative_rows,
    shift_mask,
)

CUTS = [
    Windows((4, 6, 8), (2, 3, 4)),
    Windows((4, 6, 8), (2, 3, 4), (1, 1, 2)),
    Windows((5, 7, 9), (2, 3, 4), (1, 0, 2)),  # the last windows reach beyond the grid
    Windows((1, 7, 7), (1, 7, 7)),
]


@pytest.mark.parametrize("windows", CUTS, ids=str)
def test_joining_undoes_cutting(windows):
    x = torch.randn(2, *windows.grid, 3)
    pieces = cut_windows(x, windows)
    assert pieces.shape == (2, *windows.counts, volume(windows.size), 3)
    torch.testing.assert_close(join_windows(pieces, windows), x)


def test_a_window_holds_the_cells_around_it():
    windows = Windows((4, 6, 8), (2, 3, 4), (1, 1, 2))
    x = torch.arange(volume(windows.grid)).reshape(1, *windows.grid, 1)
    first, last = cut_windows(x, windows)[0, [0, -1], [0, -1], [0, -1], :, 0]
    assert first.tolist() == x[0, 1:3, 1:4, 2:6].flatten().tolist()
    # The last window wraps around each axis.
    assert last.tolist() == x[0, [3, 0]][:, [4, 5, 0]][:, :, [6, 7, 0, 1]].flatten().tolist()


def test_beyond_the_grid_there_are_zeros():
    windows = Windows((3, 3, 3), (2, 2, 2))
    pieces = cut_windows(torch.ones(1, 3, 3, 3, 1), windows)
    assert pieces[0, -1, -1, -1, :, 0].tolist() == [1, 0, 0, 0, 0, 0, 0, 0]


def test_rows_of_the_table_are_offsets_between_query_and_key():
    t, h, w = window = (2, 3, 4)
    rows = relative_rows(volume(window), window, window)
    cells = list(itertools.product(range(t), range(h), range(w)))
    offsets = list(itertools.product(*(range(1 - n, n) for n in window)))
    for (i, query), (j, key) in itertools.product(enumerate(cells), repeat=2):
        assert offsets[rows[i, j]] == tuple(a - b for a, b in zip(query, key, strict=True))


def test_a_smaller_window_reads_the_same_offsets():
    window, small = (2, 5, 5), (2, 3, 4)
    full = relative_rows(volume(window), window, window).unflatten(1, window).unflatten(0, window)
    corner = full[:2, :3, :4, :2, :3, :4].flatten(3).flatten(0, 2)
    assert torch.equal(relative_rows(volume(small), small, window), corner)


def reference(module, x, windows, full_window):
    """One window at a time, each pair of cells looked at on its own."""
    t, h, w = (p - n for p, n in zip(windows.padded, windows.grid, strict=True))
    padded = F.pad(x, (0, 0, 0, w, 0, h, 0, t))
    rolled = torch.roll(padded, [-s for s in windows.shift], (1, 2, 3))
    out = torch.empty_like(rolled)
    table, sizes = module.relative_position_bias_table, (windows.padded, windows.shift)
    for start in itertools.product(
        *(range(0, p, s) for p, s in zip(windows.padded, windows.size, strict=True))
    ):
        place = tuple(slice(a, a + s) for a, s in zip(start, windows.size, strict=True))
        cells = rolled[(slice(None), *place)].flatten(1, 3)
        heads = module.num_heads
        q, k, v = module.qkv(cells).unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        logits = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
        positions = list(itertools.product(*(range(s) for s in windows.size)))
        for (i, a), (j, b) in itertools.product(enumerate(positions), repeat=2):
            row = 0
            for m, n, w in zip(a, b, full_window, strict=True):
                row = row * (2 * w - 1) + m - n + w - 1
            logits[:, :, i, j] += table[row]
            wrapped = [
                [first + n >= p - s for first, n, p, s in zip(start, cell, *sizes, strict=True)]
                for cell in (a, b)
            ]
            if wrapped[0] != wrapped[1]:
                logits[:, :, i, j] += MASKED
        y = (logits.softmax(-1) @ v).transpose(1, 2).flatten(2)
        out[(slice(None), *place)] = module.proj(y).unflatten(1, windows.size)
    out = torch.roll(out, windows.shift, (1, 2, 3))
    t, h, w = windows.grid
    return out[:, :t, :h, :w]


@pytest.mark.parametrize(
    "windows", [Windows((4, 4, 4), (2, 2, 2), (1, 1, 1)), Windows((3, 5, 2), (2, 3, 2), (1, 1, 0))]
)
def test_attention_is_the_one_written_out(windows):
    torch.manual_seed(0)
    module = WindowAttention(6, 2, (2, 3, 3))
    torch.nn.init.normal_(module.relative_position_bias_table)
    x = torch.randn(2, *windows.grid, 6)
    rows = relative_rows(volume(windows.size), windows.size, module.window)
    with torch.no_grad():
        found = module(x, StageWindows.of(windows, rows, x))
        torch.testing.assert_close(found, reference(module, x, windows, module.window))


def test_the_shift_mask_parts_both_sides_of_the_seam():
    windows = Windows((1, 1, 8), (1, 1, 4), (0, 0, 1))
    apart = shift_mask(windows, 2)
    assert apart.int().tolist() == [[0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 1], [1, 1, 1, 0]]


@pytest.mark.parametrize("frames", range(1, 10))
@pytest.mark.parametrize("shift", range(4))
def test_frames_beyond_the_clip_are_no_keys(frames, shift):
    """Cell by cell along time: who sees whom in windows of 4, shifted or not."""
    windows = Windows((frames, 1, 1), (4, 1, 1), (shift, 0, 0))
    masks = edge_masks(windows, 0, leave_padding=True)
    (padded, _, _), count = windows.padded, windows.counts[0]
    for number in range(count):
        last = number - count + len(masks)
        apart = masks[last] if last >= 0 else torch.zeros(4, 4, dtype=torch.bool)
        for i, j in itertools.product(range(4), repeat=2):
            query, key = (number * 4 + n + shift for n in (i, j))
            seam = (query >= padded) != (key >= padded)
            assert bool(apart[i, j]) == (seam or key % padded >= frames)


def test_padding_beside_the_frame_is_a_key_and_behind_the_clip_is_none():
    torch.manual_seed(0)
    window = (2, 3, 3)
    module = WindowAttention(6, 2, window)
    x = torch.randn(1, 3, 4, 4, 6)
    with torch.no_grad():
        windows = Windows((3, 4, 4), window)
        rows = relative_rows(18, window, window)
        found = module(x, StageWindows.of(windows, rows, x, mask_time=True))[:, 2:]
        # The last frame alone, in windows of one frame that are padded alike.
        alone = Windows((1, 4, 4), (1, 3, 3))
        rows = relative_rows(9, (1, 3, 3), window)
        expected = module(x[:, 2:], StageWindows.of(alone, rows, x))
    torch.testing.assert_close(found, expected)
