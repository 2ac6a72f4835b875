"""Rotary positions: the formulas, what stays, and what is not invariant."""

import math

import torch

from videonet.ops.rotary import channels_per_axis, rotary_angles, rotate, rotation_of

CPU = torch.device("cpu")


def test_channels_of_the_published_heads():
    assert [channels_per_axis(dim) for dim in (64, 80, 22, 5)] == [20, 26, 6, 0]


def test_each_channel_by_hand():
    grid, dim = (2, 3, 4), 14  # 4 channels an axis, and 2 that stay
    x = torch.randn(2, 3, 24, dim)
    found = rotate(x, rotation_of(grid, dim, rotate_time=True, device=CPU))
    rates = [1.0, 1 / 100] * 2  # as a whole, not channel by channel
    for cell in range(24):
        t, h, w = cell // 12, cell // 4 % 3, cell % 4
        for axis, position in enumerate((t, h, w)):
            for i in range(4):
                own = x[..., cell, 4 * axis + i]
                other = x[..., cell, 4 * axis + (i ^ 1)] * (1 if i % 2 else -1)
                angle = position * rates[i]
                expected = own * math.cos(angle) + other * math.sin(angle)
                torch.testing.assert_close(found[..., cell, 4 * axis + i], expected)
    assert torch.equal(found[..., 12:], x[..., 12:])


def test_cells_that_are_kept_turn_as_in_the_whole():
    x, keep = torch.randn(2, 3, 24, 12), torch.tensor([[5, 0, 23], [7, 8, 9]])
    whole = rotate(x, rotation_of((2, 3, 4), 12, rotate_time=True, device=CPU))
    places = keep[:, None, :, None].expand(-1, 3, -1, 12)
    rotation = rotation_of((2, 3, 4), 12, rotate_time=True, device=CPU, keep=keep)
    torch.testing.assert_close(rotate(x.gather(2, places), rotation), whole.gather(2, places))


def test_without_time_all_frames_turn_alike():
    angles = rotary_angles((3, 2, 2), 12, False, CPU).unflatten(0, (3, 4))
    assert torch.equal(angles, angles[:1].expand(3, -1, -1))
    assert not torch.equal(angles, rotary_angles((3, 2, 2), 12, True, CPU).unflatten(0, (3, 4)))
    assert not rotary_angles((3, 1, 1), 12, False, CPU).any()


def test_half_precision_keeps_its_type():
    x = torch.randn(1, 1, 6, 12, dtype=torch.bfloat16)
    y = rotate(x, rotation_of((1, 2, 3), 12, rotate_time=True, device=CPU))
    assert y.dtype == torch.bfloat16 and torch.equal(y[:, :, 0], x[:, :, 0])
