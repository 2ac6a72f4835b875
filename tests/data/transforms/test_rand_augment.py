import pytest
import torch

from videonet.data.transforms import rand_augment
from videonet.data.transforms.rand_augment import (
    OPERATIONS,
    RandAugment,
    RandAugmentPolicy,
    enhance_factor,
    posterize_bits,
    solarize_threshold,
)
from videonet.errors import ConfigError

GREY = [115.0] * 3


def ramp(frames=3):
    """A smooth coloured picture with fine stripes."""
    rows = torch.linspace(10, 240, 32).view(1, 32, 1).expand(3, 32, 40).clone()
    rows[1] = rows[1].flip(0)
    rows[2] = torch.linspace(30, 220, 40)
    rows[:, :, ::2] -= 10
    return rows.to(torch.uint8).expand(frames, -1, -1, -1)


def changed(operation, clip, level):
    """The clip after an operation."""
    out = operation(clip, level, True, GREY)
    return out.clip if isinstance(out, rand_augment.Moved) else out


def test_a_policy_string_is_read():
    assert RandAugmentPolicy.parse("rand-m7-n4-mstd0.5-inc1") == RandAugmentPolicy(
        magnitude=7, count=4, noise=0.5, probability=0.5, increasing=True
    )
    assert RandAugmentPolicy.parse("rand") == RandAugmentPolicy(10, 2, 0.0, 0.5, False)
    assert RandAugmentPolicy.parse("rand-m9-p0.3-mmax12").max_magnitude == 12


@pytest.mark.parametrize("text", ["augmix-m3", "rand-x3", "rand-m", "rand-7", "v0"])
def test_an_unknown_policy_is_refused(text):
    with pytest.raises(ConfigError, match="AUG.AA_TYPE"):
        RandAugmentPolicy.parse(text)


@pytest.mark.parametrize(
    ("level", "bits", "threshold"), [(0.0, 4, 256), (0.5, 2, 128), (0.7, 2, 77), (1.0, 0, 0)]
)
def test_increasing_magnitudes(level, bits, threshold):
    assert posterize_bits(level, True) == bits
    assert solarize_threshold(level, True) == threshold
    factors = {round(enhance_factor(level, True), 6) for _ in range(40)}
    assert factors == {round(max(0.1, 1 + 0.9 * level), 6), round(max(0.1, 1 - 0.9 * level), 6)}


def test_plain_magnitudes():
    assert [posterize_bits(level, False) for level in (0.0, 0.5, 1.0)] == [0, 2, 4]
    assert [solarize_threshold(level, False) for level in (0.0, 0.5, 1.0)] == [0, 128, 256]
    assert enhance_factor(0.5, False) == pytest.approx(1.0)


def test_magnitudes_are_those_of_timm():
    timm = pytest.importorskip("timm.data.auto_augment", reason="timm is the reference here")
    for level in (0, 3.3, 6.5, 7, 7.7, 10):
        share = level / 10
        assert posterize_bits(share, True) == timm.LEVEL_TO_ARG["PosterizeIncreasing"](level, {})[0]
        assert (
            solarize_threshold(share, True) == timm.LEVEL_TO_ARG["SolarizeIncreasing"](level, {})[0]
        )
        theirs = {timm.LEVEL_TO_ARG["ColorIncreasing"](level, {})[0] for _ in range(40)}
        ours = {enhance_factor(share, True) for _ in range(40)}
        assert sorted(ours) == pytest.approx(sorted(theirs))
    assert len(OPERATIONS) == len(timm._RAND_INCREASING_TRANSFORMS)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
def test_each_operation_keeps_type_and_shape_and_does_something(operation):
    clip = ramp()
    out = changed(operation, clip, 0.7)
    assert out.dtype == torch.uint8 and out.shape == clip.shape
    assert not torch.equal(out, clip)


STRENGTHENING = [
    operation
    for operation in OPERATIONS
    if operation.__name__ not in ("_auto_contrast", "_equalize", "_invert")
]


@pytest.mark.parametrize("operation", STRENGTHENING, ids=lambda operation: operation.__name__)
def test_more_magnitude_means_more_change(operation):
    def change(level):
        torch.manual_seed(0)
        return (changed(operation, ramp(), level).float() - ramp().float()).abs().mean()

    assert change(0.9) > change(0.3)


def test_what_geometry_uncovers_has_the_fill_colour():
    out = changed(rand_augment._translate_x, ramp(), 1.0)
    assert (out == 115).all(dim=1).all(dim=(0, 1)).sum() == round(0.45 * 40)


def test_each_operation_is_applied_with_its_probability(monkeypatch):
    calls = []
    counting = tuple(lambda clip, *_, k=k: calls.append(k) or clip for k in range(15))
    monkeypatch.setattr(rand_augment, "OPERATIONS", counting)
    augment = RandAugment(RandAugmentPolicy.parse("rand-m7-n4-mstd0.5-inc1"), GREY)
    torch.manual_seed(0)
    for _ in range(1000):
        augment(ramp(1))
    assert 1850 < len(calls) < 2150 and set(calls) == set(range(15))


def test_the_magnitude_is_noisy_around_its_mean():
    augment = RandAugment(RandAugmentPolicy.parse("rand-m7-n4-mstd0.5-inc1"), GREY)
    torch.manual_seed(0)
    levels = torch.tensor([augment._draw_level() for _ in range(2000)])
    assert levels.mean() == pytest.approx(0.7, abs=0.01)
    assert levels.std() == pytest.approx(0.05, abs=0.005) and levels.max() <= 1.0
    still = RandAugment(RandAugmentPolicy.parse("rand-m7"), GREY)
    assert {still._draw_level() for _ in range(5)} == {0.7}
