"""Names of the classes."""

from __future__ import annotations

from pathlib import Path

from fvcore.common.config import CfgNode

from videonet.data.folders import class_folders
from videonet.data.something import find_file, read_labels
from videonet.data.texts import lines_of, read_text
from videonet.errors import DataError


def class_names(cfg: CfgNode) -> list[str]:
    """One name per class, from ``DATA.CLASS_NAMES``, else ``classes.txt`` beside the lists.

    Without either they are what the data set calls its classes (the folders of ``folder``,
    ``labels.json`` of ``ssv2``), or else the numbers of the classes.

    Raises:
        DataError: the file is missing or does not name ``MODEL.NUM_CLASSES`` classes.
    """
    folder = Path(cfg.DATA.PATH_TO_DATA_DIR)
    path = Path(cfg.DATA.CLASS_NAMES or folder / "classes.txt")
    if not path.is_file():
        if cfg.DATA.CLASS_NAMES:
            raise DataError(f"the class names {path} do not exist")
        if cfg.TRAIN.DATASET == "folder":
            return folder_classes(cfg)
        labels = find_file(folder, "labels") if cfg.TRAIN.DATASET == "ssv2" else None
        numbers = [str(index) for index in range(cfg.MODEL.NUM_CLASSES)]
        return _counted(cfg, labels, read_labels(labels)) if labels else numbers
    names = [line.strip() for line in lines_of(read_text(path, "class names"))]
    return _counted(cfg, path, [name for name in names if name])


def folder_classes(cfg: CfgNode) -> list[str]:
    """The classes of a data set of one folder per class: the folders of its training data."""
    folder = Path(cfg.DATA.PATH_TO_DATA_DIR)
    train = folder / cfg.DATA.TRAIN_LIST
    train = train if train.is_dir() else folder / "train"
    return _counted(cfg, train, class_folders(train))


def _counted(cfg: CfgNode, path: Path, names: list[str]) -> list[str]:
    if len(names) != cfg.MODEL.NUM_CLASSES:
        raise DataError(
            f"{path} names {len(names)} classes, but MODEL.NUM_CLASSES is {cfg.MODEL.NUM_CLASSES}"
        )
    return names
