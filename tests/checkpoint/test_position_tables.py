"""Positions of another grid: resized with antialiasing, or without."""

import pytest
import torch
import torch.nn.functional as F

from videonet.checkpoint import load_checkpoint
from videonet.errors import CheckpointError
from videonet.models import create_model

SMALL = {"num_frames": 1, "patch_size": 4, "embed_dim": 8, "depth": 1, "num_heads": 1}


def vit(side, **arguments):
    return create_model("vit_s", crop_size=side, **SMALL, **arguments)


def interpolated(table, rows, antialias):
    """(1, N, C) on a square grid -> (1, rows**2, C), by torch's own bicubic interpolation."""
    side = int(table.shape[1] ** 0.5)
    image = table.unflatten(1, (side, side)).permute(0, 3, 1, 2)
    image = F.interpolate(
        image, size=(rows, rows), mode="bicubic", antialias=antialias, align_corners=False
    )
    return image.flatten(2).transpose(1, 2)


@pytest.mark.parametrize("old, new", [(64, 32), (32, 64)], ids=["smaller", "larger"])
@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("how", ["loading", "model"])
def test_antialiasing_is_an_option(old, new, antialias, how):
    source = vit(old)
    if how == "loading":
        target = vit(new)
        load_checkpoint(target, source.state_dict(), antialias=antialias)
    else:
        target = vit(new, antialias_positions=antialias)
        load_checkpoint(target, source.state_dict())
    expected = interpolated(source.pos_embed[:, 1:], new // 4, antialias)
    torch.testing.assert_close(target.pos_embed[:, 1:], expected)
    torch.testing.assert_close(target.pos_embed[:, :1], source.pos_embed[:, :1])


def test_the_option_matters_and_antialiasing_is_the_default():
    source, with_it, without, default = vit(64), vit(32), vit(32), vit(32)
    load_checkpoint(with_it, source.state_dict(), antialias=True)
    load_checkpoint(without, source.state_dict(), antialias=False)
    load_checkpoint(default, source.state_dict())
    assert torch.equal(default.pos_embed, with_it.pos_embed)
    assert not torch.allclose(default.pos_embed, without.pos_embed, atol=1e-4)


def test_a_clip_of_another_size_is_resized_alike():
    model = vit(64, antialias_positions=False)
    positions = model.absolute_positions((1, 8, 8))
    expected = interpolated(model.pos_embed[:, 1:], 8, antialias=False)
    torch.testing.assert_close(positions[:, 1:], expected)


def test_positions_of_a_foreign_model_are_refused_by_name():
    class Foreign(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.pos_embed = torch.nn.Parameter(torch.zeros(1, 5, 8))

    with pytest.raises(CheckpointError, match="a Foreign, which does not say what grid"):
        load_checkpoint(Foreign(), {"pos_embed": torch.ones(1, 5, 8)})
