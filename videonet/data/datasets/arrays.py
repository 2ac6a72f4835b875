"""Many small things of a long list in few arrays, whose memory forked workers share.

Python objects would be copied page by page into every worker as their reference counts change.
"""

from __future__ import annotations

import os
import pickle
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeVar, overload

import numpy as np

T = TypeVar("T")


class Rows(Protocol):
    """One thing for every video, by its place: a list, an array, or one of the classes below."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class PackedSequence(Sequence[T]):
    """A sequence that makes its members when they are asked for."""

    @abstractmethod
    def _member(self, index: int) -> T:
        """The one at ``0 … len - 1``."""

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> list[T]: ...

    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            return [self._member(k) for k in range(len(self))[index]]
        return self._member(range(len(self))[index])  # negative ones and IndexError as in a list


class PathArray(PackedSequence[str]):
    """The names of files."""

    def __init__(self, paths: Iterable[str]):
        encoded = [os.fsencode(path) for path in paths]
        self._ends = np.cumsum([len(path) for path in encoded], dtype=np.int64)
        self._bytes = np.frombuffer(b"".join(encoded), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self._ends)

    def _member(self, index: int) -> str:
        start = self._ends[index - 1] if index else 0
        return os.fsdecode(self._bytes[start : self._ends[index]].tobytes())


class MultiHot(PackedSequence[np.ndarray]):
    """The label sets of videos, given out as rows of zeros and ones ``(num_classes,)`` float32."""

    def __init__(self, sets: Iterable[Sequence[int]], num_classes: int):
        sets = list(sets)
        self.num_classes = num_classes
        self._ends = np.cumsum([len(labels) for labels in sets], dtype=np.int64)
        self._labels = np.array([label for labels in sets for label in labels], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends)

    def labels(self, index: int) -> list[int]:
        """The classes of one video."""
        index = range(len(self))[index]
        start = self._ends[index - 1] if index else 0
        return self._labels[start : self._ends[index]].tolist()

    def _member(self, index: int) -> np.ndarray:
        row = np.zeros(self.num_classes, dtype=np.float32)
        row[self.labels(index)] = 1
        return row


class PackedRows(PackedSequence[T]):
    """Any small things, kept as bytes and made anew whenever one is asked for."""

    def __init__(self, rows: Iterable[T]):
        packed = [pickle.dumps(row, protocol=pickle.HIGHEST_PROTOCOL) for row in rows]
        self._ends = np.cumsum([len(row) for row in packed], dtype=np.int64)
        self._bytes = np.frombuffer(b"".join(packed), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self._ends)

    def _member(self, index: int) -> T:
        start = self._ends[index - 1] if index else 0
        return pickle.loads(self._bytes[start : self._ends[index]].tobytes())
