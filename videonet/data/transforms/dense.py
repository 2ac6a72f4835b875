"""Spatial transforms for boxes and masks: whole pictures of any shape, and random scales.

As in :mod:`videonet.data.transforms.clip` one draw holds for all frames of a clip, and targets
move as the pixels do. Clips keep their shape until :class:`Pad` brings them all to one size, so the
pictures lie at the top left and the target ``size`` says how large they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import masks_to_boxes
from torchvision.transforms.v2 import functional as F
from torchvision.tv_tensors import BoundingBoxes

from videonet.data.targets import SIZE
from videonet.data.transforms.crops import Moving, pick_frames
from videonet.data.transforms.geometry import Size, frame_size, scaling, shifting
from videonet.data.transforms.moving import fitted, move
from videonet.errors import ConfigError


def scaled(size: Size, short_side: int, longest: int | None = None) -> Size:
    """The size with this short side, or a smaller one where the long side would be too long.

    As in detectron2: sides are rounded after scaling, halves up.
    """
    scale = short_side / min(size)
    if longest is not None and scale * max(size) > longest:
        scale = longest / max(size)
    height, width = (max(int(side * scale + 0.5), 1) for side in size)
    return height, width


class PictureCrop:
    """What is cropped and resized of a picture; subclasses draw it.

    ``shape``: height and width that hold all results. ``decode_side``: None, frames are cropped
    from whole ones.
    """

    shape: Size
    decode_side: int | None = None

    def __call__(
        self, clip: Tensor, targets: Moving | None = None, *, rows: Tensor | None = None
    ) -> Any:
        """Change ``(T, 3, H, W)``, or what ``rows`` picks of it."""
        picture = Picture(clip if rows is None else pick_frames(clip, rows))
        self.change(picture)
        return picture.clip if targets is None else (picture.clip, picture.moved(targets))

    def change(self, picture: Picture) -> None:
        """Resize and crop a picture."""
        raise NotImplementedError


class Picture:
    """A clip under way, and the map from where its targets have their places."""

    def __init__(self, clip: Tensor):
        self.clip, self._whole = clip, frame_size(clip)
        self._map = torch.eye(3, dtype=torch.float64)
        self._is_cut = False

    @property
    def size(self) -> Size:
        """Its height and width."""
        return frame_size(self.clip)

    def resize(self, size: Size) -> None:
        """Bilinear, antialiased."""
        self._map = scaling(self.size, size) @ self._map
        if size != self.size:
            self.clip = F.resize(self.clip, list(size), antialias=True)

    def crop(self, top: int, left: int, height: int, width: int) -> None:
        """A part of it."""
        self._map = shifting(-left, -top) @ self._map
        self._is_cut |= (height, width) != self.size
        self.clip = F.crop(self.clip, top, left, height, width)

    def moved(self, targets: Moving) -> dict[str, Tensor]:
        """Targets in this picture; a crop makes boxes anew from what is left of their masks."""
        found = move(targets, self._map @ fitted(targets, self._whole), self.size)
        if SIZE in found:
            found[SIZE] = torch.tensor(self.size, dtype=torch.int64)
        boxes = found.get("boxes")
        if self._is_cut and "masks" in found and isinstance(boxes, BoundingBoxes):
            found["boxes"] = _cut_boxes(boxes, found["masks"])
        return found


def _cut_boxes(boxes: BoundingBoxes, masks: Tensor) -> Tensor:
    """Boxes that reach out of the picture, around their masks within; empty without a mask."""
    height, width = frame_size(masks)
    corners = F.convert_bounding_box_format(boxes, new_format="XYXY").as_subclass(Tensor).clone()
    out = (corners[:, :2] < 0).any(dim=1) | (corners[:, 2] > width) | (corners[:, 3] > height)
    bitmaps = masks.as_subclass(Tensor)
    full = bitmaps.flatten(1).any(dim=1)
    corners[out & ~full] = 0
    if (kept := out & full).any():
        around = masks_to_boxes(bitmaps[kept])
        around[:, 2:] += 1  # the last pixel belongs to the box
        corners[kept] = around.to(corners.dtype)
    moved = BoundingBoxes(corners, format="XYXY", canvas_size=(height, width))
    return F.convert_bounding_box_format(moved, new_format=boxes.format)


class ShortSideResize(PictureCrop):
    """The whole picture with one of some short sides, and a limit on the long one.

    With ``first_sides`` there is a crop before it with probability 0.5, as in DETR and MViT: the
    picture is resized to one of them and cropped to sides drawn from the range ``first_crop``.
    """

    def __init__(
        self,
        short_sides: Sequence[int],
        longest: int,
        first_sides: Sequence[int] = (),
        first_crop: tuple[int, int] = (384, 600),
    ):
        if not short_sides or min(*short_sides, longest) < 1:
            raise ConfigError(f"short sides {list(short_sides)} up to {longest}: none is drawn")
        self.short_sides, self.longest = tuple(short_sides), longest
        self.first_sides, self.first_crop = tuple(first_sides), first_crop
        self.shape = longest, longest

    def change(self, picture: Picture) -> None:
        """Maybe crop, then resize."""
        if self.first_sides and torch.rand(()) < 0.5:
            picture.resize(scaled(picture.size, _one_of(self.first_sides)))
            low, high = self.first_crop
            _crop_to(picture, *(_between(min(k, low), min(k, high)) for k in picture.size))
        picture.resize(scaled(picture.size, _one_of(self.short_sides), self.longest))


class LargeScaleJitter(PictureCrop):
    """A random scale of the picture that fits into a square, cropped to the square.

    Large-scale jittering of arXiv 2012.07177 is 0.1 to 2.0; 1.0 fits exactly.
    """

    def __init__(self, side: int, scales: tuple[float, float] = (0.1, 2.0)):
        self.side, self.scales, self.shape = side, scales, (side, side)

    def change(self, picture: Picture) -> None:
        """Resize, then crop what is larger than the square."""
        low, high = self.scales
        target = self.side * (low + (high - low) * torch.rand(()).item())
        scale = target / max(picture.size)
        height, width = (max(round(side * scale), 1) for side in picture.size)
        picture.resize((height, width))
        _crop_to(picture, self.side, self.side)


class ScaleAndCrop(PictureCrop):
    """A random scale, then a crop of one size: the augmentation of semantic segmentation.

    As in mmsegmentation: the scale is a factor on a picture that fits into ``base`` (long side,
    short side), and of some crops one is taken of which no class covers more than ``most``.
    """

    TRIES = 10

    def __init__(
        self,
        side: int,
        base: tuple[int, int] = (2048, 512),
        scales: tuple[float, float] = (0.5, 2.0),
        most: float = 0.75,
    ):
        self.side, self.base, self.scales, self.most = side, base, scales, most
        self.shape = side, side

    def __call__(
        self, clip: Tensor, targets: Moving | None = None, *, rows: Tensor | None = None
    ) -> Any:
        """Change ``(T, 3, H, W)``, or what ``rows`` picks of it."""
        picture = Picture(clip if rows is None else pick_frames(clip, rows))
        low, high = self.scales
        factor = low + (high - low) * torch.rand(()).item()
        longest, shortest = max(self.base) * factor, min(self.base) * factor
        scale = min(longest / max(picture.size), shortest / min(picture.size))
        height, width = (max(int(side * scale + 0.5), 1) for side in picture.size)
        picture.resize((height, width))
        labels = {} if targets is None else picture.moved(targets)
        top, left = self._corner(picture, labels.get("label_map"))
        picture.crop(top, left, min(self.side, height), min(self.side, width))
        return picture.clip if targets is None else (picture.clip, picture.moved(targets))

    def _corner(self, picture: Picture, labels: Tensor | None) -> tuple[int, int]:
        """The top left of a crop that does not show almost one class alone."""
        for _ in range(self.TRIES):
            top, left = (_between(0, max(side - self.side, 0)) for side in picture.size)
            if labels is None:
                break
            shown = labels.as_subclass(Tensor)[..., top : top + self.side, left : left + self.side]
            counts = shown.flatten().bincount()[1:]  # 0 does not count
            if (counts > 0).sum() > 1 and counts.max() < self.most * counts.sum():
                break
        return top, left


class Pad:
    """Adds to the right and at the bottom up to one size.

    Args:
        shape: height and width.
        fill: of the three channels.
    """

    def __init__(self, shape: Size, fill: Sequence[int]):
        self.shape = shape
        self.fill = torch.tensor(fill, dtype=torch.uint8).view(3, 1, 1)

    def __call__(self, clip: Tensor, targets: Moving | None = None) -> Any:
        """Pad ``(T, 3, H, W)`` and the masks of targets."""
        size = frame_size(clip)
        if size[0] > self.shape[0] or size[1] > self.shape[1]:
            raise ConfigError(f"a picture of {size} does not fit into {self.shape}")
        padded = self.fill.expand(len(clip), 3, *self.shape).clone()
        padded[..., : size[0], : size[1]] = clip
        if targets is None:
            return padded
        moved = move(targets, torch.eye(3, dtype=torch.float64), self.shape)
        return padded, moved | ({SIZE: torch.tensor(size)} if SIZE in moved else {})


class WholePicture:
    """A picture of an evaluation: resized, nothing cut, and padded; without draws."""

    def __init__(self, short_side: int, longest: int, pad: Pad):
        self._resize, self._pad = ShortSideResize([short_side], longest), pad
        self.shape = pad.shape

    def __call__(self, clip: Tensor, targets: Moving | None = None) -> Any:
        """Change ``(T, 3, H, W)``."""
        if targets is None:
            return self._pad(self._resize(clip))
        return self._pad(*self._resize(clip, targets))


def _crop_to(picture: Picture, height: int, width: int) -> None:
    """A random part of at most this size."""
    top, left = (
        _between(0, max(side - most, 0))
        for side, most in zip(picture.size, (height, width), strict=True)
    )
    picture.crop(top, left, min(height, picture.size[0]), min(width, picture.size[1]))


def _between(low: int, high: int) -> int:
    """A random integer, both ends included."""
    return int(torch.randint(low, high + 1, ()))


def _one_of(sides: Sequence[int]) -> int:
    return sides[_between(0, len(sides) - 1)] if len(sides) > 1 else sides[0]
