"""Shifts along an axis, against loops over cells and against deformable convolution."""

import pytest
import torch
from torch import nn
from torchvision.ops import deform_conv2d

from videonet.ops.clip_norm import ClipNorm
from videonet.ops.shift import (
    HEIGHT,
    TIME,
    WIDTH,
    CycleFC,
    block_plan,
    cyclic_plan,
    shift,
    shift_channels,
)

AXES = [TIME, HEIGHT, WIDTH]


def cell_by_cell(x, offsets, axis):
    """Channel c of every cell is read at ``position + offsets[c]``, zero outside the grid."""
    out = torch.zeros_like(x)
    size = x.shape[axis]
    for c, offset in enumerate(offsets):
        for p in range(size):
            if 0 <= p + offset < size:
                out[..., c].select(axis, p).copy_(x[..., c].select(axis, p + offset))
    return out


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("offset", [-9, -4, -1, 0, 2, 3, 4])
def test_a_shift_is_zero_outside(axis, offset):
    x = torch.randn(2, 4, 3, 5, 6)
    torch.testing.assert_close(shift(x, offset, axis), cell_by_cell(x, [offset] * 6, axis))


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize(
    ("channels", "size", "dilation", "offsets"),
    [
        (6, 3, 1, [1, 1, 0, 0, -1, -1]),
        (7, 3, 2, [2, 2, 2, 0, 0, 0, -2]),
        (6, 5, 1, [2, 2, 1, 1, 0, 0]),  # groups of two: the last two offsets are unused
        (4, 1, 1, [0] * 4),
    ],
)
def test_axial_shift_by_blocks_of_channels(axis, channels, size, dilation, offsets):
    x = torch.randn(2, 4, 3, 5, channels)
    found = shift_channels(x, block_plan(channels, size, dilation), axis)
    torch.testing.assert_close(found, cell_by_cell(x, offsets, axis))


@pytest.mark.parametrize(("size", "channels"), [(3, 7), (3, 2), (5, 9), (1, 4)])
def test_cycle_fc_is_the_official_deformable_convolution(size, channels):
    x = torch.randn(2, 1, 5, 6, channels)
    for axis in (HEIGHT, WIDTH):
        layer = CycleFC(channels, 4, size, axis)
        offset = torch.zeros(1, 2 * channels, 1, 1)
        for c in range(channels):
            offset[0, 2 * c + (axis == WIDTH)] = (c + size // 2) % size - size // 2
        expected = deform_conv2d(
            x[:, 0].permute(0, 3, 1, 2),
            offset.expand(2, -1, 5, 6),
            layer.weight.squeeze(2),
            layer.bias,
        )
        torch.testing.assert_close(layer(x)[:, 0].permute(0, 3, 1, 2), expected)


def test_cycle_fc_treats_time_as_height_and_width():
    x = torch.randn(2, 5, 4, 3, 7)
    in_time, in_height = CycleFC(7, 6, 3, TIME), CycleFC(7, 6, 3, HEIGHT)
    in_height.load_state_dict(in_time.state_dict())
    torch.testing.assert_close(in_time(x), in_height(x.transpose(1, 2)).transpose(1, 2))


def test_every_channel_is_in_a_plan_once():
    for channels in range(1, 12):
        for plan in (cyclic_plan(channels, 3), block_plan(channels, 5)):
            taken = [c for channel, _ in plan for c in range(channels)[channel]]
            assert sorted(taken) == list(range(channels))


def test_clip_norm_is_a_group_norm_of_one_group():
    x = torch.randn(2, 3, 4, 5, 6)
    first = x.movedim(-1, 1)
    norm = ClipNorm(6, eps=1e-2)
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_()
    torch.testing.assert_close(norm(x).movedim(-1, 1), nn.GroupNorm.forward(norm, first))
