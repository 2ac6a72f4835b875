"""Memory for pictures that is used again: fresh pages cost more than the copy into them."""

from __future__ import annotations

import math
import weakref
from collections import deque
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

KEPT = 2**28  # bytes; memory larger than this goes back to the system


class BufferPool:
    """Gives out uint8 tensors whose memory comes back when nobody holds them or a view of them."""

    def __init__(self) -> None:
        self._free: deque[np.ndarray] = deque()

    def empty(self, shape: Sequence[int]) -> Tensor:
        """A contiguous tensor with whatever is in it."""
        size = math.prod(shape)
        try:
            memory = self._free.pop()
        except IndexError:
            memory = np.empty(size, np.uint8)
        if memory.size < size:
            memory = np.empty(size, np.uint8)
        lent = memory[:size]  # what torch holds on to; numpy's views would hold ``memory``
        if memory.size <= KEPT:
            weakref.finalize(lent, self._free.append, memory)
        return torch.from_numpy(lent).view(*shape)

    def copy_of(self, tensor: Tensor) -> Tensor:
        """A contiguous copy of a uint8 tensor."""
        return self.empty(tensor.shape).copy_(tensor)
