"""From a checkpoint's names to ours, and back.

Own names are those of the official implementations. A new architecture adds its file to
:mod:`videonet.checkpoint.dialects`; nothing here depends on the architecture.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from videonet.checkpoint.contents import find_state
from videonet.checkpoint.dialect import State, Tensors
from videonet.checkpoint.dialects import DIALECTS, dense
from videonet.checkpoint.dialects.detection import rename_parts_on_top
from videonet.checkpoint.names import Row, compile_template, has_names
from videonet.checkpoint.projections import with_joined_gates
from videonet.checkpoint.recognition import recognise
from videonet.errors import CheckpointError


def to_own_names(content: Mapping, origin: str, wanted: Collection[str] = ()) -> Tensors:
    """Recognise the dialect of a checkpoint by its content and translate it.

    Args:
        content: a state dict, or a dictionary that holds one.
        origin: what to call the checkpoint in messages.
        wanted: names of the model's parameters, where there is a model.

    Raises:
        CheckpointError: `content` holds no weights, or those of several models.
    """
    found = find_state(content, origin)
    state = found.state
    recognised = recognise(state, origin, wanted)
    dialect, theirs = recognised.dialect, recognised.names
    dropped = {
        name: f"another copy of the model, {prefix}" for name, prefix in recognised.copies.items()
    }
    for templates, reason in (
        (dialect.constants, "computed by this model"),
        (dialect.unused, "a part that the classifier does not use"),
    ):
        dropped |= {
            name: reason
            for name, n in theirs.items()
            if n not in wanted and _fits_one(n, templates)
        }
    weights = {n: state[name] for name, n in theirs.items() if name not in dropped}
    originals = {n: name for name, n in theirs.items()}
    heads = rename_parts_on_top(weights)
    placed = {originals[name] for name, own_name in heads.items() if own_name in wanted}
    prepared = dialect.prepare(list(weights)) if dialect.prepare else {}
    renamed: State = {}
    sources: dict[str, tuple[str, ...]] = {}
    for name, tensor in weights.items():
        name_here, leading_dims = heads.get(name) or prepared.get(name, name), 0
        for row in () if name in heads else (*dense.PART_ROWS, *dialect.rows):
            if (match := row.to_ours(name_here)) is not None:
                name_here, leading_dims = match, row.leading_dims
                break
        tensor = tensor.reshape((1,) * leading_dims + tuple(tensor.shape))
        # An image is a one-frame clip: a 2D kernel is a 3D kernel of one frame.
        flat_kernel = tensor.dim() == 4 and name_here.endswith(".weight")
        if tensor.dim() == 4 and name_here.endswith(".complex_weight"):
            tensor = tensor.unsqueeze(1)  # (C, 1, h, w, 2): one temporal frequency
        renamed[name_here] = tensor.unsqueeze(2) if flat_kernel else tensor
        sources[name_here] = (originals[name],)
    _join_keys_and_values(renamed, sources)
    note = dialect.adapt(renamed) if dialect.adapt else ""
    written_here = "class_names" in content or content.get("format") == "videonet"
    own = written_here and not note and list(renamed) == list(weights)
    tensors = Tensors(
        renamed,
        sources,
        {name: tensor.numel() for name, tensor in state.items()},
        "videonet" if own else dialect.name,
        (*found.notes, note) if note else found.notes,
        dropped,
        recognised.outside - placed,
        recognised.of_pretraining - placed,
        recognised.of_detector,
        dialect.lacks + (dialect.base_lacks if recognised.is_base else ()),
        dialect.norm_follows_pooling and not own,
    )
    return with_joined_gates(tensors)


def _join_keys_and_values(state: State, sources: dict[str, tuple[str, ...]]) -> None:
    """One ``kv`` in place of ``kv.k`` and ``kv.v``, as tables name the two layers of a project."""
    for name in [name for name in state if ".kv.k." in name]:
        parts = (name, name.replace(".kv.k.", ".kv.v."))
        if all(part in state for part in parts):
            joined = name.replace(".kv.k.", ".kv.")
            state[joined] = torch.cat([state.pop(part) for part in parts])
            sources[joined] = sum((sources.pop(part) for part in parts), ())


def _fits_one(name: str, templates: Sequence[str]) -> bool:
    return any(compile_template(template).fullmatch(name) for template in templates)


def wrong_option(dialect: str, model: nn.Module) -> str | None:
    """An option of `model` with which tensors of a dialect would compute something else.

    Returns:
        The option as it would have to be, ``"pool_first=False"``; None where all are right.
    """
    found = next((d for d in DIALECTS if d.name == dialect), None)
    if found is None:
        return None
    for option in found.unsupported:
        if any(getattr(module, option, False) for module in model.modules()):
            return f"{option}=False"
    adds = found.residual_with_cls_token
    if not found.has_own_names and adds is not None and (not adds) in _class_residuals(model):
        return f"residual_with_cls_token={adds}"
    return None


def has_open_residual(dialect: str, model: nn.Module) -> bool:
    """Whether names do not show if `model` treats the class token in residual pooling as trained.

    torchvision has an option for it. PySlowFast has none, but a plain state dict of a model built
    here, which has one, looks the same.
    """
    found = next((d for d in DIALECTS if d.name == dialect), None)
    if found is None:
        return False
    residuals = _class_residuals(model)
    return True in residuals if found.has_own_names else bool(residuals) and found.has_option


def _class_residuals(model: nn.Module) -> set[bool]:
    """Whether attentions with residual pooling and a class token add that token's query."""
    return {
        bool(module.residual_with_cls_token)
        for module in model.modules()
        if getattr(module, "residual_pooling", False) and getattr(module, "num_prefix_tokens", 0)
    }


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
        written[new] = tensor.reshape(tensor.shape[row.leading_dims :])
    for mark in dialect.marks:
        if not has_names(written, (mark,)):
            raise CheckpointError(f"{name}'s model needs {mark}, which the checkpoint lacks")
    return written
