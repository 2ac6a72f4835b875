"""From image to video, from clip to longer clip, from one resolution to another."""

import pytest
import torch

from videonet.checkpoint import load_checkpoint
from videonet.errors import CheckpointError, ConfigError
from videonet.models import create_model

SMALL = {
    "depth": 2,
    "embed_dim": 12,
    "dim_mul": {1: 2.0},
    "head_mul": {1: 2.0},
    "pool_q_stride": {0: (1, 1, 1), 1: (1, 2, 2)},
    "pool_kv_stride_adaptive": (1, 4, 4),
    "crop_size": 64,
    "num_classes": 5,
}


def small(name="mvit_v2_xs", num_frames=8, seed=0, **changes):
    model = create_model(name, num_frames=num_frames, **(SMALL | changes))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model.eval()


def entry(report, name):
    return next(e for e in (*report.target, *report.source) if e.name == name)


def test_a_flat_kernel_lands_in_the_centre_frame():
    image, video = small(num_frames=1, cls_token=False), small(cls_token=False, seed=1)
    load_checkpoint(video, image.state_dict())
    for name, kernel in video.named_parameters():
        if kernel.dim() == 5:
            flat = image.get_parameter(name)
            assert torch.equal(kernel[:, :, 1:2], flat)
            assert not kernel[:, :, [0, 2]].any()


def test_kernels_of_three_frames_land_in_the_middle_of_five():
    short = small(patch_kernel=(3, 7, 7))
    long = small(patch_kernel=(5, 7, 7), patch_padding=(2, 3, 3), seed=1)
    report = load_checkpoint(long, short.state_dict())
    found, given = long.patch_embed.proj.weight, short.patch_embed.proj.weight
    assert torch.equal(found[:, :, 1:4], given)
    assert not found[:, :, [0, 4]].any()
    assert report.inflated == ["patch_embed.proj.weight"]


def test_average_spreads_the_kernel_over_time():
    image, video = small(num_frames=1, cls_token=False), small(cls_token=False, seed=1)
    load_checkpoint(video, image.state_dict(), inflation="average")
    found, flat = video.patch_embed.proj.weight, image.patch_embed.proj.weight
    torch.testing.assert_close(found, flat.expand_as(found) / 3)


def test_unknown_inflation_is_an_error():
    with pytest.raises(ConfigError, match="'repeat'.*centre or average"):
        load_checkpoint(small(), small().state_dict(), inflation="repeat")


def test_a_longer_kernel_does_not_fit_a_shorter_one():
    with pytest.raises(CheckpointError, match=r"patch_embed\.proj\.weight"):
        load_checkpoint(small(num_frames=1, cls_token=True), small().state_dict())


def test_new_temporal_tables_are_zero_and_spatial_ones_interpolated():
    image = small(num_frames=1, cls_token=False)
    video = small(cls_token=False, crop_size=96, seed=1)
    report = load_checkpoint(video, image.state_dict())
    for i, block in enumerate(video.blocks):
        assert not block.attn.rel_pos_t.any()
        assert f"blocks.{i}.attn.rel_pos_t" in report.inflated
        old, new = image.blocks[i].attn.rel_pos_h, block.attn.rel_pos_h
        assert f"blocks.{i}.attn.rel_pos_h" in report.interpolated
        expected = torch.nn.functional.interpolate(old.T[None], size=len(new), mode="linear")[0].T
        torch.testing.assert_close(new, expected)
    assert report.missing == report.unexpected == []


def test_a_longer_clip_interpolates_temporal_tables():
    short, long = small(num_frames=8), small(num_frames=16, seed=1)
    report = load_checkpoint(long, short.state_dict())
    assert report.interpolated == [f"blocks.{i}.attn.rel_pos_t" for i in range(2)]
    for a, b in zip(short.blocks, long.blocks, strict=True):
        old, new = a.attn.rel_pos_t, b.attn.rel_pos_t
        assert (len(old), len(new)) == (7, 15)
        torch.testing.assert_close(new[7], old[3])  # no distance in time: the centre of both


@pytest.mark.parametrize(
    "separate, num_frames, crop_size",
    [(True, 16, (96, 64)), (False, 16, 64), (False, 8, 96)],
    ids=["separate", "joint, longer", "joint, larger"],
)
@pytest.mark.parametrize("cls_token", [True, False])
def test_resizing_positions_at_load_is_resizing_them_at_run_time(
    separate, num_frames, crop_size, cls_token
):
    options = {"cls_token": cls_token, "sep_pos_embed": separate}
    old = small("mvit_v1_b", **options)
    new = small("mvit_v1_b", num_frames=num_frames, crop_size=crop_size, seed=1, **options)
    report = load_checkpoint(new, old.state_dict())
    torch.testing.assert_close(
        new.absolute_positions(new.grid), old.absolute_positions(new.grid), rtol=1e-4, atol=1e-5
    )
    assert not report.fatal and report.interpolated


