"""How much a checkpoint that was read would become: a small one may stand for a very large one.

Containers may hold the same container many times, and a tensor may show the same number many
times, so what goes through them all, copies or prints them needs a limit.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from videonet.checkpoint.archives import MOST_UNPACKED, SLACK
from videonet.errors import CheckpointError

MOST_VALUES = 10**7  # numbers, texts, tensors and containers, each as often as it is held
DEEPEST = 50  # containers within each other


def check_sizes(content: Any, name: str | Path) -> None:
    """Refuse content that is far more than what the file holds.

    Args:
        name: what messages call the file.

    Raises:
        CheckpointError: it holds itself or too many values, or its tensors show more numbers than
            are stored, or none.
    """
    known: dict[int, int | None] = {}
    tensors: list[Tensor] = []
    _count(content, name, known, tensors, 0)
    stored = {}
    shown = 0
    for tensor in tensors:
        if tensor.is_meta:
            raise CheckpointError(f"{name} holds the shape of a tensor without its numbers (meta)")
        if tensor.layout == torch.strided:
            storage = tensor.untyped_storage()
            stored[storage.data_ptr()] = storage.nbytes()
            shown += tensor.numel() * tensor.element_size()
    if shown > MOST_UNPACKED * sum(stored.values()) + SLACK:
        raise CheckpointError(
            f"{name} would grow from {sum(stored.values()) >> 10:,} KiB to {shown >> 20:,} MiB, "
            "which is refused: its tensors repeat the same numbers (expand)"
        )


def _count(
    value: Any, name: str | Path, known: dict[int, int | None], tensors: list[Tensor], depth: int
) -> int:
    """Values in a value; None in `known` while a container is counted. Collects the tensors."""
    if isinstance(value, Tensor):
        if known.setdefault(id(value), 0) == 0:
            tensors.append(value)
            known[id(value)] = 1
        return 1
    if not isinstance(value, Mapping | list | tuple | set | frozenset):
        return 1
    if id(value) in known:
        count = known[id(value)]
        if count is None:
            raise CheckpointError(f"{name} holds a container that contains itself")
        return count
    known[id(value)], count = None, 1
    if depth > DEEPEST:
        raise CheckpointError(f"{name} holds more than {DEEPEST} containers within each other")
    for part in value.values() if isinstance(value, Mapping) else value:
        count += _count(part, name, known, tensors, depth + 1)
    if count > MOST_VALUES:
        raise CheckpointError(f"{name} holds more than {MOST_VALUES:,} values, which is refused")
    known[id(value)] = count
    return count
