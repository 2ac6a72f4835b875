"""Patches along the boundaries of coarse masks, with the true masks there: BPR's training set.

The objects are those of COCO or YouTube-VIS. Coarse masks are those of a file of results, whose
truth is the object of the same class that they overlap most, or the true masks made coarse. Each
patch is a row of its own: where it is, and what the coarse and the true mask are there.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from fvcore.common.config import CfgNode
from torch import Tensor

from videonet.data.datasets.arrays import PackedRows, PathArray
from videonet.data.datasets.coco import CocoJson, read_json, read_objects
from videonet.data.datasets.lists import VideoList
from videonet.data.datasets.objects import Frames, VideoObjects, check_size, frames_of
from videonet.data.datasets.results import bitmaps_of, place_of, read_results
from videonet.data.masks import decode_masks
from videonet.data.targets import Annotations, ClipFrames, TargetMaker, TargetSpec
from videonet.errors import DataError
from videonet.ops.boundary_patches import PatchRule, cut_patches, find_patches

COARSE, TRUTH, CORNER = "coarse", "truth", "corner"  # targets
SPECS = {
    COARSE: TargetSpec(torch.bool, ("T", "H", "W")),
    TRUTH: TargetSpec(torch.bool, ("T", "H", "W")),
    CORNER: TargetSpec(torch.int64, (2,)),
}


@dataclass(frozen=True)
class PatchRow:
    """A patch of one object.

    Attributes:
        place: file and entry, for messages.
        size: height and width of the frames.
        seen: one entry per frame of the patch.
        frames: of its video, see :class:`VideoObjects`.
        corner: x and y of its top left pixel, without padding.
        side: of the masks, in pixels.
        coarse: bits of the coarse mask (T, side, side).
        truth: bits of the true one.
    """

    place: str
    size: tuple[int, int]
    seen: tuple[bool, ...]
    frames: Frames
    corner: tuple[int, int]
    side: int
    coarse: bytes
    truth: bytes

    def bitmap(self, bits: bytes) -> Tensor:
        """Bits of a mask -> bool (T, side, side)."""
        shape = (len(self.seen), self.side, self.side)
        values = np.unpackbits(np.frombuffer(bits, np.uint8), count=int(np.prod(shape)))
        return torch.from_numpy(values.astype(bool)).reshape(shape)


class BoundaryPatches(CocoJson):
    """The patches of all objects of a split, as the keys ``BOUNDARY`` describe them."""

    def read_split(self, cfg: CfgNode, path: Path, names: list[str], split: str) -> VideoList:
        """See :func:`read_patches`."""
        keys = cfg.BOUNDARY
        predictions = keys.TRAIN_PREDICTIONS if split == "train" else keys.VAL_PREDICTIONS
        return _read_once(
            tuple(_changed(file) for file in (path, predictions)),
            path,
            PatchRule(keys.PATCH_SIZE, keys.PADDING, keys.TRAIN_OVERLAP, keys.EDGES),
            len(names),
            split=split,
            prefix=cfg.DATA.PATH_PREFIX,
            num_frames=cfg.DATA.NUM_FRAMES,
            predictions=predictions,
            min_iou=keys.MIN_IOU,
            cells=tuple(keys.COARSE_CELLS),
            seed=cfg.RNG_SEED,
        )


@functools.lru_cache(maxsize=2)
def _read_once(changed: tuple[int, ...], *arguments: Any, **options: Any) -> VideoList:
    """The patches of files that were changed last at these times: finding them takes minutes."""
    return read_patches(*arguments, **options)


def _changed(path: str | Path) -> int:
    """When a file was changed last; 0 where there is none."""
    return Path(path).stat().st_mtime_ns if str(path) and Path(path).is_file() else 0


def read_patches(
    path: Path,
    rule: PatchRule,
    num_classes: int | None = None,
    *,
    split: str = "",
    prefix: str = "",
    num_frames: int = 1,
    predictions: str | Path = "",
    min_iou: float = 0.5,
    cells: tuple[int, int] = (7, 14),
    seed: int = 0,
) -> VideoList:
    """The patches of all coarse masks of a split.

    Args:
        path: the objects, as :func:`videonet.data.datasets.coco.read_objects` reads them.
        rule: how patches are cut.
        num_classes, split, prefix: as there.
        num_frames: of a patch; a video is cut into parts of so many.
        predictions: a file of results whose masks are the coarse ones; empty for true masks that
            are made coarse.
        min_iou: predictions that overlap no true mask of their class more than that are left out;
            below 0 none is, and the truth of one that overlaps none is empty.
        cells: lowest and highest number of cells across an object that is made coarse.
        seed: of these numbers.

    Raises:
        DataError: names the file and the entry that cannot be used; or there is no patch.
    """
    videos = read_objects(path, num_classes, split=split, prefix=prefix, pieces=num_frames)
    assert videos.annotations is not None
    found = _predictions(Path(predictions), path) if predictions else None
    paths: list[str] = []
    rows: list[PatchRow] = []
    for k, video in enumerate(videos.paths):
        objects: VideoObjects = videos.annotations.rows[k]
        if found is None:
            pairs = made_coarse(objects, cells, seed)
        else:
            pairs = _predicted(objects, found.get(objects.video, []), min_iou)
        for _, coarse, truth in pairs:
            of_object = list(_rows_of(objects, coarse, truth, rule))
            paths += [video] * len(of_object)
            rows += of_object
    if not rows:
        raise DataError(f"{path}: no object has a boundary to cut patches along")
    labels = np.zeros(len(rows), dtype=np.int64)  # what class an object has does not matter
    return VideoList(
        videos.name,
        PathArray(paths),
        labels,
        videos.root,
        Annotations(PackedRows(rows), PATCHES),
    )


Pairs = Iterator[tuple[int, Tensor, Tensor]]  # class, coarse and true mask (T, H, W)


def made_coarse(objects: VideoObjects, cells: tuple[int, int], seed: int) -> Pairs:
    """Every true mask, made coarse by a number of cells that is the same in all its frames.

    Args:
        objects: of a video or an image.
        cells: the lowest and the highest number along each side of an object's box.
        seed: of the numbers.

    Yields:
        Class, coarse and true mask, bool (T, H, W).
    """
    for k, label in enumerate(objects.labels):
        if objects.crowd[k]:
            continue
        rng = np.random.default_rng((seed, abs(objects.video), abs(objects.ids[k])))
        number = int(rng.integers(cells[0], cells[1] + 1))
        truth = track_of(objects, k)
        yield label, torch.stack([make_coarse(mask, number) for mask in truth]), truth


def make_coarse(mask: Tensor, cells: int) -> Tensor:
    """A mask as a grid of so many cells along each side of its box would show it.

    Args:
        mask: bool (H, W).
        cells: along height and width; an object that has no more pixels stays as it is.
    """
    rows, columns = mask.any(dim=1).nonzero()[:, 0], mask.any(dim=0).nonzero()[:, 0]
    coarse = torch.zeros_like(mask)
    if not len(rows):
        return coarse
    part = np.s_[int(rows[0]) : int(rows[-1]) + 1, int(columns[0]) : int(columns[-1]) + 1]
    inside = mask[part].float()[None, None]
    size = inside.shape[2:]
    small = F.adaptive_avg_pool2d(inside, (min(cells, size[0]), min(cells, size[1])))
    coarse[part] = F.interpolate(small, size=size, mode="bilinear")[0, 0] > 0.5
    return coarse


def _predicted(objects: VideoObjects, found: Sequence[_Found], min_iou: float) -> Pairs:
    """Every predicted mask with the true one of its class that it overlaps most."""
    numbers = [k for k, crowd in enumerate(objects.crowd) if not crowd]
    tracks = {k: track_of(objects, k) for k in numbers}
    frames = _numbers(objects)
    for one in found:
        coarse = bitmaps_of(one.entry, objects.size, frames, one.place)
        if not coarse.any():
            continue
        best, truth = 0.0, torch.zeros_like(coarse)
        for k, track in tracks.items():
            if objects.labels[k] == one.label:
                iou = (coarse & track).sum().item() / (coarse | track).sum().item()
                if iou > best:
                    best, truth = iou, track
        if best > min_iou:
            yield one.label, coarse, truth


def _numbers(objects: VideoObjects) -> Sequence[int]:
    """The places of the frames in the whole video."""
    named = [frame for frame in objects.frames or () if isinstance(frame, int)]
    return named or range(objects.start, objects.start + len(objects.seen))


def track_of(objects: VideoObjects, number: int) -> Tensor:
    """The masks of an object in all frames, bool (T, H, W)."""
    track = torch.zeros(len(objects.seen), *objects.size, dtype=torch.bool)
    for frame in range(len(track)):
        if (rle := objects.rle(number, frame)) is not None:
            track[frame] = decode_masks([rle], objects.size)[0]
    return track


def _rows_of(
    objects: VideoObjects, coarse: Tensor, truth: Tensor, rule: PatchRule
) -> Iterator[PatchRow]:
    corners = find_patches(coarse, rule).corners
    pairs = zip(*(cut_patches(mask, corners, rule) for mask in (coarse, truth)), strict=True)
    for (x, y), (before, wanted) in zip(corners.tolist(), pairs, strict=True):
        yield PatchRow(
            objects.place,
            objects.size,
            objects.seen,
            objects.frames,
            (x, y),
            rule.side,
            np.packbits(before.numpy()).tobytes(),
            np.packbits(wanted.numpy()).tobytes(),
        )


@dataclass(frozen=True)
class _Found:
    """A detection in a file of results."""

    place: str
    label: int
    entry: Mapping[str, Any]


def _predictions(path: Path, data: Path) -> dict[int, list[_Found]]:
    """The detections of each image or video, with the classes of the data."""
    categories = sorted(one["id"] for one in read_json(data)["categories"])
    found: dict[int, list[_Found]] = {}
    for k, entry in enumerate(read_results(path)):
        place = f"{path}, detection {k}"
        if entry.get("category_id") not in categories:
            raise DataError(f"{place}: there is no category {entry.get('category_id')!r}")
        one = _Found(place, categories.index(entry["category_id"]), entry)
        found.setdefault(place_of(entry), []).append(one)
    return found


def patch_of_clip(row: PatchRow, clip: ClipFrames) -> dict[str, Tensor]:
    """The targets of a clip: both masks of the patch, and where it is in the frames."""
    from torchvision.tv_tensors import Mask

    check_size(row, clip)
    frames = torch.as_tensor(clip.indices, dtype=torch.int64)
    return {
        COARSE: Mask(row.bitmap(row.coarse)[frames]),
        TRUTH: Mask(row.bitmap(row.truth)[frames]),
        CORNER: torch.tensor(row.corner, dtype=torch.int64),
    }


PATCHES = TargetMaker(SPECS, patch_of_clip, frames=frames_of)
