"""Poolings against torch's channels-first operators, and what a still clip must give."""

import pytest
import torch
import torch.nn.functional as F

from videonet.ops.pooling import avg_pool, conv_pool, max_pool, to_tokens, to_volume

GRID = (4, 6, 5)


def tokens(channels=6, grid=GRID, seed=0):
    count = grid[0] * grid[1] * grid[2]
    return torch.randn(2, count, channels, generator=torch.Generator().manual_seed(seed))


def test_tokens_and_volume_are_views_of_each_other():
    x = tokens()
    back, grid = to_tokens(to_volume(x, GRID))
    assert grid == GRID
    assert back.data_ptr() == x.data_ptr()
    torch.testing.assert_close(back, x)


@pytest.mark.parametrize("stride", [(1, 1, 1), (1, 2, 2), (2, 2, 1)])
def test_heads_share_one_convolution_kernel(stride):
    x, heads = tokens(channels=6), 3
    weight = torch.randn(2, 1, 3, 3, 3, generator=torch.Generator().manual_seed(1))
    pooled, grid = conv_pool(x, GRID, weight, stride)
    for head in range(heads):
        part = x[..., 2 * head : 2 * head + 2]
        volume = part.reshape(2, *GRID, 2).permute(0, 4, 1, 2, 3)
        expected = F.conv3d(volume, weight, stride=stride, padding=1, groups=2)
        assert tuple(expected.shape[2:]) == grid
        torch.testing.assert_close(
            pooled[..., 2 * head : 2 * head + 2], expected.flatten(2).transpose(1, 2)
        )


@pytest.mark.parametrize("pool", [max_pool, avg_pool])
def test_still_clip_pools_like_its_image(pool):
    image = tokens(grid=(1, 6, 5))
    clip = image.repeat(1, 4, 1)
    pooled_image, _ = pool(image, (1, 6, 5), (1, 3, 3), (1, 2, 2))
    pooled_clip, grid = pool(clip, (4, 6, 5), (3, 3, 3), (1, 2, 2))
    assert grid == (4, 3, 3)
    torch.testing.assert_close(pooled_clip, pooled_image.repeat(1, 4, 1))


def test_average_counts_spatial_padding_as_zeros():
    x = torch.ones(1, 9, 1)
    pooled, _ = avg_pool(x, (1, 3, 3), (1, 3, 3), (1, 1, 1))
    torch.testing.assert_close(pooled[0, 0, 0], torch.tensor(4 / 9))
    torch.testing.assert_close(pooled[0, 4, 0], torch.tensor(1.0))
