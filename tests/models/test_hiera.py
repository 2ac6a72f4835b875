"""Hiera beyond its repository: other sizes, borders within mask units, parts of a clip."""

import pytest
import torch

from tests.models.invariants import randomise, relative_error, still_clip_logits
from videonet.checkpoint import load_checkpoint
from videonet.errors import ConfigError
from videonet.models import create_model
from videonet.ops.grid import resize_grid

SMALL = {"num_classes": 5, "embed_dim": 8, "depths": (1, 2, 1, 1)}


def small(num_frames=4, crop_size=64, **changes):
    return create_model("hiera_b", num_frames=num_frames, crop_size=crop_size, **(SMALL | changes))


def test_units_that_are_cut_off_attend_and_pool_as_if_there_was_nothing_beyond():
    """One block after the other, written out for a unit of 3 by 2 cells at the border."""
    model = randomise(small(num_frames=1, crop_size=(44, 40)))  # 11 by 10 cells, units of 8
    image = torch.randn(1, 3, 44, 40)
    with torch.no_grad():
        tokens, grid = model.patch_embed(image.unsqueeze(2))
        cells = (tokens + model.absolute_positions(grid)).unflatten(1, (11, 10))
        corner = cells[:, 8:, 8:]
        block, pooling = model.blocks[0], model.blocks[1]
        corner = plain_block(block, corner.flatten(1, 2), (3, 2), 1).unflatten(1, (3, 2))
        maps = model.forward_intermediates(image)
        assert relative_error(maps[0][0, :, 0, 8:, 8:].permute(1, 2, 0), corner[0]) < 1e-5
        corner = plain_block(pooling, corner.flatten(1, 2), (3, 2), 2)
        corner = plain_block(model.blocks[2], corner, (2, 1), 1).unflatten(1, (2, 1))
        assert relative_error(maps[1][0, :, 0, 4:, 4:].permute(1, 2, 0), corner[0]) < 1e-5
    assert [tuple(m.shape[3:]) for m in maps] == [(11, 10), (6, 5), (3, 3), (2, 2)]


def pooled(x, size, step):
    """(B, h*w, C) -> maxima over blocks, those at the end smaller."""
    volume = x.unflatten(1, size).permute(0, 3, 1, 2)
    volume = torch.nn.functional.max_pool2d(volume, step, ceil_mode=True)
    return volume.flatten(2).transpose(1, 2)


def plain_block(block, x, size, step):
    """A block on the cells (B, h*w, C) of one unit, by the formulas of the paper."""
    normed = block.norm1(x)
    q, k, v = block.attn.qkv(normed).chunk(3, dim=2)
    q = pooled(q, size, step)
    heads = block.attn.num_heads
    q, k, v = (part.unflatten(2, (heads, -1)).transpose(1, 2) for part in (q, k, v))
    weights = (q @ k.transpose(2, 3) * q.shape[-1] ** -0.5).softmax(dim=-1)
    attended = block.attn.proj((weights @ v).transpose(1, 2).flatten(2))
    shortcut = x if block.proj is None else pooled(block.proj(normed), size, step)
    x = shortcut + attended
    return x + block.mlp(block.norm2(x))


OF_STILL_CLIPS = {
    "plain": ({}, {}),
    "units of two frames": ({}, {"mask_unit": (2, 8, 8)}),
    "pooling of frames": ({}, {"mask_unit": (2, 8, 8), "q_stride": (2, 2, 2), "q_pool": 1}),
    "window positions": ({"global_pos_size": (5, 6), "layer_scale": 0.5},) * 2,
    "no linear layer": ({"use_expand_proj": False},) * 2,
}


@pytest.mark.parametrize("frames", [3, 4])
@pytest.mark.parametrize("of_image, of_clip", OF_STILL_CLIPS.values(), ids=OF_STILL_CLIPS)
def test_still_clips_of_frames_that_cut_units(frames, of_image, of_clip):
    image = small(1, **(of_image | {"q_pool": of_clip.get("q_pool", 3)}))
    video = small(frames, **of_clip)
    expected, found, report = still_clip_logits(image, video, frames, (52, 70))
    assert relative_error(found, expected) <= 1e-4
    assert set(report.inflated) == {"patch_embed.proj.weight", "pos_embed_temporal"}
    assert not report.notes


