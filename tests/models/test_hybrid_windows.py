"""MViT with hybrid window attention (MViTv2, Sec. 4.2)."""

import pytest
import torch

from tests.models.invariants import assert_still_clips_are_images, randomise
from videonet.errors import ConfigError
from videonet.models import create_model
from videonet.ops.pooling_attention import PoolingAttention

SMALL = {"depth": 8, "embed_dim": 8, "num_classes": 5, "crop_size": 64, "cls_token": False}
STARTS = (2, 4, 6)
SMALL |= {
    "dim_mul": dict.fromkeys(STARTS, 2.0),
    "head_mul": dict.fromkeys(STARTS, 2.0),
    "pool_q_stride": {i: (1, 2, 2) if i in STARTS else (1, 1, 1) for i in range(8)},
    "pool_kv_stride_adaptive": (1, 4, 4),
}


def mvit(num_frames=8, **changes):
    return create_model("mvit_v2_s", num_frames=num_frames, **(SMALL | changes))


def test_windows_are_everywhere_but_at_the_end_of_the_last_three_stages():
    windows = [block.attn.window for block in mvit(window_size=(2, 8, 8)).blocks]
    # The third and the fifth block halve the grid on their way; the seventh is in the last stage.
    first, second, third = (2, 8, 8), (2, 4, 4), (2, 2, 2)
    assert windows == [first, first, first, None, second, None, third, None]


@pytest.mark.parametrize("window", [(4, 16, 16), (8, 32, 64)], ids=["equal", "larger"])
def test_windows_that_cover_the_grid_are_global_attention(window):
    plain = randomise(mvit())
    hybrid = mvit(window_size=window).eval()
    hybrid.load_state_dict(plain.state_dict())  # the parameters are the same
    clip = torch.randn(2, 3, 8, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(hybrid(clip), plain(clip))


def test_smaller_windows_are_another_function():
    plain = randomise(mvit())
    hybrid = mvit(window_size=(2, 8, 8)).eval()
    hybrid.load_state_dict(plain.state_dict())
    clip = torch.randn(2, 3, 8, 64, 64)
    with torch.no_grad():
        assert (hybrid(clip) - plain(clip)).abs().max() > 1e-2 * plain(clip).abs().max()


def test_each_window_attends_as_if_it_were_all_there_is():
    torch.manual_seed(0)
    grid, window = (4, 6, 4), (2, 3, 4)
    module = PoolingAttention(12, 12, 2, grid, cls_token=False, window=window)
    alone = PoolingAttention(12, 12, 2, grid, cls_token=False)
    alone.load_state_dict(module.state_dict())
    x = torch.randn(2, *grid, 12)
    with torch.no_grad():
        found, new_grid = module(x.flatten(1, 3), grid)
        found = found.unflatten(1, grid)
        assert new_grid == grid
        for t, h in ((0, 0), (0, 3), (2, 0), (2, 3)):
            place = (slice(None), slice(t, t + 2), slice(h, h + 3))
            expected, _ = alone(x[place].flatten(1, 3), window)
            torch.testing.assert_close(found[place].flatten(1, 3), expected)


def test_cells_beyond_the_grid_are_no_keys():
    """In the last window, of which half lies outside, no query notices what is not there."""
    torch.manual_seed(0)
    grid, window = (3, 3, 4), (2, 2, 4)
    options = {"cls_token": False, "rel_pos_spatial": False, "rel_pos_temporal": False}
    module = PoolingAttention(12, 12, 2, grid, window=window, **options)
    alone = PoolingAttention(12, 12, 2, grid, **options)
    alone.load_state_dict(module.state_dict())
    x = torch.randn(1, *grid, 12)
    with torch.no_grad():
        found = module(x.flatten(1, 3), grid)[0].unflatten(1, grid)
        expected, _ = alone(x[:, 2:, 2:].flatten(1, 3), (1, 1, 4))
    torch.testing.assert_close(found[:, 2:, 2:].flatten(1, 3), expected)


@pytest.mark.parametrize("frames", [2, 4, 8, 10])  # 10: 5 cells in windows of 2
@pytest.mark.parametrize("size", [(64, 64), (96, 80)], ids=str)
def test_the_static_clip_law(frames, size):
    image = mvit(num_frames=1, window_size=(1, 8, 8))
    assert_still_clips_are_images(image, mvit(frames, window_size=(2, 8, 8)), frames, size)


def test_what_windows_cannot_do_is_named():
    with pytest.raises(ConfigError, match="need cls_token=False"):
        mvit(window_size=(2, 8, 8), cls_token=True)
    with pytest.raises(ConfigError, match=r"window \(2, 6, 6\) of block 0 is no multiple"):
        mvit(window_size=(2, 6, 6))
