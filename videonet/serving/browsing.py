"""The clips of a list with what a model says of them: losses, suspected labels, duplicates."""

from __future__ import annotations

import csv
import hashlib
import logging
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from videonet.data.datasets.lists import VideoList
from videonet.data.tables import text_of
from videonet.data.texts import lines_of, read_text
from videonet.errors import ConfigError, DataError, DecodeError, ScoreError
from videonet.serving.limits import Refusal
from videonet.serving.schemas import ClipPage, ClipRow
from videonet.terminal import printable

if TYPE_CHECKING:
    from videonet.serving.service import Service

logger = logging.getLogger(__name__)

ORDERS = ("list", "loss", "suspect", "duplicates")
LEAST = 1e-12  # a score of 0 has a finite loss
BLOCK = 2**20


class Browser:
    """The clips of a list, one label each.

    Args:
        videos: the list.
        classes: names of its labels.
        predictions: a ``predictions.csv`` or ``scores.csv`` of a test; None for scores that are
            computed while the page is open.
        anywhere: show files outside the list's folder too.

    Raises:
        ConfigError: videos have several labels.
        DataError: the predictions cannot be read, or are of other videos.
    """

    def __init__(
        self,
        videos: VideoList,
        classes: Sequence[str],
        predictions: Path | None = None,
        *,
        anywhere: bool = False,
    ):
        if videos.is_multi_label:
            raise ConfigError(f"{videos.name} has several labels a video; one is expected")
        self.name, self.classes = Path(videos.name).name, list(classes)
        self._videos, self._anywhere = videos, anywhere
        self._root = os.path.realpath(videos.root or ".")
        self._labels = np.asarray(videos.labels)
        count = len(videos)
        self._guess = np.full(count, -1)  # the class with the highest score, -1 for none
        self._score, self._of_label = np.full(count, np.nan), np.full(count, np.nan)
        self._groups = duplicate_groups(list(videos.paths))
        self._given = predictions is not None
        if predictions is not None:
            self._read(predictions)

    def path(self, index: int) -> str:
        """The file of a clip.

        Raises:
            Refusal: there is no such clip, or its file lies outside the list's folder.
        """
        if not 0 <= index < len(self._videos):
            raise Refusal(404, f"the list has {len(self._videos)} clips, no number {index}")
        path = os.path.realpath(self._videos.paths[index])
        if not self._anywhere and not Path(path).is_relative_to(self._root):
            raise Refusal(403, "this clip lies outside the folder of its list (--anywhere)")
        if not os.path.isfile(path):
            raise Refusal(404, "this clip is not there, or is no file")
        return path

    async def score(self, service: Service) -> None:
        """Score the clips one by one with the first model, unless they come with scores.

        Args:
            service: has the model.
        """
        if self._given or not service.models:
            return
        if not service.predictors:
            logger.warning("the model labels no videos: no clip is scored")
            return
        names = next(iter(service.predictors.values())).class_names
        if names != self.classes:
            logger.warning("the model's classes are not those of the list: no clip is scored")
            return
        for index in range(len(self._videos)):
            try:
                scores = (await service.scores(self.path(index))).numpy()
            except (DecodeError, ScoreError, Refusal) as error:
                logger.warning("clip %d is not scored: %s", index, error)
                continue
            self._guess[index] = guess = int(scores.argmax())
            self._score[index], self._of_label[index] = scores[guess], scores[self._labels[index]]

    def page(
        self, order: str, label: str, text: str, first: int, count: int, confidence: float | None
    ) -> ClipPage:
        """Some clips.

        Args:
            order: one of ``ORDERS``; the last two leave out what is not one.
            label: name of a class; empty for all.
            text: is in the name; empty for all.
            first: number of the first one.
            count: the most that are given.
            confidence: the least score of a wrong prediction that makes a label suspect; None for
                the mean score of its class, see :meth:`suspects`.

        Raises:
            Refusal: there is no such order or class.
        """
        if order not in ORDERS:
            raise Refusal(422, f"clips are ordered by {', '.join(ORDERS)}, not by {order}")
        if label and label not in self.classes:
            raise Refusal(422, "the list has no class of this name")
        chosen = np.arange(len(self._labels))
        if order == "loss":
            known = np.flatnonzero(~np.isnan(self._of_label))
            chosen = known[np.argsort(self._of_label[known], kind="stable")]
        elif order == "suspect":
            chosen = self.suspects(confidence)
        elif order == "duplicates":
            groups = np.asarray([self._groups.get(k, -1) for k in range(len(self._labels))])
            chosen = np.flatnonzero(groups >= 0)
            chosen = chosen[np.argsort(groups[chosen], kind="stable")]
        if label:
            chosen = chosen[self._labels[chosen] == self.classes.index(label)]
        if text:
            chosen = np.asarray([k for k in chosen.tolist() if text in self._name(k)], dtype=int)
        return ClipPage(
            total=len(chosen),
            scored=int((self._guess >= 0).sum()),
            listed=len(self._labels),
            classes=self.classes,
            clips=[self._row(k) for k in chosen[first : first + count].tolist()],
        )

    def suspects(self, confidence: float | None = None) -> np.ndarray:
        """Clips whose label is doubtful: the model is sure of another one; the surest first.

        It is sure of a class where its score is at least the mean that the clips with this label
        have (confident learning, Northcutt et al. 2021, arXiv 1911.00068, Eq. 2).

        Args:
            confidence: the least score instead of this mean.
        """
        scored = self._guess >= 0
        least = np.full(len(self.classes), np.inf)
        for label in np.unique(self._labels[scored]).tolist():
            least[label] = self._of_label[scored & (self._labels == label)].mean()
        if confidence is not None:
            least[:] = confidence
        wrong = np.flatnonzero(scored & (self._guess != self._labels))
        sure = wrong[self._score[wrong] >= least[self._guess[wrong]]]
        return sure[np.argsort(self._of_label[sure] - self._score[sure], kind="stable")]

    def _name(self, index: int) -> str:
        path = self._videos.paths[index]
        inside = Path(path).is_relative_to(self._videos.root)
        return printable(os.path.relpath(path, self._videos.root or ".") if inside else path)

    def _row(self, index: int) -> ClipRow:
        guess, of_label = int(self._guess[index]), float(self._of_label[index])
        known = guess >= 0
        return ClipRow(
            index=index,
            name=self._name(index),
            labels=[self.classes[int(self._labels[index])]],
            prediction=self.classes[guess] if known else "",
            score=float(self._score[index]) if known else None,
            score_of_label=of_label if known else None,
            loss=float(-np.log(max(of_label, LEAST))) if known else None,
            group=self._groups.get(index),
        )

    def _read(self, path: Path) -> None:
        """Take the scores of a table, whose paths may start at another folder."""
        head, *rows = csv.reader(lines_of(read_text(path, "table of predictions", names=True)))
        numbers = {name: number for number, name in enumerate(self.classes)}
        places = {self._name(k).replace("\\", "/"): k for k in range(len(self._labels))}
        for line, row in enumerate(rows, start=2):
            index = _place(places, text_of(row[0]) if row else "")
            try:
                if head[:3] == ["path", "label", "prediction"]:
                    guess = numbers[text_of(row[2])]
                    score, of_label = float(row[3]), float(row[4])
                else:
                    scores = [float(value) for value in row[2:]]
                    own = [numbers[text_of(name)] for name in head[2:]]
                    if len(scores) != len(own) or head[:2] != ["path", "label"]:
                        raise ValueError("its columns are others")
                    best = int(np.argmax(scores))
                    guess, score = own[best], scores[best]
                    of_label = scores[own.index(numbers[text_of(row[1])])]
            except (ValueError, KeyError, IndexError) as error:
                raise DataError(
                    f"{path}, line {line}: it is no table of predictions for these classes: {error}"
                ) from None
            if index is not None:
                self._guess[index], self._score[index] = guess, score
                self._of_label[index] = of_label
        if not (self._guess >= 0).any():
            raise DataError(f"{path} has predictions of none of the videos of {self._videos.name}")


