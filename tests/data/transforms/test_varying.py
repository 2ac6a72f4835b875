"""Light and cameras that change within a clip."""

import pytest
import torch
from torchvision.tv_tensors import BoundingBoxes

from videonet.data.transforms.clip import build_augmentation
from videonet.data.transforms.varying import Exposure, Shake
from videonet.errors import ConfigError


def picture(frames=16, height=32, width=40):
    """A smooth picture, the same in all frames: its gradient tells how far it has moved."""
    down, across = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    plane = (40 + 2 * down + 3 * across).to(torch.uint8)
    return plane.expand(frames, 3, -1, -1)


def changed(transform, clip, tries=200):
    """What comes out of it where something changes."""
    outs = []
    for seed in range(tries):
        torch.manual_seed(seed)
        out = transform(clip)
        assert out.dtype == torch.uint8 and out.shape == clip.shape
        outs.append(out)
    return [out for out in outs if not torch.equal(out, clip)]


@pytest.mark.parametrize("kind", [Exposure, Shake])
def test_half_of_the_clips_change_and_the_seed_decides(kind):
    clip = picture()
    kept = clip.clone()
    found = changed(kind(1.0), clip)
    assert 70 < len(found) < 130
    assert all(torch.equal(a, b) for a, b in zip(found, changed(kind(1.0), clip), strict=True))
    assert torch.equal(clip, kept)


@pytest.mark.parametrize("kind", [Exposure, Shake])
def test_a_picture_and_strength_zero_change_nothing(kind):
    assert not changed(kind(1.0), picture(frames=1))
    assert not changed(kind(0.0), picture())


@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_the_light_changes_within_the_clip_and_by_no_more_than_it_says(strength):
    clip = torch.full((16, 3, 8, 8), 60, dtype=torch.uint8)
    settling, drifting = 0, 0
    most = 1.0
    for out in changed(Exposure(strength), clip):
        assert torch.equal(out, out[:, :1, :1, :1].expand_as(out))  # the same over the picture
        light = out[:, 0, 0, 0].float() / 60
        most = max(most, light.max().item(), 1 / light.clamp_min(0.01).min().item())
        assert light.max() <= 4**strength * 1.02 and light.min() >= 4**-strength - 0.01
        settling += (light[-1] - 1).abs() < 0.05 and (light[0] - 1).abs() > 0.1
        drifting += (light[0] - 1).abs() < 0.05 and (light[-1] - 1).abs() > 0.1
    assert settling > drifting > 0  # an exposure settles after the start, mostly
    assert most > 1 + 0.8 * (4**strength - 1)


def test_a_shaken_clip_is_the_same_picture_at_other_places():
    clip = picture()
    inner = (slice(None), slice(None), slice(8, -8), slice(10, -10))
    farthest = 0.0
    for out in changed(Shake(1.0), clip):
        off = (out[inner].float() - clip[inner].float())[:, 0]  # (T, H, W)
        middle = off.flatten(1).median(dim=1).values
        if middle.abs().max() < 12:  # farther ones show what is mirrored at the borders
            assert (off - middle.view(-1, 1, 1)).abs().max() <= 1.5  # the whole picture moves
        farthest = max(farthest, middle.abs().max().item())
        assert len(middle.unique()) > 1  # and by another distance in other frames
    assert farthest > 6  # of pixels that rise by 2 and 3 a pixel


def test_places_in_frames_cannot_follow():
    boxes = BoundingBoxes([[1.0, 1, 5, 5]], format="XYXY", canvas_size=(32, 40))
    torch.manual_seed(0)
    clip, targets = Exposure(1.0)(picture(), {"boxes": boxes})
    assert targets["boxes"] is boxes and clip.shape == picture().shape
    _, targets = Shake(1.0)(picture(), {"label": torch.tensor(3)})
    assert targets["label"] == 3
    with pytest.raises(ConfigError, match="AUG.SHAKE is for clips whose targets have no places"):
        Shake(1.0)(picture(), {"boxes": boxes})


def test_they_are_part_of_the_augmentation():
    clip = picture()
    assert changed(build_augmentation(exposure=1.0, shake=1.0), clip, tries=10)
    assert not changed(build_augmentation(), clip, tries=10)
