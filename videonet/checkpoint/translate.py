"""From a checkpoint's names to ours, and back.

Own names are those of the official implementations. A new architecture adds its file to
:mod:`videonet.checkpoint.dialects`; nothing here depends on the architecture.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from videonet.checkpoint.dialect import Dialect, State, Tensors
from videonet.checkpoint.dialects import DIALECTS
from videonet.checkpoint.names import Row, has_names
from videonet.errors import CheckpointError

WRAPPERS = ("module.", "_orig_mod.", "model.")  # put before every name by DDP, compile, trainers
CONTAINERS = ("model_state", "state_dict", "model_state_dict", "model")


def find_state(content: Mapping, origin: str) -> State:
    """The state dict in a checkpoint's content: at the top, or under one of ``CONTAINERS``.

    Raises:
        CheckpointError: there is no tensor in either place.
    """
    for key in CONTAINERS:
        if isinstance(content.get(key), Mapping):
            return find_state(content[key], origin)
    state = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if not state:
        keys = ", ".join(map(str, list(content)[:6])) or "none"
        raise CheckpointError(f"{origin} holds no weights: its keys are {keys}")
    for prefix in WRAPPERS:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def to_own_names(content: Mapping, origin: str) -> Tensors:
    """Recognise the dialect of a checkpoint by its content and translate it.

    Args:
        content: a state dict, or a dictionary that holds one.
        origin: what to call the checkpoint in messages.

    Raises:
        CheckpointError: `content` holds no weights.
    """
    state = find_state(content, origin)
    own = Dialect("videonet", ())
    written_here = "class_names" in content or content.get("format") == "videonet"
    dialect = own if written_here else next((d for d in DIALECTS if d.matches(state)), own)
    constants = [name for name in state if any(has_names([name], [c]) for c in dialect.constants)]
    weights = {name: tensor for name, tensor in state.items() if name not in constants}
    prepared = dialect.prepare(list(weights)) if dialect.prepare else {}
    renamed, sources = {}, {}
    for name, tensor in weights.items():
        name_here, leading = prepared.get(name, name), 0
        for row in dialect.rows:
            if (match := row.to_ours(name_here)) is not None:
                name_here, leading = match, row.leading
                break
        tensor = tensor.reshape((1,) * leading + tuple(tensor.shape))
        # An image is a one-frame clip: a 2D kernel is a 3D kernel of one frame.
        flat_kernel = tensor.dim() == 4 and name_here.endswith(".weight")
        renamed[name_here] = tensor.unsqueeze(2) if flat_kernel else tensor
        sources[name_here] = (name,)
    note = dialect.adapt(renamed) if dialect.adapt else ""
    sizes = {name: tensor.numel() for name, tensor in state.items()}
    notes = (note,) if note else ()
    return Tensors(renamed, sources, sizes, dialect.name, notes, tuple(constants))


def unsupported_option(dialect: str, model: nn.Module) -> str | None:
    """An option of `model` with which tensors of that dialect would compute something else."""
    options = next((d.unsupported for d in DIALECTS if d.name == dialect), ())
    for option in options:
        if any(getattr(module, option, False) for module in model.modules()):
            return option
    return None


def from_own_names(state: Mapping[str, Tensor], name: str) -> State:
    """Write own tensors in the names and shapes of the dialect `name`.

    Raises:
        CheckpointError: that project's model has no place for one of the tensors, or needs one
            that is not there.
    """
    dialect = next(d for d in DIALECTS if d.name == name)
    written = {}
    for own_name, tensor in state.items():
        # A dialect without rows has our names.
        rows = dialect.rows or (Row(own_name, own_name),)
        found = next(((row, new) for row in rows if (new := row.to_theirs(own_name))), None)
        if found is None:
            raise CheckpointError(f"{name}'s model has no place for {own_name}")
        row, new = found
        written[new] = tensor.reshape(tensor.shape[row.leading :])
    for mark in dialect.marks:
        if not has_names(written, (mark,)):
            raise CheckpointError(f"{name}'s model needs {mark}, which the checkpoint lacks")
    return written


PROJECTION = re.compile(r"(.*attn\.)(qkv|q)\.(weight|bias)")


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
