"""Names of the classes, and how many there are.

Names decide: every split is read into the order of :func:`class_names`, whichever form it has.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fvcore.common.config import CfgNode

from videonet.config.checks import LARGEST
from videonet.data.datasets.form import names_file
from videonet.data.datasets.lists import has_named_labels, label_texts
from videonet.data.datasets.registry import dataset_form, find_list
from videonet.data.datasets.shards import is_shards, shard_labels
from videonet.data.texts import lines_of, read_text
from videonet.errors import DataError


def class_names(cfg: CfgNode, split: str = "train") -> list[str]:
    """One name per class, in the order of the labels of a split.

    From ``DATA.CLASS_NAMES``, else ``classes.txt`` beside the lists. Without either they are what
    the data set calls its classes: folders, ``labels.json`` of Something-Something, the labels of
    the training list where they are names, in alphabetical order; or else the numbers of the
    classes.

    Raises:
        DataError: the file is missing, or there are not ``MODEL.NUM_CLASSES`` (0 for any number).
    """
    path = _names_path(cfg, split)
    if path is not None:
        return _counted(cfg, path, _read_names(path))
    found = _names_of_data(cfg, split)
    if found is not None:
        return _counted(cfg, *found)
    return [str(index) for index in range(known_classes(cfg, split).MODEL.NUM_CLASSES)]


def known_classes(cfg: CfgNode, split: str = "train") -> CfgNode:
    """The config with ``MODEL.NUM_CLASSES``, counted in the data where it is 0.

    Args:
        split: whose form of data set to look at.

    Raises:
        DataError: the data does not say how many there are.
    """
    if cfg.MODEL.NUM_CLASSES:
        return cfg
    path = _names_path(cfg, split)
    if path is not None:
        return with_classes(cfg, len(_read_names(path)))
    found = _names_of_data(cfg, split)
    if found is not None:
        return with_classes(cfg, len(found[1]))
    largest = -1
    for part in ("train", "val") if split != "test" else ("train", "val", "test"):
        path = find_list(cfg, part)
        if path.is_file() and path.suffix != ".json":
            largest = max([largest, *map(int, _label_texts(cfg, part, path))])
    if largest < 0:
        raise DataError(
            f"{find_list(cfg, split)}: there is no list to count the classes in: give "
            "MODEL.NUM_CLASSES"
        )
    if largest >= LARGEST["MODEL.NUM_CLASSES"]:
        raise DataError(
            f"{find_list(cfg, split)}: {largest:,} is the largest label, but there are at most "
            f"{LARGEST['MODEL.NUM_CLASSES']:,} classes"
        )
    return with_classes(cfg, largest + 1)


def with_classes(cfg: CfgNode, count: int) -> CfgNode:
    """The config with another ``MODEL.NUM_CLASSES``."""
    changed = cfg.clone()
    changed.defrost()
    changed.MODEL.NUM_CLASSES = count
    changed.freeze()
    return changed


def label_names(cfg: CfgNode, split: str = "train") -> list[str]:
    """The names by which the labels of a split are found, in the order of the classes' numbers.

    They are :func:`class_names`, unless the labels are the names that the data has for the classes,
    as those of folders are. Then a file of names gives the order where it holds the data's names;
    where it holds none of them, its names are titles of the data's in alphabetical order.

    Raises:
        DataError: the file names some of the data's classes, but not all.
    """
    form = dataset_form(cfg, split)
    found = form.own_classes(cfg, split) if form.spells_classes else None
    if found is None:
        return class_names(cfg, split)
    place, own = found
    path = _names_path(cfg, split)
    if path is None:
        return _counted(cfg, place, own)
    names = _counted(cfg, path, _read_names(path))
    missing = [name for name in own if name not in set(names)]
    if missing and len(missing) < len(own):
        raise DataError(f"{path} does not name the class {missing[0]!r} of {place}")
    return _counted(cfg, place, own) if missing else names


def refuse_single_class(cfg: CfgNode) -> None:
    """Refuse to tell one class from no other.

    Raises:
        DataError: there is one class and a video has exactly one label.
    """
    if cfg.MODEL.NUM_CLASSES == 1 and cfg.MODEL.LOSS_FUNC != "bce_logit":
        raise DataError(
            "MODEL.NUM_CLASSES is 1, so every video has the same label and there is nothing to "
            "learn: give a second class, or use TRAIN.DATASET multilabel with MODEL.LOSS_FUNC "
            "bce_logit for one class that a video may have or not"
        )


def _names_path(cfg: CfgNode, split: str) -> Path | None:
    """The file of names, where there is one."""
    beside = dataset_form(cfg, split).names_beside
    return names_file(cfg) if cfg.DATA.CLASS_NAMES or beside else None


def _read_names(path: Path) -> list[str]:
    lines = lines_of(read_text(path, "class names"))
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise DataError(f"{path} names no classes, expected one name a line")
    places: dict[str, int] = {}
    for index, name in enumerate(names):
        if places.setdefault(name, index) != index:
            raise DataError(f"{path} names the class {name!r} twice")
    return names


def _names_of_data(cfg: CfgNode, split: str) -> tuple[Path, list[str]] | None:
    """Where the data itself names its classes, and the names."""
    found = dataset_form(cfg, split).own_classes(cfg, split)
    if found is not None:
        return found
    path = find_list(cfg, "train")
    if not path.is_file() or path.suffix == ".json":
        return None
    reading = _reading(cfg, "train")
    if not has_named_labels(path, *reading):
        return None
    return path, sorted(set(label_texts(path, *reading)))


def _label_texts(cfg: CfgNode, split: str, path: Path) -> list[str]:
    """All labels of a list as they are written."""
    return shard_labels(path) if is_shards(path) else label_texts(path, *_reading(cfg, split))


def _reading(cfg: CfgNode, split: str) -> tuple[str, bool]:
    """The separator of a list, and whether a line may have several labels."""
    return cfg.DATA.PATH_LABEL_SEPARATOR, dataset_form(cfg, split).several_labels


def _counted(cfg: CfgNode, path: Path, names: Sequence[str]) -> list[str]:
    if cfg.MODEL.NUM_CLASSES and len(names) != cfg.MODEL.NUM_CLASSES:
        raise DataError(
            f"{path} names {len(names)} classes, but MODEL.NUM_CLASSES is {cfg.MODEL.NUM_CLASSES}"
        )
    return list(names)
