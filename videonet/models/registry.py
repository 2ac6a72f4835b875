"""All models by name. A new architecture adds its file and one line to ``FAMILIES``."""

from __future__ import annotations

import difflib
import logging
import re
import warnings
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from torch import nn

import videonet.models.asmlp as asmlp
import videonet.models.cvt as cvt
import videonet.models.cyclemlp as cyclemlp
import videonet.models.dilateformer as dilateformer
import videonet.models.hiera as hiera
import videonet.models.hornet as hornet
import videonet.models.hrnet as hrnet
import videonet.models.mvit as mvit
import videonet.models.reversible_mvit as reversible_mvit
import videonet.models.swin as swin
import videonet.models.vit as vit
import videonet.models.vjepa2 as vjepa2
from videonet.errors import ConfigError
from videonet.models.arguments import checked_arguments
from videonet.models.variants import Build
from videonet.models.weights import all_weights, get_weights, is_name, load_weights

logger = logging.getLogger(__name__)

# The architecture, to be described by its arguments, and its published variants.
FAMILIES: dict[str, tuple[type[nn.Module], Mapping[str, Build]]] = {
    "mvit": (mvit.MViT, mvit.MODELS),
    "rev_mvit": (reversible_mvit.ReversibleMViT, {}),
    "swin": (swin.Swin, swin.MODELS),
    "vit": (vit.ViT, vit.MODELS),
    "vjepa2": (vjepa2.VJEPA2, vjepa2.MODELS),
    "cvt": (cvt.CvT, cvt.MODELS),
    "cyclemlp": (cyclemlp.CycleMLP, cyclemlp.MODELS),
    "asmlp": (asmlp.ASMLP, asmlp.MODELS),
    "hrnet": (hrnet.HRNet, hrnet.MODELS),
    "dilateformer": (dilateformer.DilateFormer, dilateformer.MODELS),
    "hornet": (hornet.HorNet, hornet.MODELS),
    "hiera": (hiera.Hiera, hiera.MODELS),
}
RENAMED_ARGUMENTS = {  # former name -> name
    "pool_leading": "pool_include_prefix",
    "fork_feat": "output_norms",
}


def list_models(pattern: str = "*") -> list[str]:
    """Sorted names of the published models.

    Args:
        pattern: for instance ``"mvit*"``.
    """
    names = [name for _, variants in FAMILIES.values() for name in variants]
    return sorted(name for name in names if fnmatchcase(name, pattern))


def list_weights(pattern: str = "*") -> list[str]:
    """Sorted names of the published weights, ``MODEL.TAG``.

    Args:
        pattern: for instance ``"mvit*"`` or ``"*.k400*"``.
    """
    models = {name for _, variants in FAMILIES.values() for name in variants} | FAMILIES.keys()
    return sorted(
        name
        for name, weights in all_weights().items()
        if weights.model in models and fnmatchcase(name, pattern)
    )


def create_model(
    name: str,
    *,
    weights: str | Path | None = None,
    class_names: Sequence[str] | None = None,
    **arguments: Any,
) -> nn.Module:
    """Build a model, with random weights or with given ones.

    Args:
        name: one of :func:`list_models`, or a family of ``FAMILIES`` (``"mvit"``, ``"swin"``, …)
            for a model described by its arguments alone.
        weights: the tag (``"k400"``) or the name (``"mvit_v2_s.k400"``) of published weights, see
            :func:`list_weights`; the model gets the arguments that they need, and a new head where
            `num_classes` is another. Or what :func:`videonet.load_checkpoint` reads: a path, a
            URL, ``hf-hub:OWNER/NAME``.
        class_names: of the model's classes: with `weights`, the head keeps the rows of classes of
            the same name. They say how many classes there are.
        **arguments: any constructor argument of the architecture; every model has
            ``num_classes, num_frames, crop_size, in_channels, cls_token, drop_path_rate,
            head_dropout, centre_clips``. ``num_frames=1`` gives the image model.

    Returns:
        A module that maps a clip (B, in_channels, T, H, W) to logits (B, num_classes).

    Raises:
        ConfigError: unknown name or argument, or a value of another type, length or range.
        CheckpointError: the weights cannot be fetched or read, or do not fit.
    """
    if class_names is not None:
        arguments.setdefault("num_classes", len(class_names))
    if weights is None:
        return _build(name, arguments)
    source, arguments = _with_weights(name, weights, arguments)
    model = _build(name, arguments)
    report = load_weights(model, source, class_names=class_names)
    logger.info("weights\n%s", report)
    return model


def _with_weights(
    name: str, weights: str | Path, arguments: dict[str, Any]
) -> tuple[str | Path, dict[str, Any]]:
    """What to load, and the arguments that the model needs for it."""
    text = str(weights)
    if re.fullmatch(r"\w+", text) and not Path(text).exists():
        text = f"{name}.{text}"
    elif not is_name(text):
        return weights, arguments
    published = get_weights(text)
    if published.model != name:
        raise ConfigError(f"{text} are weights of {published.model}, expected those of {name}")
    return text, published.model_arguments(**arguments)


def _build(name: str, arguments: dict[str, Any]) -> nn.Module:
    architecture, build = _find(name)
    for former in RENAMED_ARGUMENTS.keys() & arguments.keys():
        new = RENAMED_ARGUMENTS[former]
        warnings.warn(f"{former} will go: use {new}", FutureWarning, stacklevel=3)
        arguments[new] = arguments.pop(former)
    if name not in FAMILIES:  # None: as published
        for key in ("num_frames", "crop_size"):
            if key in arguments and arguments[key] is None:
                del arguments[key]
    arguments = checked_arguments(name, architecture, arguments)
    try:
        return build(**arguments)
    except TypeError as error:
        if missing := re.search(r"missing .* argument: '(\w+)'", str(error)):
            raise ConfigError(f"model {name} needs the argument {missing[1]!r}") from error
        raise _impossible(name, arguments, error) from error
    except ConfigError:
        raise
    except (ArithmeticError, LookupError, RuntimeError, ValueError) as error:
        raise _impossible(name, arguments, error) from error


def _impossible(name: str, arguments: Mapping[str, Any], error: Exception) -> Exception:
    """What to raise where the constructor fails: a sentence where the caller gave arguments."""
    if not arguments:
        return error
    given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    reason = str(error).partition("\n")[0] or type(error).__name__
    return ConfigError(f"model {name} cannot be built with {given[:120]}: {reason[:120]}")


def architecture_of(name: str) -> type[nn.Module]:
    """The class of a model of :func:`list_models`.

    Raises:
        ConfigError: there is no such model.
    """
    return _find(name)[0]


def _find(name: str) -> tuple[type[nn.Module], Build]:
    """The architecture of a name, and what builds the model."""
    for family, (architecture, variants) in FAMILIES.items():
        if name == family:
            return architecture, architecture
        if name in variants:
            return architecture, variants[name]
    near = difflib.get_close_matches(name, list_models(), n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(list_models())}"
    raise ConfigError(f"unknown model {name!r}: {hint}")
