"""Augmentation that changes within a clip, as light and camera do while they record.

RandAugment gives all frames of a clip the same change, so a model may take any other change from
frame to frame for a movement. As in RandAugment-T (Kim et al. 2020, "Learning Temporally Invariant
and Localizable Features via Data Augmentation for Video Recognition") these vary over time.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from videonet.data.targets import has_places
from videonet.data.transforms.crops import Moving
from videonet.data.transforms.geometry import frame_size
from videonet.errors import ConfigError

APPLIED = 0.5  # probability of each change
DARKEST = math.log(4)  # a fourth, or four times, of the light, at strength 1
WIDEST = 0.1  # of the picture's side, that a camera strays at strength 1


class Exposure:
    """The light of a clip changes while it runs, with probability 1/2.

    Either an automatic exposure settles after the start (or drifts off before the end), or the
    light swings. Clips of one frame stay as they are.

    Args:
        strength: 0 to 1; at 1 up to four times the light, or a fourth.
    """

    def __init__(self, strength: float):
        self.strength = strength

    def __call__(self, clip: Tensor, targets: Moving | None = None) -> Any:
        """Change uint8 ``(T, 3, H, W)``; targets stay where they are."""
        if len(clip) > 1 and torch.rand(()) < APPLIED:
            gain = self._gain(len(clip)).view(-1, 1, 1, 1)
            clip = (clip * gain).round_().clamp_(0, 255).to(torch.uint8)
        return clip if targets is None else (clip, targets)

    def _gain(self, frames: int) -> Tensor:
        """Factors on the light, ``(T,)``."""
        settles, size, speed, phase = torch.rand(4).tolist()
        time = torch.linspace(0, 1, frames)
        change = self.strength * DARKEST * (2 * size - 1)
        if settles < 0.5:
            return (change * torch.exp(-time / (0.03 + 0.4 * speed))).exp()
        if settles < 0.65:
            return (change * torch.exp(-time.flip(0) / (0.03 + 0.4 * speed))).exp()
        # Slow or quick, up to 4 times within the clip; a flicker is weaker than a drift.
        return (change / 2 * torch.sin(2 * math.pi * (0.25 * 16**speed * time + phase))).exp()


class Shake:
    """The camera moves while a clip runs, with probability 1/2: it pans, and the hand shakes.

    Frames move to the side and up, bilinear, with the picture mirrored at its borders. Clips of one
    frame stay as they are.

    Args:
        strength: 0 to 1; at 1 a frame is up to a tenth of its side off its place, mostly.
    """

    def __init__(self, strength: float):
        self.strength = strength

    def __call__(self, clip: Tensor, targets: Moving | None = None) -> Any:
        """Move the frames of uint8 ``(T, 3, H, W)``.

        Raises:
            ConfigError: targets have places in the frames, which would have to move as well.
        """
        if targets is not None and has_places(targets):
            raise ConfigError("AUG.SHAKE is for clips whose targets have no places: set it to 0")
        if len(clip) > 1 and torch.rand(()) < APPLIED:
            clip = self._moved(clip, self._path(len(clip)))
        return clip if targets is None else (clip, targets)

    def _path(self, frames: int) -> Tensor:
        """How far each frame is off its place, ``(T, 2)``, in shares of the picture's side."""
        size, smooth = torch.rand(2).tolist()
        pan = torch.linspace(-1, 1, frames).view(-1, 1) * torch.randn(2)
        steps = torch.randn(frames, 2)
        walk = steps.cumsum(0) / math.sqrt(frames) if smooth < 0.7 else 0.3 * steps
        path = pan / 2 + walk - walk.mean(0)
        return self.strength * WIDEST * size * path

    def _moved(self, clip: Tensor, path: Tensor) -> Tensor:
        height, width = frame_size(clip)
        theta = torch.eye(2, 3).repeat(len(clip), 1, 1)  # (T, 2, 3)
        theta[:, :, 2] = 2 * path  # the picture is 2 wide in the coordinates of grid_sample
        grid = nn.functional.affine_grid(theta, [len(clip), 3, height, width], align_corners=False)
        moved = nn.functional.grid_sample(
            clip.float(), grid, padding_mode="reflection", align_corners=False
        )
        return moved.round_().clamp_(0, 255).to(torch.uint8)
