"""From a table of published sizes to the functions that build them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import nn

Build = Callable[..., nn.Module]
IMAGE = "image"  # key of a row: the arguments that its image model has instead


def published(
    architecture: Build,
    variants: Mapping[str, Mapping[str, Any]],
    image: Mapping[str, Any] | None = None,
) -> dict[str, Build]:
    """What builds each model of a table.

    Args:
        architecture: the class of the models.
        variants: name of a model -> constructor arguments that differ from the defaults. A row may
            have a mapping ``"image"``: arguments that are different in the image model, the one
            that is built with ``num_frames=1``.
        image: arguments that are different in the image models of all rows.

    Returns:
        Name -> a function of constructor arguments, which win over those of the table. For
        ``num_frames`` and ``crop_size`` None means "as in the table".
    """
    return {
        name: partial(
            build_variant,
            architecture,
            {key: value for key, value in row.items() if key != IMAGE},
            {**(image or {}), **row.get(IMAGE, {})},
        )
        for name, row in variants.items()
    }


def build_variant(
    architecture: Build,
    clip: Mapping[str, Any],
    image: Mapping[str, Any],
    /,
    **arguments: Any,
) -> nn.Module:
    """Build one published model.

    Args:
        architecture: the class of the model.
        clip: its arguments in the table.
        image: those that are different where ``num_frames`` is 1.
        **arguments: constructor arguments that win over both.
    """
    for name in ("num_frames", "crop_size"):
        if name in arguments and arguments[name] is None:
            del arguments[name]
    frames = arguments.get("num_frames", clip.get("num_frames"))
    return architecture(**{**clip, **(image if frames == 1 else {}), **arguments})
