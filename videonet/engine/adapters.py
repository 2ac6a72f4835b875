"""Low-rank adapters (LoRA, arXiv 2106.09685) beside the linear layers of any backbone."""

from __future__ import annotations

import re
from collections.abc import Sequence

from fvcore.common.config import CfgNode
from torch import nn

from videonet.errors import ConfigError
from videonet.models.base import VideoModel


def adapted_layers(model: VideoModel, ends: Sequence[str] = ()) -> list[str]:
    """Names of the linear layers between the stem and the head, which adapters can stand beside.

    Args:
        model: any backbone.
        ends: only layers whose names end so, in whole parts, such as ``qkv`` or ``mlp.fc1``;
            empty for all.

    Raises:
        ConfigError: there are none, or one of `ends` fits none.
    """
    groups = model.layer_groups()[1:-1]
    weights = {name for names in groups for name in names}
    layers = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and f"{name}.weight" in weights
    ]
    if not layers:
        raise ConfigError(
            f"{type(model).__name__} has no linear layers between its stem and its head, so there "
            "is nothing for MODEL.LORA: MODEL.FROZEN_LAYERS trains a part of its layers"
        )
    for end in ends:
        if not any(f".{name}".endswith(f".{end}") for name in layers):
            known = sorted({name.rpartition(".")[2] for name in layers})
            raise ConfigError(
                f"MODEL.LORA.LAYERS names {end!r}, but the linear layers of this "
                f"{type(model).__name__} end with {', '.join(known)}"
            )
    return [n for n in layers if not ends or f".{n}".endswith(tuple(f".{end}" for end in ends))]


def add_adapters(model: VideoModel, options: CfgNode) -> list[str]:
    """Put adapters beside linear layers, in place; only they and the head are trained from here.

    They begin as zero, so the model computes what it did.

    Args:
        model: any backbone, with the weights to start from.
        options: ``MODEL.LORA``.

    Returns:
        The names of the layers.

    Raises:
        ConfigError: peft is not installed, or there are no such layers.
    """
    try:
        import peft
    except ImportError as error:
        raise ConfigError(
            f"MODEL.LORA.RANK is {options.RANK}, which needs the library peft: "
            "pip install 'videonet[lora]'"
        ) from error
    names = adapted_layers(model, options.LAYERS)
    settings = peft.LoraConfig(
        r=options.RANK,
        lora_alpha=options.ALPHA,
        lora_dropout=options.DROPOUT,
        target_modules="|".join(map(re.escape, names)),
    )
    peft.inject_adapter_in_model(settings, model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".lora_" in name or name.startswith("head."))
    return names


def adapter_scale(options: CfgNode) -> float:
    """The factor on the product of an adapter's matrices; `options` is ``MODEL.LORA``."""
    return options.ALPHA / options.RANK
