"""Targets in memory that the processes of a loader share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from videonet.data.targets import TargetSpec
from videonet.errors import DataError

Large = dict[tuple[int, str], np.ndarray]  # (row of the batch, name) -> target


class TargetBuffers:
    """Room for the targets of ``slots`` batches of ``rows`` clips.

    Of a target whose number differs from clip to clip there is room for ``TargetSpec.room``;
    :meth:`write` returns one that has more, which :meth:`read` takes again.
    """

    def __init__(
        self,
        specs: Mapping[str, TargetSpec],
        clip_shape: tuple[int, ...],
        slots: int,
        rows: int,
    ):
        self._values: dict[str, Tensor] = {}
        self._counts: dict[str, Tensor] = {}  # of targets whose number differs
        for name, spec in specs.items():
            sides = ((spec.room,) if spec.varies else ()) + spec.sides(clip_shape)
            self._values[name] = shared_memory((slots, rows, *sides), spec.dtype)
            if spec.varies:
                self._counts[name] = shared_memory((slots, rows), torch.int64)

    def write(self, slot: int, row: int, targets: Sequence[Mapping[str, Tensor]]) -> Large:
        """Keep the targets of clips from ``row`` on; returns those there is no room for."""
        large: Large = {}
        for place, clip in enumerate(targets, row):
            for name, buffer in self._values.items():
                value, room = clip[name], buffer[slot, place]
                if name in self._counts:
                    self._counts[name][slot, place] = len(value)
                    if len(value) > len(room):
                        large[place, name] = value.numpy()
                        continue
                    room = room[: len(value)]
                room.copy_(value)
        return large

    def read(self, slot: int, rows: Sequence[int], large: Large) -> list[dict[str, Tensor]]:
        """The targets of the clips in these rows, in memory of their own.

        Args:
            large: what :meth:`write` returned for them.
        """
        return [{name: self._read(name, slot, row, large) for name in self._values} for row in rows]

    def _read(self, name: str, slot: int, row: int, large: Large) -> Tensor:
        if (row, name) in large:
            return torch.from_numpy(large[row, name])
        value = self._values[name][slot, row]
        if name in self._counts:
            value = value[: int(self._counts[name][slot, row])]
        return value.clone()


def shared_memory(shape: tuple[int, ...], dtype: torch.dtype = torch.uint8) -> Tensor:
    """Zeros that worker processes may be sent without copying them.

    Raises:
        DataError: there is not enough of it.
    """
    try:
        return torch.zeros(shape, dtype=dtype).share_memory_()
    except RuntimeError as error:
        size = math.prod(shape) * dtype.itemsize / 2**20
        raise DataError(
            f"there are no {size:.0f} MiB of shared memory for the loader: use fewer workers or "
            f"smaller batches, or let /dev/shm be larger ({str(error).splitlines()[0]})"
        ) from None