def test_a_joint_table_of_two_possible_grids_is_refused():
    """4 x 16 x 16 cells are also 16 x 8 x 8."""
    old = small("mvit_v1_b", sep_pos_embed=False, num_frames=8, crop_size=64)
    new = small("mvit_v1_b", sep_pos_embed=False, num_frames=32, crop_size=64)
    with pytest.raises(CheckpointError, match="pos_embed: .*cannot tell its grid"):
        load_checkpoint(new, old.state_dict())


@pytest.mark.parametrize("crop_size", [64, (96, 64)])
def test_a_joint_image_table_becomes_separate_tables(crop_size):
    image = small("mvit_v1_b", num_frames=1)
    video = small("mvit_v1_b", crop_size=crop_size, seed=1)
    report = load_checkpoint(video, image.state_dict())
    assert not video.pos_embed_temporal.any()
    frame = (1, *video.grid[1:])
    expected = image.absolute_positions(frame)
    torch.testing.assert_close(video.pos_embed_class, expected[:, :1])
    torch.testing.assert_close(video.pos_embed_spatial, expected[:, 1:])
    assert "pos_embed_temporal" in report.inflated
    assert entry(report, "pos_embed").status == "used"


def test_temporal_positions_are_loaded_also_where_they_are_zero():
    model = small("mvit_v1_b")
    with torch.no_grad():
        model.pos_embed_temporal.zero_()
    report = load_checkpoint(small("mvit_v1_b", seed=1), model.state_dict())
    assert report.loaded == list(model.state_dict())


def test_separate_tables_without_time_leave_time_at_zero():
    state = small("mvit_v1_b").state_dict()
    del state["pos_embed_temporal"]
    model = small("mvit_v1_b", seed=1)
    report = load_checkpoint(model, state)
    assert report.inflated == ["pos_embed_temporal"] and not model.pos_embed_temporal.any()


def test_a_joint_image_table_is_repeated_in_a_joint_video_table():
    image, video = small("mvit_v1_b", num_frames=1), small("mvit_v1_b", sep_pos_embed=False, seed=1)
    report = load_checkpoint(video, image.state_dict())
    patches = video.pos_embed[:, 1:].unflatten(1, (4, -1))
    expected = image.pos_embed[:, None, 1:].expand_as(patches)
    torch.testing.assert_close(patches, expected)
    assert "pos_embed" in report.inflated


def test_an_image_of_another_resolution_is_not_taken_for_a_clip():
    """32 x 32 cells are also four frames of 16 x 16."""
    image = small("mvit_v1_b", num_frames=1, crop_size=128)
    video = small("mvit_v1_b", sep_pos_embed=False, crop_size=64, seed=1)
    load_checkpoint(video, image.state_dict())
    patches = video.pos_embed[:, 1:].unflatten(1, (4, -1))
    expected = image.absolute_positions((1, 16, 16))[:, None, 1:].expand_as(patches)
    torch.testing.assert_close(patches, expected)


def test_a_position_table_of_unknown_shape_is_refused():
    state = small("mvit_v1_b").state_dict()
    state["pos_embed_spatial"] = torch.zeros(1, 7, 12)
    with pytest.raises(CheckpointError, match="pos_embed_spatial.*cannot tell its grid"):
        load_checkpoint(small("mvit_v1_b"), state)


def test_a_class_token_that_the_checkpoint_lacks_stays_as_it_was():
    image, video = small(num_frames=1, cls_token=False), small(seed=1)
    before = video.cls_token.clone()
    report = load_checkpoint(video, image.state_dict())
    assert torch.equal(video.cls_token, before)
    assert report.reinitialised == ["cls_token"] and not report.missing
    assert any("class token" in note and "untrained" in note for note in report.notes)


@pytest.mark.parametrize("name", ["mvit_v1_b", "mvit_v2_xs"])
def test_a_class_token_that_the_model_lacks_is_dropped(name):
    with_class, without = small(name), small(name, cls_token=False, seed=1)
    report = load_checkpoint(without, with_class.state_dict())
    expected = ["cls_token"] + ["pos_embed_class"] * (name == "mvit_v1_b")
    assert sorted(report.dropped) == expected and not report.unexpected


def test_the_head_of_other_classes_is_left_out():
    old, new = small(num_classes=400), small(num_classes=7, seed=1)
    before = new.head.projection.weight.clone()
    report = load_checkpoint(new, old.state_dict())
    assert torch.equal(new.head.projection.weight, before)
    assert report.reinitialised == ["head.projection.weight", "head.projection.bias"]
    assert sorted(report.dropped) == ["head.projection.bias", "head.projection.weight"]
    assert "other classes" in entry(report, "head.projection.bias").reason
    assert torch.equal(new.norm.weight, old.norm.weight)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_checkpoints_are_interpolated_too(dtype):
    half = {name: value.to(dtype) for name, value in small("mvit_v1_b").state_dict().items()}
    new = small("mvit_v1_b", num_frames=16, crop_size=96, seed=1)
    load_checkpoint(new, half)
    assert {p.dtype for p in new.parameters()} == {torch.float32}
