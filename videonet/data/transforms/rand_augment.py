"""RandAugment (Cubuk et al. 2020) with the magnitudes that timm gives it, on clips.

A policy is a string such as ``rand-m7-n4-mstd0.5-inc1``: magnitude 7 of 10, four operations, each
drawn with replacement and applied with probability 0.5, the magnitude of each drawn from a normal
distribution around 7 with deviation 0.5, and magnitudes that always strengthen the change.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as F

from videonet.data.transforms.geometry import frame_size, scaling, shifting
from videonet.data.transforms.moving import move
from videonet.errors import ConfigError

MAX_MAGNITUDE = 10.0
POLICY_KEYS = ("m", "n", "mstd", "p", "inc", "mmax")
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
        values: dict[str, float] = {}
        for part in parts:
            match = re.fullmatch(r"([a-z]+)(\d+(?:\.\d+)?)", part)
            if not match or match[1] not in POLICY_KEYS:
                raise ConfigError(
                    f"AUG.AA_TYPE is {text!r}: {part!r} is not one of "
                    f"{', '.join(f'{name}<number>' for name in POLICY_KEYS)}"
                )
            values[match[1]] = float(match[2])
        return cls(
            magnitude=values.get("m", cls.magnitude),
            count=int(values.get("n", cls.count)),
            noise=values.get("mstd", cls.noise),
            probability=values.get("p", cls.probability),
            increasing=bool(values.get("inc", cls.increasing)),
            max_magnitude=values.get("mmax", cls.max_magnitude),
        )


class RandAugment:
    """Apply a policy to uint8 clips ``(T, 3, H, W)``, the same draw for all frames.

    Draws from torch's global generator, as torchvision's transforms do. ``fill`` is the colour
    (0 to 255) of what a geometric operation uncovers.
    """

    def __init__(self, policy: RandAugmentPolicy, fill: Sequence[float]):
        self.policy = policy
        self.fill = [float(value) for value in fill]

    def __call__(self, clip: Tensor, targets: Mapping[str, Tensor] | None = None) -> Any:
        clip = clip.contiguous()  # colours apart: most operations are faster on planes
        matrix, size = shifting(0, 0), frame_size(clip)
        for index in torch.randint(len(OPERATIONS), (self.policy.count,)).tolist():
            if torch.rand(()) >= self.policy.probability:
                continue
            level = self._draw_level()
            clip = OPERATIONS[index](clip, level, self.policy.increasing, self.fill)
            if isinstance(clip, Moved):
                clip, matrix = clip.clip, clip.matrix @ matrix
        return clip if targets is None else (clip, move(targets, matrix, size))

    def _draw_level(self) -> float:
        """A magnitude as a share of 10."""
        magnitude = self.policy.magnitude
        if self.policy.noise >= 100:  # timm's way to say: uniform up to the magnitude
            magnitude *= torch.rand(()).item()
        elif self.policy.noise > 0:
            magnitude += torch.randn(()).item() * self.policy.noise
        return min(max(magnitude, 0.0), self.policy.max_magnitude) / MAX_MAGNITUDE


class Moved(NamedTuple):
    """A clip whose pixels an operation moved, and the map (3, 3) of :mod:`~.geometry`."""

    clip: Tensor
    matrix: Tensor


Operation = Callable[[Tensor, float, bool, list[float]], Tensor | Moved]


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


def _by_frame(clip: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Change one frame after the other: a frame fits into the processor's cache."""
    return torch.stack([change(frame) for frame in clip])


def _affine(
    clip: Tensor, fill: list[float], *, angle: float = 0.0, shear: tuple[float, float] = (0, 0)
) -> Moved:
    """Rotate about the centre by ``angle`` degrees, or shear from the top left corner, bilinear.

    ``shear``: how far each pixel moves to the left and up, per pixel from that corner. What is
    uncovered gets the colour ``fill``.
    """
    height, width = clip.shape[-2:]
    turn = math.radians(angle)
    cos, sin = math.cos(turn), math.sin(turn)
    # From output to input in the coordinates of grid_sample, which are -1 … 1 on both axes.
    across, down = shear
    theta = torch.tensor(
        [
            [cos, -sin * height / width + across * height / width, across * height / width],
            [sin * width / height + down * width / height, cos, down * width / height],
        ]
    )
    grid = nn.functional.affine_grid(theta[None], [1, 3, height, width], align_corners=False)
    colour = torch.tensor(fill).view(3, 1, 1)

    def change(frame: Tensor) -> Tensor:
        # Zeros come from outside, so the fill colour has to be zero.
        moved = nn.functional.grid_sample((frame - colour)[None], grid, align_corners=False)[0]
        return moved.add_(colour).round_().to(torch.uint8)

    # The same map in pixels, and from input to output.
    pixels = shifting(width / 2, height / 2) @ scaling((2, 2), (height, width))
    back = torch.cat((theta.double(), torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)))
    matrix = torch.linalg.inv(pixels @ back @ torch.linalg.inv(pixels))
    return Moved(_by_frame(clip, change), matrix)


