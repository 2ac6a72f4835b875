"""Names of the classes."""

from __future__ import annotations

from pathlib import Path

from fvcore.common.config import CfgNode

from videonet.errors import DataError


def class_names(cfg: CfgNode) -> list[str]:
    """One name per class, from ``DATA.CLASS_NAMES``, else ``classes.txt`` beside the lists.

    Without either the names are the numbers of the classes.

    Raises:
        DataError: the file is missing or does not name ``MODEL.NUM_CLASSES`` classes.
    """
    path = Path(cfg.DATA.CLASS_NAMES or Path(cfg.DATA.PATH_TO_DATA_DIR) / "classes.txt")
    if not path.is_file():
        if cfg.DATA.CLASS_NAMES:
            raise DataError(f"the class names {path} do not exist")
        return [str(index) for index in range(cfg.MODEL.NUM_CLASSES)]
    names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    names = [name for name in names if name]
    if len(names) != cfg.MODEL.NUM_CLASSES:
        raise DataError(
            f"{path} names {len(names)} classes, but MODEL.NUM_CLASSES is {cfg.MODEL.NUM_CLASSES}"
        )
    return names