def test_what_units_have_in_common_is_repeated():
    """A table of a repeated window and a slope: the window stays sharp, the slope is stretched."""
    window = torch.randn(1, 4, 4, 3)
    window -= window.mean(dim=(1, 2), keepdim=True)
    slope = torch.linspace(-1, 1, 8)[None, :, None, None].expand(1, 8, 8, 3)
    smooth = slope - slope.unflatten(1, (2, 4)).mean(dim=1).repeat(1, 2, 1, 1)  # differs by window
    table = (window.repeat(1, 2, 2, 1) + smooth).reshape(1, 64, 3)
    found = resize_grid(table, (1, 8, 8), (1, 12, 14), "bicubic", True, (1, 4, 4))
    rest = resize_grid(smooth.reshape(1, 64, 3), (1, 8, 8), (1, 12, 14), "bicubic")
    expected = window.repeat(1, 3, 4, 1)[:, :12, :14] + rest.reshape(1, 12, 14, 3)
    torch.testing.assert_close(found, expected.reshape(1, -1, 3), atol=1e-5, rtol=1e-5)
    same = resize_grid(table, (1, 8, 8), (1, 8, 8), "bicubic", True, (1, 4, 4))
    assert torch.equal(same, table)


@pytest.mark.parametrize("frames", [1, 4])
@pytest.mark.parametrize("size", [(96, 64), (80, 100)])
def test_resizing_at_load_is_resizing_at_run_time(frames, size):
    built = randomise(small(frames))
    other = small(frames + 2 * (frames > 1), crop_size=size).eval()
    report = load_checkpoint(other, built.state_dict())
    assert report.interpolated
    clip = torch.randn(1, 3, frames + 2 * (frames > 1), *size)
    with torch.no_grad():
        assert relative_error(other(clip), built(clip)) <= 1e-4


def test_a_part_of_the_units():
    """All units are the clip, in any order; what is left out has no effect."""
    model = randomise(small())
    clip = torch.randn(2, 3, 4, 64, 64)  # 2 * 2 * 2 mask units
    order = torch.stack([torch.randperm(8) for _ in range(2)])
    mask = torch.zeros(2, 8, dtype=torch.bool).scatter(1, order[:, :3], True)
    with torch.no_grad():
        whole = model.forward_features(clip)  # one cell of each unit is left
        mixed = model.forward_features(clip, order)
        back = mixed.gather(1, order.argsort(dim=1).unsqueeze(2).expand_as(mixed))
        torch.testing.assert_close(back, whole, atol=1e-4, rtol=1e-4)
        part = model.forward_features(clip, mask)
        assert part.shape == (2, 3, model.num_features)
        assert torch.equal(part, model.forward_features(clip, order[:, :3].sort(dim=1).values))
        assert model.forward_head(part).shape == (2, 5)
        changed = clip.clone()
        pixels = mask.unflatten(1, (2, 2, 2))
        for axis, repeats in ((1, 2), (2, 32), (3, 32)):
            pixels = pixels.repeat_interleave(repeats, dim=axis)
        changed[~pixels.unsqueeze(1).expand_as(clip)] = 9.0
        torch.testing.assert_close(model.forward_features(changed, mask), part)


def test_a_still_clip_in_tubes_is_the_part_of_its_image():
    image, video = randomise(small(1)), small(4).eval()
    load_checkpoint(video, image.state_dict())
    picture, tube = torch.randn(1, 3, 1, 64, 64), torch.tensor([[0, 3]])
    with torch.no_grad():
        flat = image.forward_head(image.forward_features(picture, tube))
        clip, keep = picture.expand(-1, -1, 4, -1, -1), torch.cat((tube, tube + 4), dim=1)
        deep = video.forward_head(video.forward_features(clip, keep))
    assert relative_error(deep, flat) <= 1e-4


def test_wrong_parts_and_arguments_are_named():
    with pytest.raises(ConfigError, match="4 x 64 x 80 are no multiple of the mask unit of 2 x 32"):
        small().forward_features(torch.randn(1, 3, 4, 64, 80), torch.tensor([[0]]))
    with pytest.raises(ConfigError, match="numbers 8 to 8, but the grid has 8 cells"):
        small().forward_features(torch.randn(1, 3, 4, 64, 64), torch.tensor([[8]]))
    with pytest.raises(ConfigError, match="multiples of q_stride .* to the power of q_pool, 3"):
        small(mask_unit=(1, 4, 4))
    with pytest.raises(ConfigError, match="q_pool is 4, but depths has 4 stages"):
        small(q_pool=4)
    with pytest.raises(ConfigError, match="mask_unit_attn has 2 entries"):
        small(mask_unit_attn=(True, False))
