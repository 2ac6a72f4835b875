"""What there is to know of a form that data sets come in, one class per form."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from fvcore.common.config import CfgNode

from videonet.data.datasets.lists import SHARDS, VideoList, has_named_labels, read_list
from videonet.data.datasets.shards import is_shards, read_shards
from videonet.data.transforms.sampling import DENSE
from videonet.errors import DataError

logger = logging.getLogger(__name__)


def tells_names(names: Sequence[str]) -> bool:
    """Whether these are names, and not the numbers of classes without names."""
    return list(names) != [str(index) for index in range(len(names))]


def names_file(cfg: CfgNode) -> Path | None:
    """The file that names the classes: ``DATA.CLASS_NAMES``, or ``classes.txt`` if it is there."""
    if cfg.DATA.CLASS_NAMES:
        path = Path(cfg.DATA.CLASS_NAMES)
        if not path.is_file():
            raise DataError(f"the class names {path} do not exist")
        return path
    path = Path(cfg.DATA.PATH_TO_DATA_DIR) / "classes.txt"
    return path if path.is_file() else None


def _or_shards(path: Path) -> Path:
    """A list, or the list of tar files that lies in its place."""
    shards = path.with_suffix(SHARDS)
    return shards if shards.is_file() and not path.exists() else path


class DatasetForm(ABC):
    """How the videos and annotations of a data set lie on the disk.

    Attributes:
        sampling: of clips where ``DATA.SAMPLING`` is ``auto``.
        mirrors: a mirrored video has the same labels.
        several_labels: a video may have any number of labels.
        spells_classes: labels are found by the names of the classes as the data spells them.
        names_beside: a file ``classes.txt`` beside the lists names the classes.
        test_name: of the test data in its folder, where the config names none.
    """

    sampling = DENSE
    mirrors = True
    several_labels = False
    spells_classes = False
    names_beside = True
    test_name = "test.csv"

    def find(self, cfg: CfgNode, split: str) -> Path:
        """The list of ``train`` or ``val``, or its folder."""
        name = cfg.DATA.TRAIN_LIST if split == "train" else cfg.DATA.VAL_LIST
        return _or_shards(Path(cfg.DATA.PATH_TO_DATA_DIR) / name)

    def find_test(self, cfg: CfgNode) -> Path:
        """That of the test; where there is none, the validation is tested on."""
        folder = Path(cfg.DATA.PATH_TO_DATA_DIR)
        if cfg.DATA.TEST_LIST:
            return folder / cfg.DATA.TEST_LIST
        own = _or_shards(folder / self.test_name)
        if own.exists():
            return own
        path = self.find(cfg, "val")
        logger.info("no test list in %s: testing on %s", folder, path.name)
        return path

    def own_classes(self, cfg: CfgNode, split: str) -> tuple[Path, list[str]] | None:
        """Where the data itself names its classes, and the names; None where it does not."""
        return None

    @abstractmethod
    def read(self, cfg: CfgNode, path: Path, names: list[str]) -> VideoList:
        """The videos at ``path`` with their labels and, where it has more, annotations.

        Args:
            names: of the classes, in the order of their numbers.

        Raises:
            DataError: the data cannot be used.
        """

    def read_split(self, cfg: CfgNode, path: Path, names: list[str], split: str) -> VideoList:
        """The videos of a split; by default those of its list, see :meth:`read`."""
        return self.read(cfg, path, names)


class Lists(DatasetForm):
    """Lists of lines ``path label``, as those of Kinetics, or of tar files."""

    def read(self, cfg: CfgNode, path: Path, names: list[str]) -> VideoList:
        """See :func:`~videonet.data.datasets.lists.read_list` and ``shards.read_shards``."""
        if is_shards(path):
            return read_shards(path, len(names), multi_label=self.several_labels)
        return read_list(
            path,
            len(names),
            prefix=cfg.DATA.PATH_PREFIX,
            separator=cfg.DATA.PATH_LABEL_SEPARATOR,
            multi_label=self.several_labels,
            names=names if tells_names(names) else (),
            numbers=names_file(cfg) is not None or not self._names_are_labels(cfg),
        )

    def _names_are_labels(self, cfg: CfgNode) -> bool:
        """Whether nothing but the labels of the training list names the classes."""
        if self.own_classes(cfg, "train") is not None:
            return False
        path = self.find(cfg, "train")
        separator = cfg.DATA.PATH_LABEL_SEPARATOR
        return path.is_file() and has_named_labels(path, separator, self.several_labels)


class MultiLabelLists(Lists):
    """Lists with any number of labels a line."""

    several_labels = True
