"""RandAugment (Cubuk et al. 2020) with the magnitudes that timm gives it, on clips.

A policy is a string such as ``rand-m7-n4-mstd0.5-inc1``: magnitude 7 of 10, four operations, each
drawn with replacement and applied with probability 0.5, the magnitude of each drawn from a normal
distribution around 7 with deviation 0.5, and magnitudes that always strengthen the change.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from videonet.errors import ConfigError

MAX_MAGNITUDE = 10.0
TRANSLATE_SHARE = 0.45  # of the picture's side, at the largest magnitude


@dataclass(frozen=True)
class RandAugmentPolicy:
    """What a policy string says."""

    magnitude: float = MAX_MAGNITUDE
    count: int = 2
    noise: float = 0.0
    probability: float = 0.5
    increasing: bool = False
    max_magnitude: float = MAX_MAGNITUDE

    @classmethod
    def parse(cls, text: str) -> RandAugmentPolicy:
        """Read ``rand-m7-n4-mstd0.5-inc1``; raises ConfigError for any other kind of policy."""
        kind, *parts = text.split("-")
        if kind != "rand":
            raise ConfigError(
                f"AUG.AA_TYPE is {text!r}, expected a policy such as 'rand-m7-n4-mstd0.5-inc1'"
            )
        names = {"m": "magnitude", "n": "count", "mstd": "noise", "p": "probability"}
        names |= {"inc": "increasing", "mmax": "max_magnitude"}
        values: dict[str, float | int | bool] = {}
        for part in parts:
            match = re.fullmatch(r"([a-z]+)(\d+(?:\.\d+)?)", part)
            if not match or match[1] not in names:
                raise ConfigError(
                    f"AUG.AA_TYPE is {text!r}: {part!r} is not one of "
                    f"{', '.join(f'{name}<number>' for name in names)}"
                )
            values[names[match[1]]] = float(match[2])
        if "count" in values:
            values["count"] = int(values["count"])
        values["increasing"] = bool(values.get("increasing", False))
        return cls(**values)


class RandAugment:
    """Apply a policy to uint8 clips ``(T, 3, H, W)``, the same draw for all frames.

    Draws from torch's global generator, as torchvision's transforms do. ``fill`` is the colour
    (0 to 255) of what a geometric operation uncovers.
    """

    def __init__(self, policy: RandAugmentPolicy, fill: Sequence[float]):
        self.policy = policy
        self.fill = [float(value) for value in fill]

    def __call__(self, clip: Tensor) -> Tensor:
        for index in torch.randint(len(OPERATIONS), (self.policy.count,)).tolist():
            if torch.rand(()) >= self.policy.probability:
                continue
            level = self._draw_level()
            clip = OPERATIONS[index](clip, level, self.policy.increasing, self.fill)
        return clip

    def _draw_level(self) -> float:
        """A magnitude as a share of 10."""
        magnitude = self.policy.magnitude
        if self.policy.noise >= 100:  # timm's way to say: uniform up to the magnitude
            magnitude *= torch.rand(()).item()
        elif self.policy.noise > 0:
            magnitude += torch.randn(()).item() * self.policy.noise
        return min(max(magnitude, 0.0), self.policy.max_magnitude) / MAX_MAGNITUDE


Operation = Callable[[Tensor, float, bool, list[float]], Tensor]


def either_sign(value: float) -> float:
    """``value`` or its negative, by a fair coin."""
    return value if torch.rand(()) < 0.5 else -value


def enhance_factor(level: float, increasing: bool) -> float:
    """The blend with the enhanced picture: 1 changes nothing."""
    return max(0.1, 1 + either_sign(0.9 * level)) if increasing else 0.1 + 1.8 * level


def posterize_bits(level: float, increasing: bool) -> int:
    """How many bits of each colour stay."""
    return 4 - int(4 * level) if increasing else int(4 * level)


def solarize_threshold(level: float, increasing: bool) -> int:
    """From which value on colours are inverted."""
    threshold = min(256, int(256 * level))
    return 256 - threshold if increasing else threshold


def _affine(clip: Tensor, fill: list[float], *, shift=(0, 0), shear=(0.0, 0.0)) -> Tensor:
    return F.affine(
        clip,
        angle=0.0,
        translate=list(shift),
        scale=1.0,
        shear=[math.degrees(math.atan(part)) for part in shear],
        interpolation=InterpolationMode.BILINEAR,
        fill=fill,
        center=[0.0, 0.0] if any(shear) else None,
    )


def _auto_contrast(clip: Tensor, level: float, increasing: bool, fill: list[float]) -> Tensor:
    return F.autocontrast(clip)


def _equalize(clip: Tensor, level: float, increasing: bool, fill: list[float]) -> Tensor:
    return F.equalize(clip)


def _invert(clip: Tensor, level: float, increasing: bool, fill: list[float]) -> Tensor:
    return F.invert(clip)


def _rotate(clip: Tensor, level: float, increasing: bool, fill: list[float]) -> Tensor:
    angle = either_sign(30.0 * level)
    return F.rotate(clip, angle, interpolation=InterpolationMode.BILINEAR, fill=fill)


def _posterize(clip: Tensor, level: float, increasing: bool, fill: list[float]) -> Tensor:
    return F.posterize(clip, posterize_bits(level, increasing))


def _solarize(clip: Tensor, level: float, increasing: bool, fill: list[float]) -> Tensor:
    threshold = solarize_threshold(level, increasing)
    return F.solarize(clip, threshold) if threshold < 256 else clip


def _solarize_add(clip: Tensor, level: float, increasing: bool, fill: list[float]) -> Tensor:
    amount = min(128, int(110 * level))
    return torch.where(clip < 128, clip + amount, clip)  # 127 + 128 still fits into uint8


def _colour(clip: Tensor, level: float, increasing: bool, fill: list[float]) -> Tensor:
    return F.adjust_saturation(clip, enhance_factor(level, increasing))


def _contrast(clip: Tensor, level: float, increasing: bool, fill: list[float]) -> Tensor:
    return F.adjust_contrast(clip, enhance_factor(level, increasing))


def _brightness(clip: Tensor, level: float, increasing: bool, fill: list[float]) -> Tensor:
    return F.adjust_brightness(clip, enhance_factor(level, increasing))


def _sharpness(clip: Tensor, level: float, increasing: bool, fill: list[float]) -> Tensor:
    return F.adjust_sharpness(clip, enhance_factor(level, increasing))


def _shear_x(clip: Tensor, level: float, increasing: bool, fill: list[float]) -> Tensor:
    return _affine(clip, fill, shear=(either_sign(0.3 * level), 0.0))


def _shear_y(clip: Tensor, level: float, increasing: bool, fill: list[float]) -> Tensor:
    return _affine(clip, fill, shear=(0.0, either_sign(0.3 * level)))


def _translate_x(clip: Tensor, level: float, increasing: bool, fill: list[float]) -> Tensor:
    pixels = either_sign(TRANSLATE_SHARE * level) * clip.shape[-1]
    return _affine(clip, fill, shift=(round(pixels), 0))


def _translate_y(clip: Tensor, level: float, increasing: bool, fill: list[float]) -> Tensor:
    pixels = either_sign(TRANSLATE_SHARE * level) * clip.shape[-2]
    return _affine(clip, fill, shift=(0, round(pixels)))


OPERATIONS: tuple[Operation, ...] = (
    _auto_contrast,
    _equalize,
    _invert,
    _rotate,
    _posterize,
    _solarize,
    _solarize_add,
    _colour,
    _contrast,
    _brightness,
    _sharpness,
    _shear_x,
    _shear_y,
    _translate_x,
    _translate_y,
)
