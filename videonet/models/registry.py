"""All models by name. A new architecture adds its file and one line to ``FAMILIES``."""

from __future__ import annotations

import difflib
from fnmatch import fnmatchcase

from torch import nn

from videonet.errors import ConfigError
from videonet.models import asmlp, cvt, cyclemlp, dilateformer, hornet, hrnet, mvit, swin, vit

FAMILIES = (mvit, swin, vit, cvt, cyclemlp, asmlp, hrnet, dilateformer, hornet)
MODELS = {name: build for family in FAMILIES for name, build in family.MODELS.items()}
# Architectures described by their arguments instead of by a published name.
GENERIC = {
    "mvit": mvit.MViT,
    "swin": swin.Swin,
    "cyclemlp": cyclemlp.CycleMLP,
    "asmlp": asmlp.ASMLP,
    "hrnet": hrnet.HRNet,
    "dilateformer": dilateformer.DilateFormer,
    "hornet": hornet.HorNet,
}


def list_models(pattern: str = "*") -> list[str]:
    """Sorted names of the models; ``list_models("mvit*")`` filters."""
    return sorted(name for name in MODELS if fnmatchcase(name, pattern))


def create_model(name: str, **arguments) -> nn.Module:
    """Build a model with random weights.

    Args:
        name: one of :func:`list_models`, or ``"mvit"`` or ``"swin"`` for a model described by its
            arguments.
        **arguments: any constructor argument of the architecture; every model has
            ``num_classes, num_frames, crop_size, in_channels, cls_token, drop_path_rate,
            head_dropout``. ``num_frames=1`` gives the image model.

    Returns:
        A module that maps a clip (B, in_channels, T, H, W) to logits (B, num_classes).

    Raises:
        ConfigError: unknown name or argument.
    """
    build = MODELS.get(name) or GENERIC.get(name)
    if build is None:
        near = difflib.get_close_matches(name, MODELS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(list_models())}"
        raise ConfigError(f"unknown model {name!r}: {hint}")
    try:
        return build(**arguments)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        key = str(error).rsplit("'", 2)[1]
        raise ConfigError(f"model {name} has no argument {key!r}") from error
