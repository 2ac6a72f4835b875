"""Linear layers that some projects have in one piece and others in several.

Queries, keys and values in one projection or in three, with one bias or with two; both halves of a
gated MLP.
"""

from __future__ import annotations

import re
from dataclasses import replace

import torch
from torch import nn

from videonet.checkpoint.dialect import Tensors
from videonet.checkpoint.target import Target

PROJECTION = re.compile(r"(.*attn\.)(qkv|q)\.(weight|bias)")
GATE = re.compile(r"(.*mlp\.)gate\.(weight|bias)")


def with_joined_gates(tensors: Tensors) -> Tensors:
    """The same with one ``mlp.fc1`` wherever there are ``mlp.gate`` and ``mlp.value``."""
    state, sources = dict(tensors.state), dict(tensors.sources)
    for name in tensors.state:
        match = GATE.fullmatch(name)
        value = match and f"{match[1]}value.{match[2]}"
        if match and value in state:
            joined = f"{match[1]}fc1.{match[2]}"
            state[joined] = torch.cat((state.pop(name), state.pop(value)))
            sources[joined] = sources.pop(name) + sources.pop(value)
    return replace(tensors, state=state, sources=sources)


def with_fused_projections(tensors: Tensors) -> Tensors:
    """The same with one ``qkv`` wherever there are ``q``, ``k`` and ``v``."""
    state, sources = dict(tensors.state), dict(tensors.sources)
    for name in tensors.state:
        match = PROJECTION.fullmatch(name)
        if match is None or match[2] != "q":
            continue
        parts = [f"{match[1]}{p}.{match[3]}" for p in "qkv"]
        if all(part in state for part in parts):
            fused = f"{match[1]}qkv.{match[3]}"
            state[fused] = torch.cat([state.pop(part) for part in parts])
            sources[fused] = sum((sources.pop(part) for part in parts), ())
    return replace(tensors, state=state, sources=sources)


def with_separate_projections(tensors: Tensors) -> Tensors:
    """The same with ``q``, ``k`` and ``v`` wherever there is one ``qkv``."""
    state, sources = dict(tensors.state), dict(tensors.sources)
    for name in tensors.state:
        match = PROJECTION.fullmatch(name)
        if match is None or match[2] != "qkv":
            continue
        origin = sources.pop(name)
        for p, part in zip("qkv", state.pop(name).chunk(3), strict=True):
            state[f"{match[1]}{p}.{match[3]}"] = part
            sources[f"{match[1]}{p}.{match[3]}"] = origin
    return replace(tensors, state=state, sources=sources)


def shaped_projections(tensors: Tensors, target: Target) -> Tensors:
    """The same with projections and biases as the model has them."""
    fused = any(name.endswith(".attn.qkv.weight") for name in target.state)
    tensors = with_fused_projections(tensors) if fused else with_separate_projections(tensors)
    state, sources = dict(tensors.state), dict(tensors.sources)
    for name, module in target.modules.items():
        whole, *parts = (f"{name}.{leaf}" for leaf in ("qkv.bias", "q_bias", "v_bias"))
        if not name.endswith("attn") or not _key_bias_cancels(module):
            continue
        if whole in target.state and all(part in state for part in parts):
            query, value = (state.pop(part) for part in parts)
            state[whole] = torch.cat((query, torch.zeros_like(query), value))
            sources[whole] = sum((sources.pop(part) for part in parts), ())
        elif parts[0] in target.state and whole in state:
            query, _, value = state.pop(whole).chunk(3)
            origin = sources.pop(whole)
            for part, bias in zip(parts, (query, value), strict=True):
                state[part], sources[part] = bias, origin
    return replace(tensors, state=state, sources=sources)


def _key_bias_cancels(attention: nn.Module) -> bool:
    """Whether a bias of all keys adds the same to all logits of a query, as plain products do."""
    return all(getattr(attention, part, None) is None for part in ("k_norm", "norm_k", "scale"))
