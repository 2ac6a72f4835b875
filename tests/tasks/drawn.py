"""Small data sets of drawn shapes, with boxes, masks and label maps."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from videonet.data.masks import encode_masks, mask_boxes

CLASSES = ("square", "disc")
SIZE = (48, 64)


def shape(kind: int, centre: tuple[float, float], radius: float) -> np.ndarray:
    """A bitmap (H, W)."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    y, x = rows - centre[0], columns - centre[1]
    if kind == 0:
        return np.maximum(abs(y), abs(x)) <= radius
    return y * y + x * x <= radius * radius


def scene(seed: int, frames: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Pictures uint8 (T, H, W, 3) and masks (2, T, H, W): a square on the left, a disc."""
    rng = np.random.default_rng(seed)
    pictures = rng.integers(0, 60, (frames, *SIZE, 3), dtype=np.uint8)
    masks = np.zeros((2, frames, *SIZE), dtype=bool)
    for kind in (0, 1):
        centre = rng.uniform((14, 14 + 32 * kind), (34, 18 + 32 * kind))
        radius, speed = rng.uniform(7, 10), rng.uniform(-1, 1, 2)
        for t in range(frames):
            masks[kind, t] = shape(kind, centre + speed * t, radius)
            pictures[t][masks[kind, t]] = (230, 60, 40) if kind == 0 else (40, 90, 230)
    return pictures, masks


def write_images(folder: Path, train: int = 6, val: int = 3) -> Path:
    """A data set in COCO's form, and the same as label maps in ``maps``."""
    seed = 0
    for split, count in (("train", train), ("val", val)):
        images, annotations = [], []
        for _ in range(count):
            seed += 1
            pictures, masks = scene(seed)
            name = f"{split}_{seed}.png"
            (folder / "images").mkdir(parents=True, exist_ok=True)
            Image.fromarray(pictures[0]).save(folder / "images" / name)
            images.append({"id": seed, "file_name": name, "height": SIZE[0], "width": SIZE[1]})
            for kind, rle in enumerate(encode_masks(masks[:, 0])):
                entry = {"image_id": seed, "category_id": kind + 1, "iscrowd": 0, "area": 200}
                box = mask_boxes([rle])[0].tolist()
                annotations.append(
                    {"id": len(annotations) + 1, **entry, "segmentation": rle, "bbox": box}
                )
            labels = np.full(SIZE, 2, dtype=np.uint8)
            labels[masks[0, 0]], labels[masks[1, 0]] = 0, 1
            labels[:2] = 255
            for kind, array in (("images", pictures[0]), ("annotations", labels)):
                place = folder / "maps" / kind / split
                place.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(place / name)
        _write(folder / f"instances_{split}.json", {"images": images}, annotations)
    return folder


def write_videos(folder: Path, train: int = 4, val: int = 2, frames: int = 5) -> Path:
    """A data set in the form of YouTube-VIS, of folders of pictures."""
    seed = 100
    for split, count in (("train", train), ("val", val)):
        videos, annotations = [], []
        for _ in range(count):
            seed += 1
            pictures, masks = scene(seed, frames)
            place = folder / "frames" / str(seed)
            place.mkdir(parents=True, exist_ok=True)
            names = [f"{seed}/{t:03d}.png" for t in range(frames)]
            for name, picture in zip(names, pictures, strict=True):
                Image.fromarray(picture).save(folder / "frames" / name)
            videos.append(
                {"id": seed, "file_names": names, "height": SIZE[0], "width": SIZE[1],
                 "length": frames}
            )  # fmt: skip
            for kind in (0, 1):
                annotations.append(
                    {"id": len(annotations) + 1, "video_id": seed, "category_id": kind + 1,
                     "segmentations": encode_masks(masks[kind])}
                )  # fmt: skip
        _write(folder / f"instances_{split}.json", {"videos": videos}, annotations)
    return folder


def _write(path: Path, content: dict, annotations: list) -> None:
    categories = [{"id": k, "name": name} for k, name in enumerate(CLASSES, 1)]
    content = {**content, "categories": categories, "annotations": annotations}
    path.write_text(json.dumps(content))
