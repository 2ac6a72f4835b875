"""From masks within boxes to masks of frames, as bitmaps or as run lengths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

RunLengths = dict[str, list[int]]  # {"size": [H, W], "counts": …}, uncompressed as in COCO
Place = tuple[slice, slice]  # rows and columns of a frame


def paste_masks(
    masks: Tensor,
    boxes: Tensor,
    size: tuple[int, int],
    *,
    by_sampling: bool,
    threshold: float | None = 0.5,
) -> Tensor:
    """Put masks into an empty frame.

    Args:
        masks: probabilities (N, M, M) within the boxes.
        boxes: (N, 4) in pixels of the frame.
        size: (H, W) of the frame.
        by_sampling: see ``paste_by_sampling`` of :class:`Conventions`.
        threshold: probability from which on a pixel belongs to a mask; None for probabilities.

    Returns:
        Booleans (N, H, W), or probabilities.
    """
    dtype = torch.float32 if threshold is None else torch.bool
    frames = torch.zeros(len(masks), *size, dtype=dtype, device=masks.device)
    for frame, (place, part) in zip(frames, _parts(masks, boxes, size, by_sampling), strict=True):
        frame[place] = part if threshold is None else part >= threshold
    return frames


def paste_run_lengths(
    masks: Tensor,
    boxes: Tensor,
    size: tuple[int, int],
    *,
    by_sampling: bool,
    threshold: float = 0.5,
) -> list[RunLengths]:
    """The same as run lengths; only one bitmap is in memory at a time.

    Args:
        masks, boxes, size, by_sampling, threshold: see :func:`paste_masks`.
    """
    found = []
    for place, part in _parts(masks, boxes, size, by_sampling):
        frame = torch.zeros(size, dtype=torch.bool, device=masks.device)
        frame[place] = part >= threshold
        found.append(to_run_lengths(frame))
    return found


def to_run_lengths(mask: Tensor) -> RunLengths:
    """Lengths of the runs of a mask (H, W) column by column, first of a run outside of it."""
    pixels = mask.t().flatten()
    changes = torch.where(pixels[1:] != pixels[:-1])[0] + 1
    ends = [0, *changes.tolist(), len(pixels)]
    counts = [end - start for start, end in zip(ends[:-1], ends[1:], strict=True)]
    if len(pixels) and pixels[0]:
        counts.insert(0, 0)
    return {"size": list(mask.shape), "counts": counts}


def from_run_lengths(runs: RunLengths) -> Tensor:
    """The mask of run lengths, booleans (H, W)."""
    height, width = runs["size"]
    counts = torch.tensor(runs["counts"], dtype=torch.int64)
    values = torch.arange(len(counts)) % 2 == 1
    return values.repeat_interleave(counts).reshape(width, height).t()


def _parts(
    masks: Tensor, boxes: Tensor, size: tuple[int, int], by_sampling: bool
) -> Iterator[tuple[Place, Tensor]]:
    """For every mask the part of the frame that it may cover, and the probabilities there."""
    masks, boxes = masks.float(), boxes.float()
    if by_sampling:
        corners = torch.cat((boxes[:, :2].floor() - 1, boxes[:, 2:].ceil() + 1), dim=1)
    else:  # bilinear resizing of a mask with a frame of zeros fades out at the border
        scale = (masks.shape[-1] + 2) / masks.shape[-1]
        masks = F.pad(masks, (1, 1, 1, 1))
        centres, half = (boxes[:, :2] + boxes[:, 2:]) * 0.5, (boxes[:, 2:] - boxes[:, :2]) * 0.5
        corners = torch.cat((centres - half * scale, centres + half * scale), dim=1)
    rows_of = corners.to(torch.int64).tolist()
    for mask, box, (x1, y1, x2, y2) in zip(masks, boxes, rows_of, strict=True):
        if by_sampling:
            place = (_within(y1, y2, size[0]), _within(x1, x2, size[1]))
            yield place, _sampled(mask, box, place)
        else:
            place = (_within(y1, y2 + 1, size[0]), _within(x1, x2 + 1, size[1]))
            yield place, _resized(mask, (x1, y1, x2, y2), place)


def _within(start: int, stop: int, length: int) -> slice:
    start = min(max(start, 0), length)
    return slice(start, max(min(stop, length), start))


def _sampled(mask: Tensor, box: Tensor, place: Place) -> Tensor:
    """The mask at the centres of the pixels of a place."""
    if place[0].start == place[0].stop or place[1].start == place[1].stop:
        return mask.new_zeros(place[0].stop - place[0].start, place[1].stop - place[1].start)
    x1, y1, x2, y2 = box
    y = torch.arange(place[0].start, place[0].stop, device=mask.device, dtype=mask.dtype) + 0.5
    x = torch.arange(place[1].start, place[1].stop, device=mask.device, dtype=mask.dtype) + 0.5
    y, x = (y - y1) / (y2 - y1) * 2 - 1, (x - x1) / (x2 - x1) * 2 - 1
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    grid = torch.stack((columns, rows), dim=-1)
    return F.grid_sample(mask[None, None], grid[None], align_corners=False)[0, 0]


def _resized(mask: Tensor, box: Sequence[int], place: Place) -> Tensor:
    """The mask resized to a box of whole pixels, both ends included, and cut to the frame."""
    x1, y1, x2, y2 = box
    size = (max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1))
    whole = F.interpolate(mask[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]
    rows = slice(place[0].start - y1, place[0].stop - y1)
    columns = slice(place[1].start - x1, place[1].stop - x1)
    return whole[rows, columns]