def _shift(clip: Tensor, fill: list[float], *, across: int = 0, down: int = 0) -> Moved:
    """Move by whole pixels to the right and down."""
    colour = torch.tensor(fill).round().to(torch.uint8).view(3, 1, 1)
    out = colour.expand(clip.shape).contiguous()
    height, width = clip.shape[-2:]
    here = out[..., max(0, down) : height + min(0, down), max(0, across) : width + min(0, across)]
    here.copy_(
        clip[..., max(0, -down) : height - max(0, down), max(0, -across) : width - max(0, across)]
    )
    return Moved(out, shifting(across, down))


def _look_up(plane: Tensor, table: Tensor) -> Tensor:
    """``table[plane]`` of bytes; translating them is several times faster than indexing."""
    pixels = bytearray(plane.numpy()).translate(table.numpy().tobytes())
    return torch.frombuffer(pixels, dtype=torch.uint8).view(plane.shape)


def _where(mask: Tensor, value: int) -> Tensor:
    """``value`` where the mask is set, else 0; arithmetic on bytes is faster than torch.where."""
    return mask.to(torch.uint8).mul_(value)


def _auto_contrast(clip: Tensor, level: float, increasing: bool, fill: list[float]) -> Tensor:
    return _by_frame(clip, F.autocontrast)


def _equalize(clip: Tensor, level: float, increasing: bool, fill: list[float]) -> Tensor:
    """Of every frame and colour alike: the cumulated histogram becomes a line (as in Pillow)."""
    planes = clip.flatten(0, 1)  # (T · 3, H, W)
    counts = torch.stack([torch.bincount(plane.flatten(), minlength=256) for plane in planes])
    before = counts.cumsum(1) - counts  # (T · 3, 256) pixels below each value
    largest = clip.new_tensor(range(256)).mul(counts > 0).argmax(1, keepdim=True)
    step = before.gather(1, largest) // 255
    tables = ((before + step // 2) // step.clamp(min=1)).clamp(max=255).to(torch.uint8)
    tables = torch.where(step > 0, tables, torch.arange(256, dtype=torch.uint8))
    out = [_look_up(plane, table) for plane, table in zip(planes, tables, strict=True)]
    return torch.stack(out).view(clip.shape)


def _invert(clip: Tensor, level: float, increasing: bool, fill: list[float]) -> Tensor:
    return F.invert(clip)


def _rotate(clip: Tensor, level: float, increasing: bool, fill: list[float]) -> Moved:
    return _affine(clip, fill, angle=either_sign(30.0 * level))


def _posterize(clip: Tensor, level: float, increasing: bool, fill: list[float]) -> Tensor:
    return F.posterize(clip, posterize_bits(level, increasing))


def _solarize(clip: Tensor, level: float, increasing: bool, fill: list[float]) -> Tensor:
    threshold = solarize_threshold(level, increasing)
    if threshold > 255:
        return clip
    return clip ^ _where(clip >= threshold, 255)  # 255 - x is x with all bits turned over


def _solarize_add(clip: Tensor, level: float, increasing: bool, fill: list[float]) -> Tensor:
    amount = min(128, int(110 * level))
    return clip + _where(clip < 128, amount)  # 127 + 128 still fits into uint8


def _colour(clip: Tensor, level: float, increasing: bool, fill: list[float]) -> Tensor:
    factor = enhance_factor(level, increasing)
    return _by_frame(clip, lambda frame: F.adjust_saturation(frame, factor))


def _contrast(clip: Tensor, level: float, increasing: bool, fill: list[float]) -> Tensor:
    factor = enhance_factor(level, increasing)
    return _by_frame(clip, lambda frame: F.adjust_contrast(frame, factor))


def _brightness(clip: Tensor, level: float, increasing: bool, fill: list[float]) -> Tensor:
    factor = enhance_factor(level, increasing)
    return _by_frame(clip, lambda frame: F.adjust_brightness(frame, factor))


def _sharpness(clip: Tensor, level: float, increasing: bool, fill: list[float]) -> Tensor:
    """Away from or towards the blurred picture; the outermost pixels stay (as in Pillow)."""
    factor = enhance_factor(level, increasing)

    def change(frame: Tensor) -> Tensor:
        inner = frame[:, 1:-1, 1:-1].float()
        rows = frame[:, :-2].to(torch.int16) + frame[:, 1:-1] + frame[:, 2:]
        box = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]  # sums of 3 x 3 pixels
        blurred = inner.mul(4).add_(box).div_(13).round_()
        out = frame.clone()
        out[:, 1:-1, 1:-1] = blurred.lerp_(inner, factor).clamp_(0, 255)
        return out

    return _by_frame(clip, change)


def _shear_x(clip: Tensor, level: float, increasing: bool, fill: list[float]) -> Moved:
    return _affine(clip, fill, shear=(either_sign(0.3 * level), 0.0))


def _shear_y(clip: Tensor, level: float, increasing: bool, fill: list[float]) -> Moved:
    return _affine(clip, fill, shear=(0.0, either_sign(0.3 * level)))


def _translate_x(clip: Tensor, level: float, increasing: bool, fill: list[float]) -> Moved:
    return _shift(clip, fill, across=round(either_sign(TRANSLATE_SHARE * level) * clip.shape[-1]))


def _translate_y(clip: Tensor, level: float, increasing: bool, fill: list[float]) -> Moved:
    return _shift(clip, fill, down=round(either_sign(TRANSLATE_SHARE * level) * clip.shape[-2]))


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
