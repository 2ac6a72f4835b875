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


@pytest.mark.parametrize("size", [(12, 13), (5, 8), (2, 3)])
@pytest.mark.parametrize("kernel, stride, padding", [(3, 2, 1), (3, 3, 1), (2, 2, 0), (5, 2, 2)])
@pytest.mark.parametrize("ceil_mode", [False, True])
def test_average_of_frames_is_that_of_images(size, kernel, stride, padding, ceil_mode):
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(2))
    expected = F.avg_pool2d(images, kernel, stride, padding, ceil_mode)
    tokens, _ = to_tokens(images.unsqueeze(2).repeat(1, 1, 4, 1, 1))
    triples = ((1, kernel, kernel), (1, stride, stride), (0, padding, padding))
    pooled, grid = avg_pool(tokens, (4, *size), *triples, ceil_mode)
    assert grid == (4, *expected.shape[2:])
    torch.testing.assert_close(
        to_volume(pooled, grid), expected.unsqueeze(2).expand(-1, -1, 4, -1, -1)
    )
