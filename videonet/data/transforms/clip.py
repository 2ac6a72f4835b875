"""Transforms of training on uint8 clips ``(T, 3, H, W)``: one draw holds for all frames of a clip.

As in ``torchvision.transforms.v2``, a transform takes a clip and returns it, or takes a clip and
its targets and returns both, the targets moved as the pixels are. Random transforms draw from
torch's global generator, as torchvision's do; whoever calls them seeds it (see
:mod:`videonet.data.loading.dataset`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from videonet.data.transforms.crops import Moving, cut, pick_frames, resize_short_side
from videonet.data.transforms.geometry import frame_size, mirroring, scaling, shifting
from videonet.data.transforms.moving import KeyPoints, fitted, move
from videonet.data.transforms.rand_augment import RandAugment, RandAugmentPolicy
from videonet.data.transforms.varying import Exposure, Shake
from videonet.errors import ConfigError

Transform = Callable[..., Any]

INTERPOLATIONS = {
    "bilinear": InterpolationMode.BILINEAR,
    "bicubic": InterpolationMode.BICUBIC,
    "random": InterpolationMode.BILINEAR,
}


class JitterCrop:
    """Short side drawn from a range, then a random square crop (PySlowFast's jitter).

    ``inverse``: 1 / size is uniform instead of the size.
    """

    def __init__(self, size: int, short_side: tuple[int, int], inverse: bool = False):
        self.size, self.inverse = size, inverse
        self.low, self.high = max(short_side[0], size), max(short_side[1], size)
        self.decode_side = self.high
        self.shape = size, size

    def __call__(
        self, clip: Tensor, targets: Moving | None = None, *, rows: Tensor | None = None
    ) -> Any:
        """Crop ``(T, 3, H, W)``, or what ``rows`` picks of it."""
        clip = clip if rows is None else pick_frames(clip, rows)
        share = torch.rand(()).item()
        if self.inverse:
            side = round(1 / (1 / self.high + share * (1 / self.low - 1 / self.high)))
        else:
            side = round(self.low + share * (self.high - self.low))
        clip = resize_short_side(clip, side)
        top = int(torch.randint(clip.shape[-2] - self.size + 1, ()))
        left = int(torch.randint(clip.shape[-1] - self.size + 1, ()))
        return cut(clip, targets, top, left, self.size)


class InceptionCrop:
    """A crop of random area and aspect ratio, resized to a square (Szegedy et al. 2015).

    ``decode_side``: the short side of the frames it wants to crop from.
    """

    def __init__(
        self,
        size: int,
        area: tuple[float, float],
        aspect: tuple[float, float],
        decode_side: int,
        interpolation: InterpolationMode = InterpolationMode.BICUBIC,
    ):
        self.size, self.decode_side = size, max(decode_side, size)
        self.shape = size, size
        self._crop = v2.RandomResizedCrop(size, area, aspect, interpolation, antialias=True)

    def __call__(
        self, clip: Tensor, targets: Moving | None = None, *, rows: Tensor | None = None
    ) -> Any:
        """Crop ``(T, 3, H, W)``, or what ``rows`` picks of it, each distinct frame once."""
        box = self._crop.make_params([clip])
        whole, square = frame_size(clip), (self.size, self.size)
        clip = F.crop(clip, **box)
        rows = torch.arange(len(clip)) if rows is None else rows
        distinct, place = rows.unique(return_inverse=True)
        out = clip.new_empty((len(distinct), 3, self.size, self.size))
        for k, row in enumerate(distinct.tolist()):  # a frame fits into the processor's cache
            out[k] = F.resize(
                clip[row], [self.size, self.size], self._crop.interpolation, antialias=True
            )
        out = out if len(distinct) == len(place) else out[place]
        if targets is None:
            return out
        matrix = shifting(-box["left"], -box["top"]) @ fitted(targets, whole)
        return out, move(targets, scaling((box["height"], box["width"]), square) @ matrix, square)


class RandomFlip(v2.RandomHorizontalFlip):
    """Left and right change places, with probability ``p``."""

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Torchvision's, but for points, which it moves by a pixel less than boxes."""
        if KeyPoints is not None and isinstance(inpt, KeyPoints):
            size = inpt.canvas_size
            return move({"points": inpt}, mirroring(size[1]), size)["points"]
        return super().transform(inpt, params)


class RandomErasing:
    """Cover random boxes (Zhong et al. 2020, timm's shares), the same in every frame.

    ``mode``: ``pixel`` fills with normal noise of the data's mean and deviation, ``rand`` with
    one such colour, ``const`` with the mean. Up to ``count`` boxes share the area.
    """

    AREA, ASPECT, TRIES = (0.02, 1 / 3), (0.3, 1 / 0.3), 10

    def __init__(
        self,
        probability: float,
        mode: str,
        count: int,
        mean: Sequence[float],
        std: Sequence[float],
    ):
        if mode not in ("pixel", "rand", "const"):
            raise ConfigError(f"AUG.RE_MODE is {mode!r}, expected 'pixel', 'rand' or 'const'")
        self.probability, self.mode, self.count = probability, mode, count
        self.mean = torch.tensor(mean).view(3, 1, 1)
        self.std = torch.tensor(std).view(3, 1, 1)

    def __call__(self, clip: Tensor, targets: Moving | None = None) -> Any:
        clip = self._erased(clip)
        return clip if targets is None else (clip, targets)

    def _erased(self, clip: Tensor) -> Tensor:
        if torch.rand(()) >= self.probability:
            return clip
        clip = clip.clone()
        count = int(torch.randint(1, self.count + 1, ()))
        for _ in range(count):
            top, left, height, width = self._draw_box(*frame_size(clip), count)
            clip[..., top : top + height, left : left + width] = self._filling(height, width)
        return clip

    def _draw_box(self, height: int, width: int, count: int) -> tuple[int, int, int, int]:
        """(top, left, height, width); an empty box where none fits after some tries."""
        for _ in range(self.TRIES):
            area = _uniform(*self.AREA) * height * width / count
            aspect = math.exp(_uniform(*map(math.log, self.ASPECT)))
            h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < h < height and 0 < w < width:
                top = int(torch.randint(height - h + 1, ()))
                left = int(torch.randint(width - w + 1, ()))
                return top, left, h, w
        return 0, 0, 0, 0

    def _filling(self, height: int, width: int) -> Tensor:
        shape = {"pixel": (3, height, width), "rand": (3, 1, 1), "const": None}[self.mode]
        colour = self.mean if shape is None else self.mean + self.std * torch.randn(shape)
        return (255 * colour).round().clamp(0, 255).to(torch.uint8)


def build_augmentation(
    *,
    policy: str = "",
    colour_jitter: float = 0.0,
    erasing: float = 0.0,
    erasing_mode: str = "pixel",
    erasing_count: int = 1,
    flip: bool = False,
    exposure: float = 0.0,
    shake: float = 0.0,
    mean: Sequence[float] = (0.45, 0.45, 0.45),
    std: Sequence[float] = (0.225, 0.225, 0.225),
) -> v2.Compose:
    """What follows the training crop: what happens to a camera, flip and the rest.

    That is changes of light and of its place within the clip, flip, RandAugment or else colour
    jitter, erasing.
    """
    steps: list[Transform] = []
    if exposure:
        steps.append(Exposure(exposure))
    if shake:
        steps.append(Shake(shake))
    if flip:
        steps.append(RandomFlip(0.5))
    if policy:
        fill = [round(255 * value) for value in mean]
        steps.append(RandAugment(RandAugmentPolicy.parse(policy), fill))
    elif colour_jitter:
        steps.append(v2.ColorJitter(colour_jitter, colour_jitter, colour_jitter))
    if erasing:
        steps.append(RandomErasing(erasing, erasing_mode, erasing_count, mean, std))
    return v2.Compose(steps or [v2.Identity()])


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * torch.rand(()).item()
