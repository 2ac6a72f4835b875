"""All models by name. A new architecture adds its file and one line to ``FAMILIES``."""

from __future__ import annotations

import difflib
import re
import warnings
from fnmatch import fnmatchcase

from torch import nn

from videonet.errors import ConfigError
from videonet.models import (
    asmlp,
    cvt,
    cyclemlp,
    dilateformer,
    hornet,
    hrnet,
    mvit,
    reversible_mvit,
    swin,
    vit,
)

FAMILIES = {  # the architecture, to be described by its arguments, and its published variants
    "mvit": (mvit.MViT, mvit.MODELS),
    "rev_mvit": (reversible_mvit.ReversibleMViT, {}),
    "swin": (swin.Swin, swin.MODELS),
    "vit": (vit.ViT, vit.MODELS),
    "cvt": (cvt.CvT, cvt.MODELS),
    "cyclemlp": (cyclemlp.CycleMLP, cyclemlp.MODELS),
    "asmlp": (asmlp.ASMLP, asmlp.MODELS),
    "hrnet": (hrnet.HRNet, hrnet.MODELS),
    "dilateformer": (dilateformer.DilateFormer, dilateformer.MODELS),
    "hornet": (hornet.HorNet, hornet.MODELS),
}
MODELS = {name: build for _, variants in FAMILIES.values() for name, build in variants.items()}
RENAMED_ARGUMENTS = {"pool_leading": "pool_include_prefix"}  # former name -> name


def list_models(pattern: str = "*") -> list[str]:
    """Sorted names of the models; ``list_models("mvit*")`` filters."""
    return sorted(name for name in MODELS if fnmatchcase(name, pattern))


def create_model(name: str, **arguments) -> nn.Module:
    """Build a model with random weights.

    Args:
        name: one of :func:`list_models`, or a family of ``FAMILIES`` (``"mvit"``, ``"swin"``, …)
            for a model described by its arguments alone.
        **arguments: any constructor argument of the architecture; every model has
            ``num_classes, num_frames, crop_size, in_channels, cls_token, drop_path_rate,
            head_dropout``. ``num_frames=1`` gives the image model.

    Returns:
        A module that maps a clip (B, in_channels, T, H, W) to logits (B, num_classes).

    Raises:
        ConfigError: unknown name or argument.
    """
    build = FAMILIES[name][0] if name in FAMILIES else MODELS.get(name)
    if build is None:
        near = difflib.get_close_matches(name, MODELS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(list_models())}"
        raise ConfigError(f"unknown model {name!r}: {hint}")
    for former in RENAMED_ARGUMENTS.keys() & arguments.keys():
        new = RENAMED_ARGUMENTS[former]
        warnings.warn(f"{former} will go: use {new}", FutureWarning, stacklevel=2)
        arguments[new] = arguments.pop(former)
    try:
        return build(**arguments)
    except TypeError as error:
        found = re.search(r"unexpected keyword argument '([^']*)'", str(error))
        if found is None:
            raise
        raise ConfigError(f"model {name} has no argument {found[1]!r}") from error
