"""Tables of relative-position biases for other windows and other numbers of frames."""

import pytest
import torch
import torch.nn.functional as F

from videonet.checkpoint import load_checkpoint
from videonet.errors import CheckpointError
from videonet.models import create_model

SMALL = {"embed_dim": 8, "depths": (1, 1), "num_heads": (2, 2), "num_classes": 3}
TABLE = "layers.0.blocks.0.attn.relative_position_bias_table"


def swin(seed, **changes):
    torch.manual_seed(seed)
    model = create_model("swin_t", **(SMALL | {"crop_size": 112} | changes))
    torch.nn.init.normal_(model.get_parameter(TABLE))
    return model


def table(model):
    """(t, h, w, heads)"""
    window = model.layers[0].window
    return model.get_parameter(TABLE).detach().unflatten(0, [2 * w - 1 for w in window])


def reason(report):
    return next(entry.reason for entry in report.target if entry.name == TABLE)


def test_an_image_table_is_repeated_over_time():
    image, video = swin(0, num_frames=1), swin(1, num_frames=16)
    report = load_checkpoint(video, image.state_dict())
    assert TABLE in report.inflated
    assert torch.equal(table(video), table(image).expand(15, -1, -1, -1))


def test_another_window_is_interpolated_bicubically_as_in_the_official_code():
    small = swin(0, num_frames=1)
    large = swin(1, num_frames=1, crop_size=192, window_size=(1, 12, 12))
    report = load_checkpoint(large, small.state_dict())
    assert TABLE in report.interpolated
    assert "1x13x13 -> 1x23x23" in reason(report)
    official = F.interpolate(table(small).permute(0, 3, 1, 2), size=(23, 23), mode="bicubic")
    torch.testing.assert_close(table(large), official.permute(0, 2, 3, 1))


def test_an_image_table_of_another_window_is_resized_and_repeated():
    image = swin(0, num_frames=1, crop_size=32, window_size=(1, 4, 4))
    video = swin(1, num_frames=8, window_size=(4, 7, 7))
    report = load_checkpoint(video, image.state_dict())
    assert "1x7x7 -> 7x13x13" in reason(report)
    assert torch.equal(table(video), table(video)[:1].expand(7, -1, -1, -1))


def test_a_longer_window_is_interpolated_over_time():
    short, long = swin(0), swin(1, window_size=(16, 7, 7))
    report = load_checkpoint(long, short.state_dict())
    assert "15x13x13 -> 31x13x13" in reason(report)
    torch.testing.assert_close(table(long)[15], table(short)[7])  # no offset stays no offset


def test_an_image_model_takes_the_table_of_one_moment():
    video, image = swin(0), swin(1, num_frames=1, patch_size=(2, 4, 4))
    report = load_checkpoint(image, video.state_dict())
    assert TABLE in report.interpolated
    torch.testing.assert_close(table(image)[0], table(video)[7])


def test_other_heads_and_unclear_windows_are_refused():
    image = swin(0, num_frames=1)
    for shape in ((169, 4), (170, 2), (7,)):
        state = image.state_dict() | {TABLE: torch.zeros(shape)}
        with pytest.raises(CheckpointError, match=f"{TABLE}.*in the checkpoint"):
            load_checkpoint(swin(1), state)


def test_masks_and_index_tables_are_dropped_and_no_surprise():
    model = swin(0, num_frames=1)
    extra = {
        "layers.0.blocks.0.attn.relative_position_index": torch.zeros(49, 49, dtype=torch.long),
        "layers.0.blocks.0.attn_mask": torch.zeros(4, 49, 49),
    }
    report = load_checkpoint(model, model.state_dict() | extra)
    assert sorted(report.dropped) == sorted(extra)
    assert not report.unexpected


def test_a_checkpoint_of_another_architecture_is_named():
    with pytest.raises(CheckpointError, match="looks like a Swin"):
        load_checkpoint(create_model("mvit_v2_xs"), swin(0).state_dict())
    with pytest.raises(CheckpointError, match="looks like an MViT"):
        load_checkpoint(swin(0), create_model("mvit_v2_xs").state_dict())


def test_a_foreign_table_of_another_size_is_left_as_it_is():
    class Foreign(torch.nn.Linear):
        def __init__(self, rows):
            super().__init__(4, 4)
            self.relative_position_bias_table = torch.nn.Parameter(torch.zeros(rows, 2))

    fits, larger = Foreign(9), Foreign(25)
    state = Foreign(9).state_dict() | {"relative_position_bias_table": torch.ones(9, 2)}
    assert "relative_position_bias_table" in load_checkpoint(fits, state).loaded
    report = load_checkpoint(larger, state, strict=False)
    assert "a Foreign has no window" in "".join(entry.reason for entry in report.target)
    assert not larger.relative_position_bias_table.any()
