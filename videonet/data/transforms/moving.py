"""Moving targets with the pixels: boxes, masks and points through one map of the plane."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F
from torchvision.tv_tensors import BoundingBoxes, Mask, TVTensor

from videonet.data.transforms.geometry import Size, frame_size, scaling

KeyPoints = getattr(tv_tensors, "KeyPoints", None)  # torchvision 0.23 has them


def canvas(targets: Mapping[str, Tensor]) -> Size | None:
    """The size of the frames that targets have their places in; None where none has a place."""
    for value in targets.values():
        if isinstance(value, Mask):
            return frame_size(value)
        if isinstance(value, TVTensor):
            height, width = value.canvas_size
            return height, width
    return None


def fitted(targets: Mapping[str, Tensor], size: Size) -> Tensor:
    """The map from the frames of targets to frames of another size."""
    return scaling(canvas(targets) or size, size)


def move(targets: Mapping[str, Tensor], matrix: Tensor, size: Size) -> dict[str, Tensor]:
    """Targets after a map, in frames of ``size``; what has no place in the picture stays.

    Boxes become the smallest upright ones around their corners, and may reach out of the frame.
    A mask's pixel takes what was at its centre, or nothing.
    """
    return {name: _moved(value, matrix, size) for name, value in targets.items()}


def _moved(value: Tensor, matrix: Tensor, size: Size) -> Tensor:
    if isinstance(value, BoundingBoxes):
        return _moved_boxes(value, matrix, size)
    if isinstance(value, Mask):
        return tv_tensors.wrap(_sampled(value.as_subclass(Tensor), matrix, size), like=value)
    if KeyPoints is not None and isinstance(value, KeyPoints):
        points = _places(value.as_subclass(Tensor), matrix)
        return tv_tensors.wrap(points, like=value, canvas_size=size)
    return value


def _places(points: Tensor, matrix: Tensor) -> Tensor:
    """Points (…, 2) after a map."""
    moved = points.double() @ matrix[:2, :2].T + matrix[:2, 2]
    return moved.to(points.dtype)


def _moved_boxes(boxes: BoundingBoxes, matrix: Tensor, size: Size) -> BoundingBoxes:
    corners = F.convert_bounding_box_format(boxes, new_format="XYXY").as_subclass(Tensor)
    ends = _places(corners[:, [0, 1, 2, 1, 2, 3, 0, 3]].unflatten(1, (4, 2)), matrix)
    upright = torch.cat((ends.amin(dim=1), ends.amax(dim=1)), dim=1)
    moved = BoundingBoxes(upright, format="XYXY", canvas_size=size)
    return F.convert_bounding_box_format(moved, new_format=boxes.format)


def _sampled(mask: Tensor, matrix: Tensor, size: Size) -> Tensor:
    """A mask (…, H, W) after a map: every pixel from the nearest one before, zero from outside."""
    rows, columns = (torch.arange(side, dtype=torch.float64) + 0.5 for side in size)
    if matrix[0, 1] == matrix[1, 0] == 0:  # upright: whole rows and columns are picked
        return _picked(mask, matrix, columns, rows)
    centres = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)  # (H', W', 2)
    x, y = _places(centres, torch.linalg.inv(matrix)).floor().long().unbind(-1)
    height, width = mask.shape[-2:]
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    picked = mask[..., y.clamp(0, height - 1), x.clamp(0, width - 1)]
    return picked if inside.all() else picked * inside.to(picked.dtype)


def _picked(mask: Tensor, matrix: Tensor, columns: Tensor, rows: Tensor) -> Tensor:
    """The same for a map that stretches, moves and mirrors along the axes alone."""
    back = torch.linalg.inv(matrix)
    across = (columns * back[0, 0] + back[0, 2]).floor().long()
    down = (rows * back[1, 1] + back[1, 2]).floor().long()
    for axis, places in ((-2, down), (-1, across)):
        side = mask.shape[axis]
        outside = (places < 0) | (places >= side)
        mask = mask.index_select(axis, places.clamp(0, side - 1))
        if outside.any():
            mask.index_fill_(axis, outside.nonzero()[:, 0], 0)
    return mask
