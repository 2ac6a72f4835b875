import pytest
import torch

from videonet.data.transforms.clip import (
    InceptionCrop,
    JitterCrop,
    RandomErasing,
    build_augmentation,
)
from videonet.data.transforms.crops import resize_short_side, spatial_crops
from videonet.errors import ConfigError

MEAN, STD = (0.45, 0.45, 0.45), (0.225, 0.225, 0.225)


def still(height=48, width=64, frames=5):
    """A clip whose frames are all the same picture."""
    picture = torch.randint(256, (3, height, width), generator=torch.Generator().manual_seed(0))
    return picture.to(torch.uint8).expand(frames, -1, -1, -1)


RANDOM = {
    "jitter": JitterCrop(32, (36, 44)),
    "jitter inverse": JitterCrop(32, (36, 44), inverse=True),
    "inception": InceptionCrop(32, (0.08, 1.0), (3 / 4, 4 / 3), 48),
    "flip": build_augmentation(flip=True),
    "rand augment": build_augmentation(policy="rand-m7-n4-mstd0.5-inc1"),
    "rand augment, not increasing": build_augmentation(policy="rand-m9-n3-mstd0.5"),
    "colour": build_augmentation(colour_jitter=0.4),
    "erasing pixel": build_augmentation(erasing=1.0, erasing_count=3),
    "erasing rand": build_augmentation(erasing=1.0, erasing_mode="rand"),
    "erasing const": build_augmentation(erasing=1.0, erasing_mode="const"),
}


@pytest.mark.parametrize("name", RANDOM)
def test_all_frames_of_a_clip_get_the_same_draw(name):
    clip, changed = still(), 0
    for seed in range(25):
        torch.manual_seed(seed)
        out = RANDOM[name](clip)
        assert out.dtype == torch.uint8 and out.shape[:2] == (5, 3)
        assert torch.equal(out, out[:1].expand_as(out))
        changed += out.shape != clip.shape or not torch.equal(out, clip)
    assert changed > 5


@pytest.mark.parametrize("name", RANDOM)
def test_the_input_is_left_alone_and_the_seed_decides(name):
    clip = still().contiguous()
    kept = clip.clone()
    for seed in range(10):
        torch.manual_seed(seed)
        first = RANDOM[name](clip)
        torch.manual_seed(seed)
        assert torch.equal(RANDOM[name](clip), first)
    assert torch.equal(clip, kept)


@pytest.mark.parametrize("shape", [(48, 64), (64, 48), (44, 44)])
def test_crops_have_their_size(shape):
    for crop in (RANDOM["jitter"], RANDOM["inception"]):
        for _ in range(10):
            assert crop(still(*shape)).shape == (5, 3, 32, 32)


def test_jitter_draws_every_short_side():
    crop, seen = JitterCrop(10, (20, 24)), set()
    columns = torch.arange(24, dtype=torch.uint8) * 10
    clip = columns.view(1, 1, 1, 24).expand(1, 3, 24, 24)
    for seed in range(100):
        torch.manual_seed(seed)
        out = crop(clip)[0, 0, 5].float()
        seen.add(round(240 / ((out[-2] - out[1]).item() / 7)))
    assert seen >= {20, 21, 22, 23, 24}


def test_jitter_never_asks_for_less_than_the_crop():
    crop = JitterCrop(32, (16, 20))
    assert crop.decode_side == 32 and crop(still()).shape[-2:] == (32, 32)


def test_flip_mirrors_half_of_the_clips():
    flip, clip = build_augmentation(flip=True), still()
    torch.manual_seed(0)
    outcomes = [flip(clip) for _ in range(200)]
    kept = sum(torch.equal(out, clip) for out in outcomes)
    mirrored = sum(torch.equal(out, clip.flip(-1)) for out in outcomes)
    assert kept + mirrored == 200 and 70 < kept < 130


def test_nothing_to_do_changes_nothing():
    assert torch.equal(build_augmentation()(still()), still())


@pytest.mark.parametrize(("mode", "colours"), [("const", 1), ("rand", 1), ("pixel", None)])
def test_erasing_covers_a_box_of_the_stated_size(mode, colours):
    erase = RandomErasing(1.0, mode, 1, MEAN, STD)
    clip = torch.zeros(2, 3, 60, 80, dtype=torch.uint8)
    shares = []
    for seed in range(60):
        torch.manual_seed(seed)
        out = erase(clip)[0]
        rows, columns = out.sum(0).nonzero(as_tuple=True)
        box = out[:, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        shares.append(box[0].numel() / (60 * 80))
        if colours:
            assert len(box.flatten(1).unique(dim=1).T) == colours
    assert min(shares) > 0.015 and max(shares) < 0.35 and max(shares) - min(shares) > 0.1
    if mode == "const":
        assert out.max() == round(255 * 0.45)


def test_erasing_leaves_its_share_of_clips_alone():
    erase = RandomErasing(0.25, "pixel", 1, MEAN, STD)
    torch.manual_seed(0)
    changed = sum(not torch.equal(erase(still()), still()) for _ in range(400))
    assert 70 < changed < 130


def test_erasing_refuses_an_unknown_mode():
    with pytest.raises(ConfigError, match="AUG.RE_MODE is 'noise'"):
        RandomErasing(0.5, "noise", 1, MEAN, STD)


def test_three_crops_run_along_the_long_side():
    wide = torch.arange(80, dtype=torch.uint8).expand(2, 3, 32, 80)
    left, centre, right = spatial_crops(wide, 32, 3)
    assert [crop[0, 0, 0, 0].item() for crop in (left, centre, right)] == [0, 24, 48]
    tall = wide.transpose(-1, -2)
    assert [crop[0, 0, 0, 0].item() for crop in spatial_crops(tall, 32, 3)] == [0, 24, 48]
    assert torch.equal(spatial_crops(wide, 32, 1)[0], centre)
    assert all(crop.shape == (2, 3, 32, 32) for crop in spatial_crops(still(), 32, 3)[:0] + [left])


def test_spatial_crops_resize_the_short_side_first():
    for clip in (still(48, 64), still(64, 48), still(20, 30)):
        assert [c.shape[-2:] for c in spatial_crops(clip, 32, 3)] == [(32, 32)] * 3
    with pytest.raises(ConfigError, match="NUM_SPATIAL_CROPS is 2"):
        spatial_crops(still(), 32, 2)


def test_resize_short_side_keeps_what_fits():
    clip = still(48, 64)
    assert resize_short_side(clip, 48) is clip
    assert resize_short_side(clip, 24).shape == (5, 3, 24, 32)
    assert resize_short_side(still(64, 48), 24).shape == (5, 3, 32, 24)
