"""Folders of pictures beside folders of masks: one mask per object, or a label map of classes.

``images/a.jpg`` and ``masks/a.png`` (or ``a_mask.png``) are an image; ``images/clip/00000.jpg``, …
and ``masks/clip/00000.png``, … a video. A pixel of a mask is the number of its object (Penn-Fudan,
DAVIS), 0 the background; a pixel of a label map is its class (ADE20K, Cityscapes).

A split is a folder of its name in both, as ``images/train``; or a text file ``train.txt`` of the
names of its images and videos; or, without either, everything there is.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from fvcore.common.config import CfgNode
from PIL import Image
from torch import Tensor

from videonet.data.datasets.arrays import MultiHot, PackedRows, PathArray
from videonet.data.datasets.form import DatasetForm, names_file
from videonet.data.datasets.lists import VideoList
from videonet.data.datasets.objects import (
    LABEL_MAPS,
    MASKS,
    VideoObjects,
    frames_of,
    object_targets,
    places_of_clip,
)
from videonet.data.masks import Rle, encode_masks, mask_boxes
from videonet.data.targets import Annotations, ClipFrames, TargetMaker
from videonet.data.texts import lines_of, read_text
from videonet.data.video.names import is_hidden, is_picture
from videonet.errors import DataError

PAIRS = (
    ("images", "masks"),
    ("images", "annotations"),
    ("frames", "masks"),
    ("PNGImages", "PedMasks"),
    ("JPEGImages", "Annotations"),
    ("JPEGImages", "SegmentationClass"),
    ("leftImg8bit", "gtFine"),
)
SPLIT_FOLDERS = {
    "train": ("train", "training"),
    "val": ("val", "validation", "valid"),
    "test": ("test", "testing", "val", "validation", "valid"),
}
# What stands in the name of a mask after, or instead of the end of, that of its picture.
CITYSCAPES = "_leftImg8bit"
ENDINGS = (("", ""), ("", "_mask"), (CITYSCAPES, "_gtFine_labelTrainIds"))
MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".gif")
MOST_CLASSES = 254
OBJECT = "object"  # the class of all objects, where nothing names it


@dataclass(frozen=True)
class MaskFiles:
    """The mask files of an image or video.

    Attributes:
        place: the folder or file of its masks, for messages.
        video: its number in the list.
        files: one per frame.
        frames: the names of its pictures; None for an image.
        start: the place of the first frame in the whole video.
        ignored: value of pixels that do not count; -1 for none.
        shift: the value of the first class in a label map.
        num_classes: of label maps.
    """

    place: str
    video: int
    files: tuple[str, ...]
    frames: tuple[str, ...] | None = None
    start: int = 0
    ignored: int = -1
    shift: int = 0
    num_classes: int = 0

    def label_map(self, frame: int) -> np.ndarray:
        """Class + 1 of every pixel of a frame, 0 where it does not count; uint8 (H, W)."""
        values = read_mask(self.files[frame]).astype(np.int32)
        labels = np.where(values == self.ignored, 0, values - self.shift + 1)
        wrong = (labels < 0) | (labels > self.num_classes)
        if wrong.any():
            raise DataError(
                f"{self.files[frame]}: the pixel {values[wrong][0]} is no class, expected "
                f"{self.shift} … {self.num_classes - 1 + self.shift} or {self.ignored}"
            )
        return labels.astype(np.uint8)

    def objects(self, frames: Sequence[int] | None = None) -> VideoObjects:
        """The objects of some frames, in this order, or of all; every one is of class 0."""
        frames = range(len(self.files)) if frames is None else frames
        maps = [read_mask(self.files[frame]) for frame in frames]
        sizes = {one.shape for one in maps}
        if len(sizes) > 1:
            raise DataError(f"{self.place}: its masks have {len(sizes)} sizes, expected one")
        values = sorted({int(value) for one in maps for value in np.unique(one)} - {0})
        shapes = [tuple(_mask_of(one, value) for one in maps) for value in values]
        return VideoObjects(
            self.place,
            self.video,
            (maps[0].shape[0], maps[0].shape[1]),
            labels=(0,) * len(values),
            ids=tuple(values),
            crowd=(False,) * len(values),
            boxes=tuple(tuple(_box(mask) for mask in track) for track in shapes),
            masks=tuple(shapes),
            areas=(None,) * len(values),
            seen=(True,) * len(maps),
            frames=self.frames,
            start=self.start,
        )

    def part(self, start: int, stop: int) -> MaskFiles:
        """Some consecutive frames."""
        names = None if self.frames is None else self.frames[start:stop]
        files = self.files[start:stop]
        return replace(self, files=files, frames=names, start=self.start + start)


def _mask_of(pixels: np.ndarray, value: int) -> Rle | None:
    mask = pixels == value
    return encode_masks(mask[None])[0] if mask.any() else None


def _box(mask: Rle | None) -> list[float] | None:
    return None if mask is None else mask_boxes([mask])[0].tolist()


def read_mask(file: str) -> np.ndarray:
    """The pixels of a mask (H, W); of a picture with a palette, their numbers in it.

    Raises:
        DataError: it cannot be read, or has colours instead of numbers.
    """
    try:
        with Image.open(file, formats=("PNG", "BMP", "TIFF", "GIF")) as picture:
            pixels = np.asarray(picture)
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{file}: the mask cannot be read: {error}") from None
    if pixels.ndim != 2:
        raise DataError(
            f"{file}: the mask has {pixels.shape[-1]} colours per pixel, expected one number"
        )
    return pixels.astype(np.uint8) if pixels.dtype == bool else pixels


class MaskFolders(DatasetForm):
    """Objects of one class, each with a number of its own in the masks."""

    several_labels = True

    def find(self, cfg: CfgNode, split: str) -> Path:
        """The list of a split, or the folder of the data set."""
        named = super().find(cfg, split)
        if named.is_file():
            return named
        folder = Path(cfg.DATA.PATH_TO_DATA_DIR)
        text = folder / f"{split}.txt"
        return text if text.is_file() else folder

    def find_test(self, cfg: CfgNode) -> Path:
        """The list that the config names, else ``test.txt``, else that of the validation."""
        folder = Path(cfg.DATA.PATH_TO_DATA_DIR)
        if cfg.DATA.TEST_LIST:
            return folder / cfg.DATA.TEST_LIST
        text = folder / "test.txt"
        return text if text.is_file() else self.find(cfg, "val")

    def own_classes(self, cfg: CfgNode, split: str) -> tuple[Path, list[str]] | None:
        """One, whatever it is."""
        return None if names_file(cfg) else (Path(cfg.DATA.PATH_TO_DATA_DIR), [OBJECT])

    def read(self, cfg: CfgNode, path: Path, names: list[str]) -> VideoList:
        """Everything in the folders, or what a list names."""
        return self.read_split(cfg, path, names, "train")

    def read_split(self, cfg: CfgNode, path: Path, names: list[str], split: str) -> VideoList:
        """The images and videos of a split."""
        maker = TargetMaker(MASKS, instances_of_files, frames=frames_of)
        return _video_list(path, _found(cfg, path, split), maker, 1)


class LabelMapFolders(MaskFolders):
    """Label maps of classes."""

    def own_classes(self, cfg: CfgNode, split: str) -> tuple[Path, list[str]] | None:
        """A label map names no classes."""
        return None

    def read_split(self, cfg: CfgNode, path: Path, names: list[str], split: str) -> VideoList:
        """The images and videos of a split."""
        if len(names) > MOST_CLASSES:
            raise DataError(f"{path}: {len(names)} classes, but label maps hold {MOST_CLASSES}")
        settings = {
            "ignored": cfg.DATA.IGNORED_LABEL,
            "shift": int(cfg.DATA.REDUCE_ZERO_LABEL),
            "num_classes": len(names),
        }
        rows = [(name, replace(row, **settings)) for name, row in _found(cfg, path, split)]
        maker = TargetMaker(LABEL_MAPS, labels_of_files, frames=frames_of)
        return _video_list(path, rows, maker, len(names))


def instances_of_files(files: MaskFiles, clip: ClipFrames) -> dict[str, Tensor]:
    """The targets of a clip: a row for every object in each of its frames."""
    wanted, places = np.unique(clip.indices, return_inverse=True)
    objects = files.objects(wanted.tolist())
    _check_size(files, objects.size, clip)
    return object_targets(objects, places.tolist(), clip)


def labels_of_files(files: MaskFiles, clip: ClipFrames) -> dict[str, Tensor]:
    """The targets of a clip: its label maps."""
    from torchvision.tv_tensors import Mask

    maps = [torch.from_numpy(files.label_map(frame)) for frame in clip.indices.tolist()]
    for one in maps:
        _check_size(files, tuple(one.shape), clip)
    seen = np.ones(len(maps), dtype=bool)
    return {"label_map": Mask(torch.stack(maps)), **places_of_clip(clip, seen, files.start)}


def _check_size(files: MaskFiles, size: tuple[int, ...], clip: ClipFrames) -> None:
    if size != clip.size:
        raise DataError(
            f"{files.place}: its mask has {size[1]} x {size[0]} pixels, its picture "
            f"{clip.size[1]} x {clip.size[0]}"
        )


def _video_list(
    path: Path, rows: list[tuple[str, MaskFiles]], maker: TargetMaker, num_classes: int
) -> VideoList:
    return VideoList(
        str(path),
        PathArray([name for name, _ in rows]),
        MultiHot([[] for _ in rows], num_classes),  # masks are not read before they are needed
        str(path if path.is_dir() else path.parent),
        Annotations(PackedRows([row for _, row in rows]), maker),
    )


def _found(cfg: CfgNode, path: Path, split: str) -> list[tuple[str, MaskFiles]]:
    """The images and videos of a split, each with its masks."""
    folder = Path(cfg.DATA.PATH_TO_DATA_DIR)
    pictures, shapes = _folders(folder, split, cfg.DATA.IMAGE_FOLDER, cfg.DATA.MASK_FOLDER)
    if path.is_file():
        lines = lines_of(read_text(path, "list of images", names=True))
        names = [(line.strip(), f"{path}, line {k}") for k, line in enumerate(lines, 1)]
    else:
        names = [(name, str(pictures)) for name in _names_in(pictures)]
    names = [(name, place) for name, place in names if name]
    rows = [_row(pictures, shapes, name, place, k) for k, (name, place) in enumerate(names)]
    if not rows:
        raise DataError(f"{path}: there are no pictures")
    if not (cfg.TEST.EVERY_FRAME and split in ("val", "test")):
        return rows
    length = cfg.DATA.NUM_FRAMES
    return [
        (name, row.part(start, start + length))
        for name, row in rows
        for start in range(0, len(row.files), length)
    ]


def _folders(folder: Path, split: str, images: str, shapes: str) -> tuple[Path, Path]:
    """The folders of pictures and masks of a split."""
    pairs = [(images or one, shapes or other) for one, other in PAIRS]
    for one, other in pairs:
        pictures, found = folder / one, folder / other
        if not pictures.is_dir() or not found.is_dir():
            continue
        for name in SPLIT_FOLDERS.get(split, ()):
            if (pictures / name).is_dir() and (found / name).is_dir():
                return pictures / name, found / name
        return pictures, found
    wanted = " or ".join(dict.fromkeys(f"{one} and {other}" for one, other in pairs))
    raise DataError(f"{folder}: there are no folders {wanted}")


def _names_in(folder: Path) -> list[str]:
    """Pictures and folders of them; those of Cityscapes lie one folder down, by city."""
    found = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if is_hidden(entry.name):
            continue
        if entry.is_dir():
            inside = sorted(name for name in os.listdir(entry.path) if is_picture(name))
            if inside and all(Path(name).stem.endswith(CITYSCAPES) for name in inside):
                found += [f"{entry.name}/{name}" for name in inside]
            elif inside:
                found.append(entry.name)
        elif is_picture(entry.name):
            found.append(entry.name)
    return found


def _row(pictures: Path, shapes: Path, name: str, place: str, number: int) -> tuple[str, MaskFiles]:
    """The picture or folder of a name, and its masks."""
    picture = pictures / name
    if picture.is_dir():
        inside = sorted(one for one in os.listdir(picture) if is_picture(one))
        pairs = [(one, mask) for one in inside if (mask := _mask_file(shapes / name, one))]
        if not pairs:
            raise DataError(f"{place}: there are no masks of the frames of {name} in {shapes}")
        frames, files = zip(*pairs, strict=True)  # frames without a mask are not annotated
        return str(picture), MaskFiles(str(shapes / name), number, files, frames)
    if not picture.is_file():
        found = [one for one in pictures.glob(f"{name}.*") if is_picture(one.name)]
        if len(found) != 1:
            raise DataError(f"{place}: there is no picture {name} in {pictures}")
        picture = found[0]
    mask = _mask_file(shapes / Path(name).parent, picture.name)
    if mask is None:
        raise DataError(f"{place}: there is no mask of {name} in {shapes}")
    return str(picture), MaskFiles(mask, number, (mask,))


def _mask_file(folder: Path, picture: str) -> str | None:
    """The mask of a picture; None where there is none."""
    stem = Path(picture).stem
    for end, instead in ENDINGS:
        if stem.endswith(end):
            for suffix in MASK_SUFFIXES:
                file = folder / f"{stem.removesuffix(end)}{instead}{suffix}"
                if file.is_file():
                    return str(file)
    return None
