"""The forms that data sets come in: one file per form, and one line in ``DATASETS``."""

from __future__ import annotations

import difflib
from pathlib import Path

from fvcore.common.config import CfgNode

from videonet.data.datasets.boundary_patches import BoundaryPatches
from videonet.data.datasets.coco import CocoJson
from videonet.data.datasets.folders import Folders
from videonet.data.datasets.form import DatasetForm, Lists, MultiLabelLists
from videonet.data.datasets.mask_folders import LabelMapFolders, MaskFolders
from videonet.data.datasets.ssv2 import SomethingSomething
from videonet.errors import ConfigError

DATASETS: dict[str, DatasetForm] = {
    "kinetics": Lists(),
    "ssv2": SomethingSomething(),
    "folder": Folders(),
    "multilabel": MultiLabelLists(),
    "coco": CocoJson(),
    "youtube_vis": CocoJson(),
    "masks": MaskFolders(),
    "boundary_patches": BoundaryPatches(),
    "label_maps": LabelMapFolders(),
}


def dataset_form(cfg: CfgNode, split: str) -> DatasetForm:
    """The form of the data of a split: ``TEST.DATASET`` of the test, else ``TRAIN.DATASET``.

    Raises:
        ConfigError: there is no such form.
    """
    key = "TEST" if split == "test" else "TRAIN"
    name = cfg[key].DATASET.lower()
    if name not in DATASETS:
        near = difflib.get_close_matches(name, DATASETS, n=1) or sorted(DATASETS)
        raise ConfigError(
            f"{key}.DATASET is {cfg[key].DATASET!r}: did you mean {' or '.join(near)}?"
        )
    return DATASETS[name]


def find_list(cfg: CfgNode, split: str) -> Path:
    """The list of a split, or its folder, see :class:`DatasetForm`."""
    form = dataset_form(cfg, split)
    return form.find_test(cfg) if split == "test" else form.find(cfg, split)