def _place(places: dict[str, int], path: str) -> int | None:
    """The clip of a path: of the longest of its ends that is the name of one."""
    parts = path.replace("\\", "/").split("/")
    ends = ("/".join(parts[k:]) for k in range(len(parts)))
    return next((places[end] for end in ends if end in places), None)


def duplicate_groups(paths: Sequence[str]) -> dict[int, int]:
    """Which files have the same content: the number of a group for each that has a twin.

    A path that a list has twice is a twin of its own. Files are compared where their sizes are
    equal.
    """
    sizes: dict[int, list[int]] = defaultdict(list)
    for index, path in enumerate(paths):
        if os.path.isfile(path):
            sizes[os.path.getsize(path)].append(index)
    groups: dict[int, int] = {}
    number = 0
    for same_size in sizes.values():
        for twins in _by_content(paths, same_size) if len(same_size) > 1 else ():
            groups |= dict.fromkeys(twins, number)
            number += 1
    return groups


def _by_content(paths: Sequence[str], indices: Iterable[int]) -> list[list[int]]:
    found: dict[bytes, list[int]] = defaultdict(list)
    for index in indices:
        digest = hashlib.blake2b(digest_size=16)
        with open(paths[index], "rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
        found[digest.digest()].append(index)
    return [twins for twins in found.values() if len(twins) > 1]
