"""Which list or folder of a data set belongs to a split."""

from __future__ import annotations

import logging
from pathlib import Path

from fvcore.common.config import CfgNode

from videonet.data.ssv2 import find_file

logger = logging.getLogger(__name__)


def list_kind(cfg: CfgNode, split: str) -> str:
    """The form of a split: kinetics, ssv2, folder or multilabel."""
    return (cfg.TEST if split == "test" else cfg.TRAIN).DATASET.lower()


def find_list(cfg: CfgNode, split: str) -> Path:
    """The list of a split, or its folder; without one for the test, the validation is tested on.

    A name of the config that does not exist gives way to the name that the kind of data set has:
    ``validation.json`` for ssv2, the folder ``val`` for folder.
    """
    data, kind = cfg.DATA, list_kind(cfg, split)
    folder = Path(data.PATH_TO_DATA_DIR)
    if split == "test" and data.TEST_LIST:
        return folder / data.TEST_LIST
    if split == "test":
        own = folder / ("test" if kind == "folder" else "test.csv")
        if own.exists():
            return own
        path = _find(cfg, "val", kind)
        logger.info("no test list in %s: testing on %s", folder, path.name)
        return path
    return _find(cfg, split, kind)


def _find(cfg: CfgNode, split: str, kind: str) -> Path:
    data, folder = cfg.DATA, Path(cfg.DATA.PATH_TO_DATA_DIR)
    path = folder / (data.TRAIN_LIST if split == "train" else data.VAL_LIST)
    if kind == "folder" and not path.is_dir():
        return folder / split
    if kind == "ssv2" and not path.exists():
        return find_file(folder, split) or path
    return path
