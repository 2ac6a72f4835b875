"""Batches of pictures of several sizes: cut to the largest one, so that little of it is padding."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from videonet.data.targets import SIZE, Targets, TargetSpec


def trimmed(
    clips: Tensor, targets: Targets, specs: Mapping[str, TargetSpec], multiple: int
) -> tuple[Tensor, Targets]:
    """Clips and targets without the padding that all pictures have.

    Args:
        clips: (N, 3, T, H, W), with each picture at the top left.
        targets: of the clips, with ``size``, the height and width of each picture.
        specs: of the targets; those with sides of the clip are cut as the clips are.
        multiple: of which the sides stay.
    """
    if not len(clips):
        return clips, targets
    largest = targets[SIZE].amax(dim=0).tolist()
    sides = {
        name: min(-(-side // multiple) * multiple, most)
        for name, side, most in zip("HW", largest, clips.shape[-2:], strict=True)
    }
    changed: dict[str, Tensor | list[Tensor]] = {}
    for name, spec in specs.items():
        if not any(side in sides for side in spec.shape):
            continue
        value = targets[name]
        if isinstance(value, list):
            changed[name] = [_cut(row, spec.shape, sides, 0) for row in value]
        else:
            changed[name] = _cut(value, spec.shape, sides, 1)
    return clips[..., : sides["H"], : sides["W"]].contiguous(), targets | changed


def _cut(
    value: Tensor, shape: tuple[int | str | None, ...], sides: Mapping[str, int], first: int
) -> Tensor:
    """A target cut along the sides that are those of the clip, the first of them at `first`."""
    for axis, side in enumerate(shape, first):
        if isinstance(side, str) and side in sides:
            value = value.narrow(axis, 0, sides[side])
    return value.contiguous()
