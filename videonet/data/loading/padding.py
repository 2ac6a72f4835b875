"""Batches of pictures of several sizes: cut to the largest one, so that little of it is padding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import Tensor

from videonet.data.targets import Targets, TargetSpec
from videonet.data.transforms.dense import SIZE

if TYPE_CHECKING:
    from videonet.data.loading.dataset import Batch


def trimmed(batch: Batch, specs: Mapping[str, TargetSpec], multiple: int) -> Batch:
    """A batch without the padding that all its pictures have.

    Args:
        batch: with the target ``size``, the height and width of each picture, at the top left.
        specs: of the targets; those with sides of the clip are cut as the clips are.
        multiple: of which the sides stay.
    """
    if not len(batch.clips):
        return batch
    largest = batch.targets[SIZE].amax(dim=0).tolist()
    sides = {
        name: min(-(-side // multiple) * multiple, most)
        for name, side, most in zip("HW", largest, batch.clips.shape[-2:], strict=True)
    }
    changed: dict[str, Tensor | list[Tensor]] = {}
    for name, spec in specs.items():
        if any(side in sides for side in spec.shape):
            value = batch.targets[name]
            changed[name] = (
                [_cut(row, spec.shape, sides, 0) for row in value]
                if isinstance(value, list)
                else _cut(value, spec.shape, sides, 1)
            )
    targets = batch.targets | changed if changed else Targets(dict(batch.targets))
    return replace(
        batch, clips=batch.clips[..., : sides["H"], : sides["W"]].contiguous(), targets=targets
    )


def _cut(
    value: Tensor, shape: tuple[int | str | None, ...], sides: Mapping[str, int], first: int
) -> Tensor:
    """A target cut along the sides that are those of the clip, the first of them at `first`."""
    for axis, side in enumerate(shape, first):
        if isinstance(side, str) and side in sides:
            value = value.narrow(axis, 0, sides[side])
    return value.contiguous()
