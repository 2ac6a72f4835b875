"""Patches along the boundaries of masks, as boundary patch refinement cuts them (BPR, CVPR 2021).

Every boundary pixel has a box around it, and non-maximum suppression leaves a few that overlap
little. In a clip the boxes are the same in all frames: a pixel is as good as in its best frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from videonet.errors import ConfigError

EDGES = ("official", "covered")
MOST = 4.5  # a 3×3 neighbourhood that is divided evenly


@dataclass(frozen=True)
class PatchRule:
    """How patches are cut.

    Attributes:
        size: side of a patch in pixels, even.
        padding: pixels around a patch that the network sees too.
        overlap: of two boxes with a larger intersection over union one is left.
        edges: boxes that leave the image are moved back. "official": to one pixel before its right
            and lower end, so that they never reach its last column and row, and masks of images
            that are not larger than a patch have none. "covered": to the end itself; what a patch
            has beyond a small image is zero.

    Raises:
        ConfigError: no patches can be cut so.
    """

    size: int = 64
    padding: int = 0
    overlap: float = 0.25
    edges: str = "official"

    def __post_init__(self) -> None:
        if self.size < 2 or self.size % 2:
            raise ConfigError(f"patches are {self.size} pixels wide, expected an even number")
        if self.padding < 0:
            raise ConfigError(f"patches have a padding of {self.padding}, expected 0 or more")
        if not 0 <= self.overlap <= 1:
            raise ConfigError(f"patches overlap by up to {self.overlap}, expected 0 to 1")
        if self.edges not in EDGES:
            raise ConfigError(f"edges are {self.edges!r}, expected {' or '.join(EDGES)}")

    @property
    def side(self) -> int:
        """Of what is cut out: the patch and its padding."""
        return self.size + 2 * self.padding


@dataclass(frozen=True)
class Patches:
    """Where the patches of a mask are, best first.

    Attributes:
        corners: (N, 2) int64, x and y of the top left pixel.
        scores: (N,) from 2/9 to 8/9, how evenly the neighbourhood of the middle is divided.
        boxes: (N, 4) x0, y0, x1, y1 around the boundary pixels, before they were moved back.
    """

    corners: Tensor
    scores: Tensor
    boxes: Tensor

    def __len__(self) -> int:
        return len(self.corners)


def boundary_values(masks: Tensor) -> Tensor:
    """How evenly the 3×3 neighbourhood of every pixel is divided.

    Outside of the image there is no mask, so the border of the image is a boundary.

    Args:
        masks: (…, H, W), where what is not zero belongs to the mask.

    Returns:
        (…, H, W) float32: 0 where all is the same, up to 4 of 9 pixels.
    """
    whole = (masks != 0).float().reshape(-1, 1, *masks.shape[-2:])
    inside = F.avg_pool2d(whole, 3, 1, 1, divisor_override=1)
    return torch.minimum(inside, 9 - inside).reshape(masks.shape)


def find_patches(masks: Tensor, rule: PatchRule) -> Patches:
    """The patches along the boundary of one object.

    Of boxes with equal scores the one that comes first in the order of rows is kept.

    Args:
        masks: (H, W), or (T, H, W) of the frames of a clip.
        rule: how they are cut.
    """
    from torchvision.ops import nms  # takes long to import, and classification imports this module

    height, width = masks.shape[-2:]
    frames = masks.reshape(-1, height, width) != 0
    part = _around(frames)
    values = boundary_values(frames[:, part[0], part[1]]).amax(dim=0)
    if rule.edges == "official" and min(height, width) <= rule.size:
        values = torch.zeros_like(values)
    y, x = values.nonzero(as_tuple=True)
    scores = values[y, x] / MOST
    centres = torch.stack((x, y, x, y), dim=1) + torch.tensor(
        [part[1].start, part[0].start] * 2, device=masks.device
    )
    half = rule.size / 2
    boxes = centres.float() + torch.tensor([-half, -half, half, half], device=masks.device)
    kept = nms(boxes, scores, rule.overlap)  # its sort is stable
    boxes, scores = boxes[kept], scores[kept]
    return Patches(_moved_back(boxes, height, width, rule), scores, boxes)


def _around(frames: Tensor) -> tuple[slice, slice]:
    """Rows and columns of masks (T, H, W) and a pixel around them: elsewhere is no boundary."""
    whole = frames.any(dim=0)
    places = [whole.any(dim=axis).nonzero()[:, 0] for axis in (1, 0)]
    if not len(places[0]):
        return slice(0, 1), slice(0, 1)
    rows, columns = (slice(max(int(p[0]) - 1, 0), int(p[-1]) + 2) for p in places)
    return rows, columns


def _moved_back(boxes: Tensor, height: int, width: int, rule: PatchRule) -> Tensor:
    """The top left corners of boxes (N, 4) within the image, (N, 2)."""
    corners = boxes[:, :2].long().clamp(min=0)
    ends = torch.tensor([width, height], device=boxes.device)
    if rule.edges == "covered":
        return corners.minimum((ends - rule.size).clamp(min=0))
    # A box that ends with the image is moved too.
    return torch.where(boxes[:, 2:].long() >= ends, ends - 1 - rule.size, corners)


def cut_patches(images: Tensor, corners: Tensor, rule: PatchRule) -> Tensor:
    """Cut patches with their padding, zeros beyond the image.

    Args:
        images: (…, H, W).
        corners: (N, 2), see :class:`Patches`.
        rule: how they are cut.

    Returns:
        (N, …, side, side).
    """
    height, width = images.shape[-2:]
    reach = range(-rule.padding, rule.size + rule.padding)
    steps = torch.tensor(reach, device=images.device)
    columns, rows = (corners[:, k, None].to(images.device) + steps for k in (0, 1))  # (N, side)
    inside = ((rows >= 0) & (rows < height))[:, :, None]
    inside = inside & ((columns >= 0) & (columns < width))[:, None]  # (N, side, side)
    places = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None]
    found = images.flatten(-2)[..., places] * inside.to(images.dtype)  # (…, N, side, side)
    return found.movedim(-3, 0)


class Reassembly:
    """The mean of refined patches over the image, for one object in an image or a clip.

    Args:
        masks: (H, W) or (T, H, W), the mask before.
        rule: how the patches were cut.
    """

    def __init__(self, masks: Tensor, rule: PatchRule):
        self.masks, self.rule = masks != 0, rule
        self._sums = torch.zeros(masks.shape, device=masks.device)
        self._counts = torch.zeros(masks.shape, device=masks.device)

    def add(self, corners: Tensor, patches: Tensor, frames: Sequence[int] | None = None) -> None:
        """Add what a network gave for some patches.

        Args:
            corners: (N, 2), see :class:`Patches`.
            patches: (N, side, side), or (N, T, side, side): probabilities of the mask.
            frames: which frames of the clip a patch has; None for all.
        """
        size, padding = self.rule.size, self.rule.padding
        height, width = self.masks.shape[-2:]
        centres = patches[..., padding : padding + size, padding : padding + size]
        sums, counts = self._sums, self._counts
        for (x, y), patch in zip(corners.tolist(), centres, strict=True):
            rows, columns = slice(y, min(y + size, height)), slice(x, min(x + size, width))
            patch = patch[..., : rows.stop - y, : columns.stop - x]
            if frames is None:
                sums[..., rows, columns] += patch
                counts[..., rows, columns] += 1
                continue
            for place, frame in enumerate(frames):
                sums[frame, rows, columns] += patch[place]
                counts[frame, rows, columns] += 1

    def probabilities(self) -> Tensor:
        """The mean over the patches that cover a pixel, -1 where none does; as the masks are."""
        return torch.where(self._counts > 0, self._sums / self._counts.clamp(min=1), -1.0)

    def refined(self) -> Tensor:
        """The refined masks, bool: outside of all patches they stay as they were."""
        mean = self.probabilities()
        return torch.where(mean < 0, self.masks, mean > 0.5)
