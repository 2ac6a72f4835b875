"""V-JEPA 2 beyond its repository: parts of a clip, still clips, images, other readers of tokens."""

import pytest
import torch

from tests.models.invariants import randomise, relative_error, still_clip_logits
from videonet.checkpoint import load_checkpoint
from videonet.errors import ConfigError
from videonet.models import create_model


def small(num_frames=4, **changes):
    arguments = {"num_classes": 5, "crop_size": 24, "depth": 2}
    return create_model("vjepa2_xs", num_frames=num_frames, **(arguments | changes))


def test_a_part_of_the_tokens():
    """All of them are the clip, in any order; what is left out has no effect."""
    model = randomise(small())
    clip = torch.randn(2, 3, 4, 24, 24)  # 2 * 4 * 4 tokens
    order = torch.stack([torch.randperm(32) for _ in range(2)])
    with torch.no_grad():
        whole = model.forward_features(clip)
        mixed = model.forward_features(clip, order)
        back = mixed.gather(1, order.argsort(dim=1).unsqueeze(2).expand_as(mixed))
        torch.testing.assert_close(back, whole, atol=1e-4, rtol=1e-4)
        mask = torch.zeros(2, 32, dtype=torch.bool).scatter(1, order[:, :7], True)
        part = model.forward_features(clip, mask)
        assert part.shape == (2, 7, model.num_features)
        assert model.forward_head(part).shape == (2, 5)
        changed = clip.clone()
        pixels = mask.unflatten(1, (2, 4, 4))
        for axis, repeats in ((1, 2), (2, 6), (3, 6)):
            pixels = pixels.repeat_interleave(repeats, dim=axis)
        changed[~pixels.unsqueeze(1).expand_as(clip)] = 9.0
        torch.testing.assert_close(model.forward_features(changed, mask), part)


def test_the_order_of_frames_has_an_effect_through_rotary_positions_alone():
    clip = torch.randn(1, 3, 8, 24, 24)
    backwards = clip.unflatten(2, (4, 2)).flip(2).flatten(2, 3)  # of tubelets
    with torch.no_grad():
        for rotate_time in (True, False):
            model = randomise(small(8, rotate_time=rotate_time))
            changes = relative_error(model(backwards), model(clip)) > 1e-3
            assert changes == rotate_time


def test_still_clips_differ_and_the_report_says_so():
    expected, found, report = still_clip_logits(small(1), small(4), 4, (24, 24))
    assert relative_error(found, expected) > 1e-3
    assert any("rotate_time=False" in note for note in report.notes)
    assert report.inflated == ["patch_embed.proj.weight"]


def test_several_clips_in_a_row_are_read_at_once():
    """As the published evaluation does, once for each crop of the frames."""
    model = randomise(small())
    clips = torch.randn(2, 3, 4, 24, 24)
    with torch.no_grad():
        tokens = model.forward_features(clips)
        together = model.forward_head(tokens.flatten(0, 1).unsqueeze(0))
        assert together.shape == (1, 5)
        swapped = model.forward_head(tokens.flip(0).flatten(0, 1).unsqueeze(0))
        assert relative_error(swapped, together) < 1e-5
        twice = model.forward_head(tokens[:1].repeat(1, 2, 1))
        assert relative_error(twice, model(clips[:1])) < 1e-5


def test_the_mean_of_the_tokens_needs_no_pooler():
    model, other = randomise(small(pooling="avg", num_classes=0)), small().eval()
    assert not any(name.startswith("pooler.") for name in model.state_dict())
    report = load_checkpoint(other, model.state_dict())
    assert all(name.startswith(("pooler.", "head.")) for name in report.reinitialised)
    clip = torch.randn(1, 3, 4, 24, 24)
    with torch.no_grad():
        features = model.forward_features(clip)
        torch.testing.assert_close(other.forward_features(clip), features)
        torch.testing.assert_close(features.mean(dim=1), model(clip))


def test_wrong_arguments_are_named():
    with pytest.raises(ConfigError, match="pooling is 'max', expected one of attentive, avg"):
        small(pooling="max")
    with pytest.raises(ConfigError, match="a head has 4 channels, but rotary positions"):
        small(num_heads=18)
    with pytest.raises(ConfigError, match="has no class token"):
        small(cls_token=True)
