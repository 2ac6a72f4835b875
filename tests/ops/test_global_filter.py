"""Global filters: what they are in the domain of cells, and how they are resized."""

import pytest
import torch
import torch.nn.functional as F

from videonet.ops.global_filter import (
    GlobalLocalFilter,
    filter_size,
    global_filter,
    resize_filter,
)


def random_cells(grid, channels=3, seed=0):
    return torch.randn(2, *grid, channels, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("grid", [(1, 4, 6), (4, 4, 5), (3, 5, 4)])
def test_a_filter_is_a_circular_convolution(grid):
    """Weights that transform a kernel give the convolution of the cells with this kernel."""
    cells, kernel = random_cells(grid), random_cells(grid, seed=1)[0]
    weight = torch.view_as_real(torch.fft.rfftn(kernel, dim=(0, 1, 2))).movedim(3, 0)
    found = global_filter(cells, weight)
    expected = torch.zeros_like(cells)
    for t in range(grid[0]):
        for h in range(grid[1]):
            for w in range(grid[2]):
                expected += kernel[t, h, w] * cells.roll((t, h, w), dims=(1, 2, 3))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("frames", [2, 5])
def test_one_temporal_frequency_leaves_each_frame_to_itself(frames):
    weight = torch.randn(3, 1, *filter_size((1, 4, 6))[1:], 2)
    cells = random_cells((frames, 4, 6))
    alone = [global_filter(cells[:, t : t + 1], weight) for t in range(frames)]
    torch.testing.assert_close(global_filter(cells, weight), torch.cat(alone, dim=1))


def test_resizing_is_bilinear_with_aligned_corners_within_a_frame():
    weight = torch.randn(3, 1, 7, 4, 2)
    found = resize_filter(weight, (1, 5, 6))
    flat = weight.squeeze(1).permute(3, 0, 1, 2)
    expected = F.interpolate(flat, (5, 6), mode="bilinear", align_corners=True)
    torch.testing.assert_close(found, expected.permute(1, 2, 3, 0).unsqueeze(1))
    assert resize_filter(weight, (1, 7, 4)) is weight


def test_resizing_in_time_keeps_the_constant_frequency_and_constants():
    weight = torch.randn(2, 4, 3, 3, 2)
    torch.testing.assert_close(resize_filter(weight, (7, 3, 3))[:, 0], weight[:, 0])
    still = weight[:, :1].expand(-1, 4, -1, -1, -1)
    torch.testing.assert_close(
        resize_filter(still, (7, 3, 3)), weight[:, :1].expand(-1, 7, -1, -1, -1)
    )


def test_halves_alternate_and_half_precision_is_filtered_in_single():
    module = GlobalLocalFilter(4, filter_size((2, 4, 4)), temporal_kernel=3).eval()
    x = random_cells((2, 4, 4), channels=4)
    mixed = {}
    module.post_norm.register_forward_pre_hook(lambda m, inputs: mixed.update(x=inputs[0]))
    with torch.no_grad():
        module(x)
        near, far = module.pre_norm(x).chunk(2, dim=-1)
        torch.testing.assert_close(mixed["x"][..., 0::2], module.dw(near))
        torch.testing.assert_close(mixed["x"][..., 1::2], global_filter(far, module.complex_weight))
        with torch.autocast("cpu", torch.bfloat16):
            assert module(x).isfinite().all()
        assert global_filter(far.bfloat16(), module.complex_weight).dtype == torch.bfloat16
